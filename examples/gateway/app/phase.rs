//! Whether the gateway serves, drains or has stopped, for those who watch it.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use tokio::sync::watch;

use super::App;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Serving,
    Draining,
    Stopped,
}

/// Shared by all that ask; set by the one that takes the gateway down.
#[derive(Clone)]
pub(crate) struct Phase(Arc<watch::Sender<Stage>>);

impl Phase {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Stage::Serving)))
    }

    pub(crate) fn set(&self, stage: Stage) {
        self.0.send_replace(stage);
    }

    pub(crate) fn is_serving(&self) -> bool {
        *self.0.borrow() == Stage::Serving
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Stage> {
        self.0.subscribe()
    }
}

/// Whether a load balancer should send anybody here.
pub(crate) async fn readiness(State(app): State<App>) -> (StatusCode, &'static str) {
    if app.phase.is_serving() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "draining\n") }
}

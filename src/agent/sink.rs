//! Where the streams of an agent's sessions go: to a listener, or to local services.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{connect::BoxFuture, forward, listener::Queue, targets::Targets};
use crate::mux::MuxTunnel;

/// Where streams go.
#[derive(Debug, Clone)]
pub(crate) enum Sink {
    /// To who holds the listener.
    Queue(Queue),
    /// To the local addresses of their targets.
    Forward(Arc<Targets>),
}

impl Sink {
    /// Takes what the server opens in a session, until it has ended or `stopped` resolves; what still runs is reset
    /// then, as far as it is ours.
    pub(crate) fn pump(&self, tunnel: MuxTunnel, stopped: oneshot::Receiver<()>) -> BoxFuture<'static, ()> {
        match self {
            Self::Queue(queue) => {
                let queue = queue.clone();
                Box::pin(async move {
                    tokio::select! {
                        _ = stopped => {}
                        () = queue.pump(&tunnel) => {}
                    }
                })
            }
            Self::Forward(targets) => Box::pin(forward::pump(Arc::clone(targets), tunnel, stopped)),
        }
    }
}

//! What happens to sandboxes, told to whoever listens at `/events`, as server-sent events.
//!
//! Nobody waits for a listener: one that is slow loses the oldest events, and is told how many by an event `missed`.
//! Then, as at the start, `/stats` tells how things stand.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use revdial::connman::{Events, Registration, TunnelEvent};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{App, phase};

/// Listeners at once; more are asked to come again.
const MAX_LISTENERS: usize = 100;

/// How soon a browser comes back that has lost its stream.
const RETRY: Duration = Duration::from_secs(1);

/// The places of those who listen.
#[derive(Clone)]
pub(crate) struct Places(Arc<Semaphore>);

impl Places {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LISTENERS)))
    }
}

/// What one listener has heard, and its place.
struct Listener {
    events: Events,
    phase: watch::Receiver<phase::Stage>,
    greeting: Option<Event>,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// The next thing to tell; `None` when the gateway has stopped.
    async fn next(&mut self) -> Option<Event> {
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        tokio::select! {
            event = self.events.next() => Some(match event? {
                Ok(event) => tell(event.name(), &describe(&event)),
                Err(missed) => tell("missed", &json!({ "events": missed.events })),
            }),
            _ = self.phase.wait_for(|phase| *phase == phase::Stage::Stopped) => None,
        }
    }
}

pub(crate) async fn subscribe(State(app): State<App>) -> Response {
    let Ok(place) = app.listeners.0.clone().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")]).into_response();
    };
    let greeting = tell("listening", &json!({})).retry(RETRY);
    let (events, phase) = (app.connman.subscribe(), app.phase.watch());
    let listener = Listener { events, phase, greeting: Some(greeting), _place: place };
    let told = stream::unfold(listener, async |mut listener| {
        let event = listener.next().await?;
        Some((Ok::<_, Infallible>(event), listener))
    });
    Sse::new(told).keep_alive(KeepAlive::default()).into_response()
}

fn tell(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

/// An event's key, its link's epoch, and what else there is to say about it.
fn describe(event: &TunnelEvent) -> Value {
    let mut told = json!({ "key": event.key().as_str(), "epoch": event.epoch().number() });
    match event {
        TunnelEvent::Connected { registration, .. } => told["version"] = version(registration),
        TunnelEvent::Reconnected { registration, after, .. } => {
            told["version"] = version(registration);
            told["after_seconds"] = after.as_secs_f64().into();
        }
        TunnelEvent::Resumed { after, .. } => told["after_seconds"] = after.map(|after| after.as_secs_f64()).into(),
        TunnelEvent::Lost { cause, grace, .. } => {
            told["cause"] = cause.to_string().into();
            told["grace_seconds"] = grace.map(|grace| grace.as_secs_f64()).into();
        }
        TunnelEvent::Replaced { by, same_instance, .. } => {
            told["by"] = by.number().into();
            told["same_instance"] = (*same_instance).into();
        }
        TunnelEvent::Refused { why, .. } => told["why"] = why.to_string().into(),
        TunnelEvent::Expired { .. } => told["reason"] = event.reason().into(),
        _ => {}
    }
    told
}

fn version(registration: &Registration) -> Value {
    registration.agent_version.as_str().into()
}

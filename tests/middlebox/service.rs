//! A local service behind an agent: bodies that can be checked, events when the test says so, an echo, and what it was
//! told of who asks.

use std::net::SocketAddr;

use axum::{
    Router,
    body::Body,
    extract::{Path, Request},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{SinkExt, StreamExt, stream};
use tokio::{net::TcpListener, sync::broadcast};

use crate::{
    load::{check, load},
    websocket,
};

/// More events than a test says without being read.
const EVENTS: usize = 16;

/// A running service.
pub(crate) struct Service {
    pub(crate) addr: SocketAddr,
    events: broadcast::Sender<String>,
}

impl Service {
    pub(crate) async fn new() -> Self {
        let events = broadcast::Sender::new(EVENTS);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, router(events.clone())).into_future());
        Self { addr, events }
    }

    /// Tells all that read `/events`.
    pub(crate) fn say(&self, event: &str) {
        self.events.send(event.to_owned()).expect("somebody reads");
    }
}

fn router(events: broadcast::Sender<String>) -> Router {
    Router::new()
        .route("/", get(|| async { "here" }))
        .route("/down/{length}", get(|Path(length): Path<usize>| async move { load(length) }))
        .route("/up", post(up))
        .route("/events", get(move || async move { told(events.subscribe()) }))
        .route("/echo", get(echo))
        .route("/asked", get(asked))
}

async fn up(body: Body) -> (StatusCode, String) {
    match check(body).await {
        Ok(length) => (StatusCode::OK, length.to_string()),
        Err(why) => (StatusCode::UNPROCESSABLE_ENTITY, why),
    }
}

/// Server-sent events: one at once, and each that is said from then on.
fn told(events: broadcast::Receiver<String>) -> impl IntoResponse {
    let said = stream::unfold(events, |mut events| async move { Some((events.recv().await.ok()?, events)) });
    let told = stream::once(async { "begun".to_owned() }).chain(said).map(|event| format!("data: {event}\n\n"));
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(told.map(Ok::<_, std::convert::Infallible>)))
}

/// A line for each header that proxies say it by: its name and its values.
async fn asked(headers: HeaderMap) -> String {
    let is_said = |name: &&str| name.starts_with("x-forwarded-") || ["x-real-ip", "forwarded"].contains(name);
    let mut names: Vec<_> = headers.keys().map(|name| name.as_str()).filter(is_said).collect();
    names.sort_unstable();
    let text = |name: &&str| {
        let values = headers.get_all(*name).iter().map(|value| value.to_str().expect("text"));
        format!("{name}: {}\n", values.collect::<Vec<_>>().join(", "))
    };
    names.iter().map(text).collect()
}

async fn echo(request: Request) -> Response {
    websocket::upgrade(request, |mut socket| async move {
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

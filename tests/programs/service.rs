//! A local service behind an agent: bodies that can be checked, bodies that never end, and a mirror.

use std::{convert::Infallible, net::SocketAddr};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Request},
    http::StatusCode,
    routing::{get, post},
};
use futures_util::{StreamExt, stream};
use serde_json::{Map, Value, json};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::mpsc,
};

use crate::load::{check, load};

/// How much goes each way: enough for every window and buffer to be used many times.
pub(crate) const LOAD: usize = if cfg!(debug_assertions) { 32 << 20 } else { 200 << 20 };

/// A running service.
pub(crate) struct Service {
    pub(crate) addr: SocketAddr,
    /// A word for each endless body that was begun, and one when it was given up.
    pub(crate) held: mpsc::UnboundedReceiver<&'static str>,
}

impl Service {
    pub(crate) async fn new() -> Self {
        let (events, held) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, router(events)).into_future());
        Self { addr, held }
    }
}

/// The same behind a unix socket.
pub(crate) fn serve_unix(path: &std::path::Path) {
    let (events, _) = mpsc::unbounded_channel();
    tokio::spawn(axum::serve(UnixListener::bind(path).unwrap(), router(events)).into_future());
}

fn router(events: mpsc::UnboundedSender<&'static str>) -> Router {
    Router::new()
        .route("/down/{length}", get(|Path(length): Path<usize>| async move { load(length) }))
        .route("/up", post(up))
        .route("/hold", get(move || async move { hold(events.clone()) }))
        .fallback(mirror)
}

async fn up(body: Body) -> (StatusCode, String) {
    match check(body).await {
        Ok(length) => (StatusCode::OK, length.to_string()),
        Err(why) => (StatusCode::UNPROCESSABLE_ENTITY, why),
    }
}

/// Begins, and never ends by itself.
fn hold(events: mpsc::UnboundedSender<&'static str>) -> Body {
    struct Held(mpsc::UnboundedSender<&'static str>);
    impl Drop for Held {
        fn drop(&mut self) {
            let _ = self.0.send("given up");
        }
    }
    let _ = events.send("begun");
    let held = Held(events);
    let begun = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"begun"))]);
    Body::from_stream(begun.chain(stream::pending()).inspect(move |_| _ = &held))
}

/// What arrived: method, target, headers, of which those of one name are one list.
async fn mirror(request: Request) -> Json<Value> {
    let texts = |name| {
        let values = request.headers().get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        values.collect::<Vec<_>>().join(", ")
    };
    let headers: Map<_, _> =
        request.headers().keys().map(|name| (name.to_string(), Value::from(texts(name)))).collect();
    Json(json!({ "method": request.method().as_str(), "target": request.uri().to_string(), "headers": headers }))
}

//! Streams that trickle, server-sent events and a WebSocket: none of it is lost, doubled or out of order when links
//! break.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{
        Response,
        sse::{Event, Sse},
    },
    routing::get,
};
use bytes::{Buf, BytesMut};
use futures_util::{SinkExt, Stream, StreamExt, stream};
use http::{StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use revdial::proto::SessionConfig;
use tokio::time::{interval, timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use crate::{PATIENCE, plan::How, websocket, world::World};

/// Between two ticks.
const PERIOD: Duration = Duration::from_millis(10);

/// How often the link breaks under a stream.
const CUTS: u32 = 10;

/// A service that ticks: events at `/events`, and messages at `/socket`, which gives back what it is told too.
pub(crate) fn service() -> Router {
    let events = || async { Sse::new(numbers().map(|n| Ok::<_, Infallible>(Event::default().data(n.to_string())))) };
    Router::new().route("/events", get(events)).route("/socket", get(socket))
}

/// All numbers, one a tick.
fn numbers() -> impl Stream<Item = u64> + Send {
    stream::unfold((interval(PERIOD), 0), |(mut tick, n)| async move {
        tick.tick().await;
        Some((n, (tick, n + 1)))
    })
}

async fn socket(request: Request) -> Response {
    websocket::upgrade(request, |socket| async move {
        let (mut send, hear) = socket.split();
        let ticks = numbers().map(|n| Message::text(n.to_string()));
        let words = hear.filter_map(async |heard| heard.ok().filter(Message::is_text));
        let mut both = std::pin::pin!(stream::select(ticks, words).map(Ok));
        let _ = send.send_all(&mut both).await; // the caller has left
    })
}

/// The events of a service, read one by one.
pub(crate) struct Events {
    body: Incoming,
    read: BytesMut,
    next: u64,
}

impl Events {
    pub(crate) async fn of(world: &World) -> Self {
        let response = world.client.get("http://a/events".parse().unwrap()).await.expect("an answer");
        Self { body: response.into_body(), read: BytesMut::new(), next: 0 }
    }

    /// Waits for the next event, and asserts that it is the next.
    pub(crate) async fn next(&mut self) {
        let expected = format!("data: {}\n\n", self.next);
        while self.read.len() < expected.len() {
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("an event");
            self.read.extend(frame.expect("no end").expect("no error").into_data().expect("no trailers"));
        }
        assert!(self.read.starts_with(expected.as_bytes()), "not {expected:?}: {:?}", self.read);
        self.read.advance(expected.len());
        self.next += 1;
    }
}

/// The one or the other way of a cut that peers are told of.
fn how(cut: u32) -> How {
    if cut.is_multiple_of(2) { How::Reset } else { How::Close }
}

#[tokio::test]
async fn server_sent_events_survive_cuts() {
    let world = World::serving(None, SessionConfig::default(), service()).await;
    let mut events = Events::of(&world).await;
    for cut in 0..CUTS {
        for _ in 0..10 {
            events.next().await;
        }
        world.cut(how(cut)).await;
    }
    for _ in 0..10 {
        events.next().await;
    }
    world.assert_one_session();
}

#[tokio::test]
async fn a_websocket_survives_cuts_with_what_both_sides_say() {
    let world = World::serving(None, SessionConfig::default(), service()).await;
    let request = Request::get("http://a/socket")
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
    let response = world.client.request(request.body(Body::empty()).unwrap()).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
    let mut next = 0;
    for cut in 0..CUTS {
        let word = format!("word {cut}");
        socket.send(Message::text(word.clone())).await.unwrap();
        world.cut(how(cut)).await;
        loop {
            let heard = timeout(PATIENCE, socket.next()).await.expect("a message").expect("no end").expect("no error");
            let heard = heard.to_text().unwrap();
            if heard == word {
                break;
            }
            assert_eq!(heard, next.to_string());
            next += 1;
        }
    }
    world.assert_one_session();
}

//! What an HTTP/2 caller of a gateway sees of an agent that dies amid an answer: a reset of its stream, never an end.

use std::{convert::Infallible, error::Error as StdError, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http2::{self as client, SendRequest},
    server::conn::http2 as server,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use revdial::{TargetName, TunnelStream, proxy::Proxy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::support::{LONG, Running, World, key};

/// A connection to an HTTP/2 host that forwards everything to the agent's default target.
async fn host(world: &World) -> SendRequest<Full<Bytes>> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let proxy: Proxy<Incoming> = Proxy::new(world.connman.clone());
    let service = service_fn(move |request| {
        let proxy = proxy.clone();
        async move { Ok::<_, Infallible>(proxy.forward(&key(), &TargetName::default(), request).await) }
    });
    tokio::spawn(server::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(far), service));
    let (send, connection) = client::handshake(TokioExecutor::new(), TokioIo::new(near)).await.unwrap();
    tokio::spawn(connection);
    send
}

fn get() -> Request<Full<Bytes>> {
    Request::get("http://gateway/").body(Full::default()).unwrap()
}

/// An answer whose head and first bytes have come; and the service's end.
async fn half(agent: &mut Running, send: &mut SendRequest<Full<Bytes>>, framing: &str) -> (Incoming, TunnelStream) {
    let answer = tokio::spawn(send.send_request(get()));
    let mut service = agent.accepted().await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(service.read_u8().await.unwrap());
    }
    AsyncWriteExt::write_all(&mut service, format!("HTTP/1.1 200 OK\r\n{framing}").as_bytes()).await.unwrap();
    let mut body = answer.await.unwrap().unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    (body, service)
}

/// What comes next of a body is a reset of its stream, and of that alone.
async fn is_reset(body: &mut Incoming, framing: &str) {
    let rest = timeout(LONG, body.frame()).await.expect("an end in time");
    let error = rest.expect("no clean end").expect_err(framing);
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    assert!(cause.starts_with("stream error received"), "{framing:?}: {error:?}");
}

const FRAMINGS: [&str; 3] = [
    "content-length: 10\r\n\r\nhalf",
    "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    "connection: close\r\n\r\nhalf",
];

#[tokio::test(start_paused = true)]
async fn b63_an_answer_over_http2_ends_in_a_reset_where_the_grace_ends() {
    for framing in FRAMINGS {
        let world = World::new();
        let mut agent = world.agent().await;
        let mut send = host(&world).await;
        let (mut body, service) = half(&mut agent, &mut send, framing).await;
        world.pause().await;
        let waits = timeout(Duration::from_secs(29), body.frame()).await;
        assert!(waits.is_err(), "{framing:?}: until then it is a pause");
        is_reset(&mut body, framing).await;
        // The caller's connection, and what else goes over it, is not touched.
        let next = send.send_request(get()).await.unwrap();
        assert_eq!(next.status(), 503);
        assert_eq!(next.into_body().collect().await.unwrap().to_bytes(), "no_connection");
        drop((body, service, send));
        world.over([agent]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a4_b76_b82_an_answer_over_http2_ends_in_a_reset_where_the_service_resets() {
    for framing in FRAMINGS {
        let world = World::new();
        let mut agent = world.agent().await;
        let mut send = host(&world).await;
        let (mut body, service) = half(&mut agent, &mut send, framing).await;
        service.reset();
        is_reset(&mut body, framing).await;
        assert_eq!(world.counted.sum("revdial_streams_errors_total{peer_reset}"), 1, "{framing:?}");
        drop((body, send));
        world.over([agent]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn b82_an_answer_over_http2_without_a_length_is_whole_where_the_service_ends() {
    let world = World::new();
    let mut agent = world.agent().await;
    let mut send = host(&world).await;
    let (body, mut service) = half(&mut agent, &mut send, FRAMINGS[2]).await;
    AsyncWriteExt::shutdown(&mut service).await.unwrap();
    assert!(body.collect().await.unwrap().to_bytes().is_empty());
    drop((service, send));
    world.over([agent]).await;
}

//! The same requests of hyper's client over a pipe and over a stream of a tunnel: the origin's socket receives the same
//! bytes, and the client the same answers, informational ones included.

use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::Frame,
    client::conn::http1 as client,
    rt::{Read, Write},
};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use revdial::connector::RevDialConnector;
use tower::ServiceExt;

use super::{
    differential::{on_virtual_time, prop},
    generated::{Body, Exchange, Fields, Talk},
    origin::{NUMBER, Origin, PROTOCOL, turns},
    support::{agent, manager, serve_streams},
    wire::Wire,
};

/// A response as hyper's client sees it.
#[derive(Debug, PartialEq)]
struct Heard {
    informational: Vec<(StatusCode, HeaderMap)>,
    status: StatusCode,
    headers: HeaderMap,
    data: Bytes,
    trailers: Option<HeaderMap>,
    raw: BytesMut,
}

#[test]
fn b80_a_client_over_a_stream_sends_and_hears_byte_for_byte_what_it_does_over_a_pipe() {
    prop(300, |mut talk| {
        talk.exchanges.iter_mut().for_each(Exchange::without_races);
        let ((direct, sent), (tunnelled, received)) =
            on_virtual_time(async { (direct(&talk).await, tunnelled(&talk).await) });
        prop_assert_eq!(direct, tunnelled);
        prop_assert!(sent == received, "sent {:?}, received {:?}", sent, received);
        Ok(())
    });
}

async fn direct(talk: &Talk) -> (Vec<Heard>, BytesMut) {
    let (near, far) = tokio::io::duplex(256 * 1024);
    let served = tokio::spawn(Origin::new(talk).serve(far));
    let heard = ask(talk, TokioIo::new(near)).await;
    (heard, served.await.unwrap())
}

async fn tunnelled(talk: &Talk) -> (Vec<Heard>, BytesMut) {
    let (connman, _) = manager();
    let (listener, _agent) = agent(&connman).await;
    let (origin, (give, mut given)) = (Origin::new(talk), tokio::sync::mpsc::channel(1));
    serve_streams(listener, move |stream| {
        let (origin, give) = (origin.clone(), give.clone());
        async move { give.send(origin.serve(stream).await).await.unwrap() }
    });
    let stream = RevDialConnector::new(connman).oneshot("http://a/".parse().unwrap()).await.unwrap();
    let heard = ask(talk, stream).await;
    (heard, given.recv().await.unwrap())
}

/// Has a talk over one connection.
async fn ask<T>(talk: &Talk, io: T) -> Vec<Heard>
where
    T: Read + Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = client::handshake(io).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let mut answers = Vec::new();
    for (n, exchange) in talk.exchanges.iter().enumerate() {
        sender.ready().await.unwrap();
        let informational = Arc::new(Mutex::new(Vec::new()));
        let (mut request, informed) = (request(n, exchange), Arc::clone(&informational));
        hyper::ext::on_informational(&mut request, move |head| {
            informed.lock().unwrap().push((head.status(), head.headers().clone()));
        });
        let mut response = sender.send_request(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let raw = match &exchange.answer.raw {
            Some(raw) => {
                let upgraded = hyper::upgrade::on(&mut response).await.unwrap();
                turns(&mut Wire::new(TokioIo::new(upgraded)), raw, true).await
            }
            None => BytesMut::new(),
        };
        let body = response.into_body().collect().await.unwrap();
        let (trailers, data) = (body.trailers().cloned(), body.to_bytes());
        let informational = std::mem::take(&mut *informational.lock().unwrap());
        answers.push(Heard { informational, status, headers, data, trailers, raw });
    }
    answers
}

fn request(number: usize, exchange: &Exchange) -> Request<UnsyncBoxBody<Bytes, std::convert::Infallible>> {
    let mut request = Request::builder().method(exchange.method).uri(&exchange.path).header("host", "a");
    request = request.header(NUMBER, number);
    if exchange.answer.raw.is_some() {
        request = request.header("connection", "upgrade").header("upgrade", PROTOCOL);
    }
    let body = match &exchange.body {
        Body::None | Body::Close(_) => Empty::new().boxed_unsync(),
        Body::Length(data) => Full::new(data.clone()).boxed_unsync(),
        Body::Chunked(chunks, trailers) => {
            let names = trailers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            request = request.header("trailer", names).header("transfer-encoding", "chunked");
            let chunks = chunks.iter().cloned().map(Frame::data);
            let frames: Vec<_> = chunks.chain([Frame::trailers(map(trailers))]).map(Ok).collect();
            StreamBody::new(stream::iter(frames)).boxed_unsync()
        }
    };
    let mut request = request.body(body).unwrap();
    for (name, value) in map(&exchange.fields).iter() {
        request.headers_mut().append(name, value.clone());
    }
    request
}

fn map(fields: &Fields) -> HeaderMap {
    let field = |(name, value): &(&str, Bytes)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value).unwrap())
    };
    let mut map = HeaderMap::new();
    for (name, value) in fields.iter().map(field) {
        map.append(name, value);
    }
    map
}

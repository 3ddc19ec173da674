use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioExecutor;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex},
    net::TcpListener,
    sync::mpsc,
};

use super::*;

const LIMIT: usize = 100_000;

/// What browsers and agents send.
fn good() -> Request<()> {
    Request::get("/tunnel")
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "WebSocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", "other")
        .header("sec-websocket-protocol", "more, revdial.v1")
        .header("sec-websocket-extensions", "permessage-deflate")
        .body(())
        .unwrap()
}

fn judge(mut request: Request<()>) -> Result<Response<String>, Refusal> {
    let upgrade = Upgrade::begin(&mut request)?;
    let protocol = upgrade.check(&request.into_parts().0)?;
    Ok(upgrade.response(protocol))
}

fn value<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[test]
fn a_good_request_is_answered_by_101_without_extensions() {
    let response = judge(good()).unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let expected = [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        // From RFC 6455, section 1.3.
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("sec-websocket-protocol", "revdial.v1"),
        ("revdial-protocol", "revdial.v1"),
        ("sec-websocket-extensions", ""),
    ];
    for (name, text) in expected {
        assert_eq!(value(response.headers(), name), text, "{name}");
    }
}

/// Changes a good request and tells what it is refused with.
fn refused(change: impl FnOnce(&mut Request<()>)) -> (u16, &'static str, HeaderMap) {
    let mut request = good();
    change(&mut request);
    let refusal = judge(request).unwrap_err();
    let reason = refusal.reason;
    let response = refusal.response::<String>();
    assert!(response.body().is_empty());
    (response.status().as_u16(), reason, response.headers().clone())
}

fn set(name: &'static str, values: &[&'static str]) -> impl FnOnce(&mut Request<()>) {
    move |request| {
        request.headers_mut().remove(name);
        for value in values {
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
    }
}

#[test]
fn another_method_is_405_and_the_connection_closes() {
    for method in [Method::POST, Method::PUT, Method::HEAD, Method::CONNECT] {
        let (status, reason, headers) = refused(|request| *request.method_mut() = method);
        assert_eq!((status, reason), (405, "method"));
        assert_eq!((value(&headers, "allow"), value(&headers, "connection")), ("GET", "close"));
    }
}

#[test]
fn no_upgrade_is_426_that_names_the_protocol() {
    let refusals = [
        refused(set("upgrade", &[])),
        refused(set("upgrade", &["h2c"])),
        refused(set("connection", &[])),
        refused(set("connection", &["keep-alive"])),
        refused(|request| *request.version_mut() = Version::HTTP_10),
    ];
    for (status, reason, headers) in refusals {
        assert_eq!((status, reason), (426, "no_upgrade"));
        assert_eq!((value(&headers, "upgrade"), value(&headers, "connection")), ("websocket", "upgrade"));
    }
    let (status, reason, headers) = refused(|request| *request.version_mut() = Version::HTTP_2);
    assert_eq!((status, reason, headers.len()), (426, "no_upgrade", 0));
}

#[test]
fn another_version_is_426_that_names_ours() {
    for versions in [&[][..], &["8"], &["13", "8"], &["13, 8"]] {
        let (status, reason, headers) = refused(set("sec-websocket-version", versions));
        assert_eq!((status, reason, value(&headers, "sec-websocket-version")), (426, "version", "13"));
    }
}

#[test]
fn a_key_that_is_missing_or_twice_or_not_16_bytes_is_400() {
    let keys: [&[&str]; 6] = [
        &[],
        &["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="],
        &["dGhlIHNhbXBsZSBub25jZQ"],
        &["dGhlIHNhbXBsZSBub25j"],
        &["dGhlIHNhbXBsZSBub25jZS4u"],
        &["dGhlIHNhbXBsZSBub25j!Q=="],
    ];
    for keys in keys {
        let (status, reason, _) = refused(set("sec-websocket-key", keys));
        assert_eq!((status, reason), (400, "websocket_key"), "{keys:?}");
    }
}

#[test]
fn a_body_is_400_and_the_connection_closes() {
    let lengths = [("content-length", "1"), ("content-length", "x"), ("transfer-encoding", "chunked")];
    for (name, text) in lengths {
        let (status, reason, headers) = refused(set(name, &[text]));
        assert_eq!((status, reason, value(&headers, "connection")), (400, "body", "close"));
    }
    let mut empty = good();
    set("content-length", &["0"])(&mut empty);
    assert!(judge(empty).is_ok());
}

#[test]
fn who_offers_no_subprotocol_speaks_dial_back_and_is_told_that_this_was_seen() {
    let mut request = good();
    set("sec-websocket-protocol", &[])(&mut request);
    let response = judge(request).unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(value(response.headers(), "sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(response.headers().get("sec-websocket-protocol"), None);
    assert_eq!(value(response.headers(), "revdial-protocol"), "dial-back");
}

#[test]
fn the_connection_of_one_stream_is_answered_by_the_three_headers_alone() {
    let mut request = good();
    let upgrade = Upgrade::begin(&mut request).unwrap();
    let response = upgrade.bare_response::<()>();
    let names: Vec<&str> = response.headers().keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["upgrade", "connection", "sec-websocket-accept"]);
}

#[test]
fn m6_a_subprotocol_of_others_is_426_that_names_ours() {
    for offers in [&["revdial.v2"][..], &["Revdial.v1"], &[""]] {
        let (status, reason, headers) = refused(set("sec-websocket-protocol", offers));
        assert_eq!((status, reason, value(&headers, "sec-websocket-protocol")), (426, "subprotocol", "revdial.v1"));
    }
}

type Cure<'a> = &'a dyn Fn(&mut Request<()>);

#[test]
fn of_several_faults_the_order_decides() {
    let (mut faults, mut reasons) = (good(), Vec::new());
    *faults.method_mut() = Method::POST;
    for name in ["upgrade", "sec-websocket-version", "sec-websocket-key"] {
        faults.headers_mut().remove(name);
    }
    set("sec-websocket-protocol", &["other"])(&mut faults);
    set("content-length", &["5"])(&mut faults);
    let cures: [Cure; 6] = [
        &|request| *request.method_mut() = Method::GET,
        &|request| set("upgrade", &["websocket"])(request),
        &|request| set("sec-websocket-version", &["13"])(request),
        &|request| set("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ=="])(request),
        &|request| set("content-length", &[])(request),
        &|request| set("sec-websocket-protocol", &["revdial.v1"])(request),
    ];
    for cure in cures {
        reasons.push(judge(faults.clone()).unwrap_err().reason);
        cure(&mut faults);
    }
    assert_eq!(reasons, ["method", "no_upgrade", "version", "websocket_key", "body", "subprotocol"]);
    assert!(judge(faults).is_ok());
}

type Completed = Result<MessageLink, hyper::Error>;

/// Judges a request of a real host and completes the upgrade on a task of its own.
async fn host(mut request: Request<Incoming>, done: mpsc::UnboundedSender<Completed>) -> Response<String> {
    let upgrade = match Upgrade::begin(&mut request) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refusal.response(),
    };
    let response = match upgrade.check(&request.into_parts().0) {
        Ok(protocol) => upgrade.response(protocol),
        Err(refusal) => return refusal.response(),
    };
    tokio::spawn(async move { drop(done.send(upgrade.complete(LIMIT).await)) });
    response
}

/// One hyper connection with or without upgrades.
fn serve<I>(io: I, upgrades: bool) -> mpsc::UnboundedReceiver<Completed>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (done, completed) = mpsc::unbounded_channel();
    let service = service_fn(move |request| {
        let done = done.clone();
        async move { Ok::<_, Infallible>(host(request, done).await) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(io), service);
    tokio::spawn(async move {
        if upgrades {
            drop(connection.with_upgrades().await);
        } else {
            drop(connection.await);
        }
    });
    completed
}

const REQUEST: &str = "GET /tunnel HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    sec-websocket-protocol: revdial.v1\r\n\r\n";

/// A masked frame, by a mask of zeros.
const FRAME: &[u8] = b"\x82\x89\0\0\0\0GET / HTT";

async fn head(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Over this stream, bytes that come with the request.
async fn pipelined(mut raw: impl AsyncRead + AsyncWrite + Unpin, mut completed: mpsc::UnboundedReceiver<Completed>) {
    raw.write_all(&[REQUEST.as_bytes(), FRAME].concat()).await.unwrap();
    assert!(head(&mut raw).await.starts_with("HTTP/1.1 101 "));
    let mut link = completed.recv().await.unwrap().unwrap();
    let received = tokio::time::timeout(Duration::from_secs(5), link.recv()).await;
    assert_eq!(received.unwrap().unwrap(), "GET / HTT");
    link.send(Bytes::from_static(b"answer")).await.unwrap();
    let mut answer = [0; 8];
    raw.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"\x82\x06answer");
}

#[tokio::test]
async fn bytes_behind_the_request_are_the_first_message_and_no_http() {
    let (raw, io) = duplex(4096);
    pipelined(raw, serve(io, true)).await;
}

/// Where the socket is taken out of hyper's hands, with what hyper had read.
#[tokio::test]
async fn bytes_behind_the_request_are_the_first_message_over_tcp_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let raw = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    pipelined(raw, serve(listener.accept().await.unwrap().0, true)).await;
}

#[tokio::test]
async fn a_refused_post_ends_its_connection() {
    let (mut raw, io) = duplex(4096);
    let _completed = serve(io, true);
    raw.write_all(REQUEST.replace("GET", "POST").as_bytes()).await.unwrap();
    let mut answer = String::new();
    raw.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn a_host_that_serves_without_upgrades_is_an_error() {
    let (mut raw, io) = duplex(4096);
    let mut completed = serve(io, false);
    raw.write_all(REQUEST.as_bytes()).await.unwrap();
    assert!(completed.recv().await.unwrap().is_err());
    let mut request = good();
    let elsewhere = Upgrade::begin(&mut request).unwrap();
    assert!(elsewhere.complete(LIMIT).await.is_err(), "no hyper below at all");
}

#[tokio::test]
async fn a_client_that_leaves_before_the_101_is_an_error_and_no_hang() {
    let (mut raw, io) = duplex(16);
    let mut completed = serve(io, true);
    raw.write_all(REQUEST.as_bytes()).await.unwrap();
    raw.read_u8().await.unwrap();
    drop(raw);
    assert!(completed.recv().await.unwrap().is_err());
}

/// The socket is reached, so that its options can be set, and what was read too early with it.
#[tokio::test]
async fn the_socket_is_found_below_hyper_and_below_auto() {
    for below_auto in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut raw = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        raw.write_all(&[REQUEST.as_bytes(), FRAME].concat()).await.unwrap();
        let io = TokioIo::new(listener.accept().await.unwrap().0);
        let (done, mut found) = mpsc::unbounded_channel();
        let done = Arc::new(done);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let done = done.clone();
            async move {
                let upgrade = Upgrade::begin(&mut request).unwrap();
                let response = upgrade.response::<String>(Protocol::Native);
                tokio::spawn(async move {
                    drop(done.send(tcp_below(upgrade.on_upgrade.await.unwrap()).map_err(|_upgraded| ())));
                });
                Ok::<_, Infallible>(response)
            }
        });
        if below_auto {
            let host = auto::Builder::new(TokioExecutor::new());
            host.serve_connection_with_upgrades(io, service).await.unwrap();
        } else {
            http1::Builder::new().serve_connection(io, service).with_upgrades().await.unwrap();
        }
        let (_tcp, early) = found.recv().await.unwrap().unwrap();
        assert_eq!(early, FRAME, "below auto: {below_auto}");
    }
}

#[tokio::test]
async fn a_websocket_is_opened_over_http2() {
    let (client, server) = duplex(64 * 1024);
    let (done, mut completed) = mpsc::unbounded_channel();
    let service = service_fn(move |request| {
        let done = done.clone();
        async move { Ok::<_, Infallible>(host(request, done).await) }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    tokio::spawn(builder.enable_connect_protocol().serve_connection(TokioIo::new(server), service));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::new(String::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = http::Uri::from_static("http://x/tunnel");
    *request.version_mut() = Version::HTTP_2;
    request.extensions_mut().insert(ExtendedProtocol::from_static("websocket"));
    request.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("revdial.v1"));
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(value(response.headers(), "sec-websocket-protocol"), "revdial.v1");
    let upgraded = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut agent = MessageLink::new(upgraded, Side::Client, LIMIT);
    let mut link = completed.recv().await.unwrap().unwrap();
    agent.send(Bytes::from_static(b"there")).await.unwrap();
    assert_eq!(link.recv().await.unwrap(), "there");
    link.send(Bytes::from_static(b"and back")).await.unwrap();
    assert_eq!(agent.recv().await.unwrap(), "and back");
}

//! WebSockets of callers that come over HTTP/2, by extended CONNECT (RFC 8441), to services that speak HTTP/1.1.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode, Version};
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http2, ext::Protocol};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use revdial::{TargetName, TunnelStream, proxy::Proxy};
use tokio::{io::AsyncWriteExt, sync::mpsc, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use super::{
    support::{Heads, agent, head, manager, serve_raw, serve_streams, text, to},
    upgrades::echoes,
};

/// A connection of a browser's to a host that offers extended CONNECT.
struct Browser(http2::SendRequest<Empty<Bytes>>);

impl Browser {
    /// To a host that forwards everything to the agent's default target.
    async fn at(proxy: &Proxy<Incoming>) -> Self {
        let service = TowerToHyperService::new(to(proxy.clone(), TargetName::default()));
        let (near, far) = tokio::io::duplex(256 * 1024);
        tokio::spawn(async move {
            let mut host = auto::Builder::new(TokioExecutor::new());
            host.http2().enable_connect_protocol();
            let _ = host.serve_connection_with_upgrades(TokioIo::new(far), service).await;
        });
        let (sender, mut connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(near)).await.unwrap();
        // Before the host's settings have come it may not ask, and nothing wakes who waits for them.
        while !connection.is_extended_connect_protocol_enabled() {
            assert!(futures_util::poll!(&mut connection).is_pending());
            tokio::task::yield_now().await;
        }
        tokio::spawn(connection);
        Self(sender)
    }

    async fn connect(&mut self, protocol: &'static str) -> Response<Incoming> {
        let request = Request::connect("https://desktop.example/ws?x=%20").version(Version::HTTP_2);
        let request = request
            .extension(Protocol::from_static(protocol))
            .header("origin", "https://desktop.example")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-protocol", "binary, base64")
            .header("sec-websocket-extensions", "permessage-deflate")
            .header("cookie", "a=1")
            .header("cookie", "b=2");
        self.0.send_request(request.body(Empty::new()).unwrap()).await.unwrap()
    }
}

/// The value of a header of a raw head.
fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The 101 to this request, with these further lines.
fn grant(request: &str, more: &str) -> String {
    let accept = derive_accept_key(value(request, "sec-websocket-key").unwrap().as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\
         sec-websocket-accept: {accept}\r\n{more}\r\n"
    )
}

#[tokio::test(start_paused = true)]
async fn p2_a_websocket_over_http2_is_an_upgrade_for_the_service_and_200_for_its_caller() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    let (seen, mut heads) = mpsc::unbounded_channel();
    serve_streams(listener, move |mut stream: TunnelStream| {
        let seen = seen.clone();
        async move {
            let request = head(&mut stream).await;
            let more = "sec-websocket-protocol: binary\r\nsec-websocket-extensions: permessage-deflate\r\nx-of: it\r\n";
            stream.write_all(grant(&request, more).as_bytes()).await.unwrap();
            seen.send(request).unwrap();
            let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            while let Some(Ok(message)) = socket.next().await {
                if message.is_binary() {
                    socket.send(message).await.unwrap();
                }
            }
        }
    });
    let mut browser = Browser::at(&builder.build()).await;
    let mut keys = Vec::new();
    for _ in 0..2 {
        let response = browser.connect("websocket").await;
        let request = heads.recv().await.unwrap();
        assert!(request.starts_with("GET /ws?x=%20 HTTP/1.1\r\n"), "{request}");
        for (name, expected) in [
            ("host", "desktop.example"),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("origin", "https://desktop.example"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "binary, base64"),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("cookie", "a=1; b=2"),
            ("x-forwarded-host", "desktop.example"),
        ] {
            assert_eq!(value(&request, name), Some(expected), "{name} in {request}");
        }
        keys.push(value(&request, "sec-websocket-key").unwrap().to_owned());
        assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_2));
        for (name, expected) in
            [("sec-websocket-protocol", "binary"), ("sec-websocket-extensions", "permessage-deflate"), ("x-of", "it")]
        {
            assert_eq!(response.headers()[name], expected);
        }
        for absent in ["connection", "upgrade", "sec-websocket-accept", "content-length"] {
            assert!(!response.headers().contains_key(absent), "{absent}");
        }
        let io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        let socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        echoes(socket).await;
    }
    assert_ne!(keys[0], keys[1]);
}

/// What a service is asked, and what its answer becomes.
async fn answered(answer: &'static str) -> (Heads, Response<Incoming>, impl Sized) {
    let (connman, builder) = manager();
    let (listener, running) = agent(&connman).await;
    let heads = serve_raw(listener, answer);
    let mut browser = Browser::at(&builder.build()).await;
    let response = browser.connect("websocket").await;
    (heads, response, (browser, connman, running))
}

#[tokio::test(start_paused = true)]
async fn a_service_that_refuses_a_websocket_over_http2_is_heard() {
    for (answer, status, body) in [
        ("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nx-why: so\r\n\r\nno", 403, "no"),
        ("HTTP/1.1 302 Found\r\nlocation: /login\r\nx-why: so\r\ncontent-length: 0\r\n\r\n", 302, ""),
        ("HTTP/1.1 426 Upgrade Required\r\nx-why: so\r\nupgrade: websocket\r\ncontent-length: 0\r\n\r\n", 426, ""),
    ] {
        let (_heads, response, _running) = answered(answer).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["x-why"], "so");
        assert!(!response.headers().contains_key("upgrade"));
        assert_eq!(text(response.into_body()).await.unwrap(), body);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_grant_of_a_websocket_is_none_for_a_caller_over_http2() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n<html",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: raw/1\r\n\r\n",
    ] {
        let (_heads, response, _running) = answered(answer).await;
        assert_eq!(response.status(), 502, "{answer}");
        assert_eq!(text(response.into_body()).await.unwrap(), "peer_reset", "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn b81_other_protocols_over_http2_are_not_implemented() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    let mut heads = serve_raw(listener, super::support::EMPTY);
    let response = Browser::at(&builder.build()).await.connect("connect-udp").await;
    assert_eq!(response.status(), 501);
    assert!(heads.try_recv().is_err(), "it was forwarded");
}

#[tokio::test(start_paused = true)]
async fn b79_a_caller_over_http2_that_leaves_before_or_after_the_answer_is_gone_for_the_service() {
    for is_granted in [false, true] {
        let (connman, builder) = manager();
        let (listener, _agent) = agent(&connman).await;
        let (at, mut was_at) = mpsc::unbounded_channel();
        serve_streams(listener, move |mut stream: TunnelStream| {
            let at = at.clone();
            async move {
                let request = head(&mut stream).await;
                at.send("asked").unwrap();
                if is_granted {
                    stream.write_all(grant(&request, "").as_bytes()).await.unwrap();
                }
                let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await;
                at.send("gone").unwrap();
            }
        });
        let mut browser = Browser::at(&builder.build()).await;
        if is_granted {
            let upgraded = hyper::upgrade::on(browser.connect("websocket").await).await.unwrap();
            assert_eq!(was_at.recv().await, Some("asked"));
            drop(upgraded);
        } else {
            let asked = tokio::spawn(async move { browser.connect("websocket").await.status() });
            assert_eq!(was_at.recv().await, Some("asked"));
            asked.abort();
        }
        assert_eq!(timeout(Duration::from_millis(100), was_at.recv()).await, Ok(Some("gone")), "{is_granted}");
    }
}

//! Upgrades: what passes before the 101, and raw bytes after it.

use std::{io, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Request;
use http_body_util::Empty;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use revdial::{TargetName, TunnelStream};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::support::{
    agent, exchange, head, host, manager, send, serve_host, serve_host_without_upgrades, serve_streams, text, to,
};

const UPGRADE: &str = "GET /ws?x HTTP/1.1\r\nhost: gateway\r\nconnection: keep-alive, Upgrade\r\nupgrade: raw/1\r\n\
                       sec-websocket-key: abc\r\nx-forwarded-for: 6.6.6.6\r\n\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: raw/1\r\n\
                         sec-websocket-accept: xyz\r\nkeep-alive: 1\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_websocket_client_talks_to_a_websocket_service() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    serve_streams(listener, |stream: TunnelStream| async move {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_binary() || message.is_text() {
                socket.send(message).await.unwrap();
            }
        }
    });
    let io = host(&builder.build());
    let (socket, response) = tokio_tungstenite::client_async("ws://gateway/ws", io).await.unwrap();
    assert_eq!(response.status(), 101);
    echoes(socket).await;
}

/// Sends messages of all sizes to a service that says them again, then the close.
pub(crate) async fn echoes<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>) {
    for size in [0, 1, 100_000, 3_000_000] {
        let message = Message::Binary(Bytes::from(vec![7; size]));
        let (sent, echoed) = {
            let (mut sink, mut stream) = (&mut socket).split();
            tokio::join!(sink.send(message.clone()), stream.next())
        };
        sent.unwrap();
        assert!(echoed.unwrap().unwrap() == message, "{size}");
    }
    socket.close(None).await.unwrap();
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
    assert!(socket.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn p2_raw_bytes_follow_the_services_101_and_its_headers_are_untouched() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    let (seen, mut heads) = mpsc::unbounded_channel();
    serve_streams(listener, move |mut stream: TunnelStream| {
        let seen = seen.clone();
        async move {
            seen.send(head(&mut stream).await).unwrap();
            let early = timeout(Duration::from_secs(5), AsyncReadExt::read_u8(&mut stream)).await;
            assert!(early.is_err(), "bytes before the 101");
            // In one piece with the first raw bytes.
            stream.write_all(format!("{SWITCHING}hello").as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"impatient");
            stream.write_all(b"bye").await.unwrap();
        }
    });
    let mut io = host(&builder.build());
    let answer = exchange(&mut io, UPGRADE).await;
    io.write_all(b"impatient").await.unwrap();
    // The half-close is kept: the service still answers after it.
    io.shutdown().await.unwrap();
    let request = heads.recv().await.unwrap();
    assert!(request.starts_with("GET /ws?x HTTP/1.1\r\n"), "{request}");
    for line in ["connection: upgrade", "upgrade: raw/1", "sec-websocket-key: abc", "host: gateway"] {
        assert!(request.contains(&format!("{line}\r\n")), "{line} in {request}");
    }
    assert!(!request.contains("6.6.6.6") && !request.contains("keep-alive"), "{request}");
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
    for line in ["connection: upgrade", "upgrade: raw/1", "sec-websocket-accept: xyz"] {
        assert!(answer.contains(&format!("{line}\r\n")), "{line} in {answer}");
    }
    assert!(!answer.contains("keep-alive"), "{answer}");
    let mut rest = Vec::new();
    io.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"hellobye");
}

#[tokio::test(start_paused = true)]
async fn bytes_that_a_client_sends_with_its_upgrade_wait_for_the_101() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    serve_streams(listener, |mut stream: TunnelStream| async move {
        head(&mut stream).await;
        let early = timeout(Duration::from_secs(5), AsyncReadExt::read_u8(&mut stream)).await;
        assert!(early.is_err(), "bytes before the 101");
        stream.write_all(SWITCHING.as_bytes()).await.unwrap();
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    });
    let mut io = host(&builder.build());
    exchange(&mut io, &format!("{UPGRADE}early")).await;
    let mut back = Vec::new();
    io.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, b"early");
}

#[tokio::test(start_paused = true)]
async fn another_answer_to_an_upgrade_is_an_ordinary_response() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    serve_streams(listener, |mut stream: TunnelStream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
        std::future::pending::<()>().await;
    });
    let request = Request::get("/ws").header("host", "gateway").header("connection", "upgrade");
    let request = request.header("upgrade", "websocket").body(Empty::<Bytes>::new()).unwrap();
    let response = send(host(&builder.build()), request).await;
    assert_eq!(response.status(), 403);
    assert_eq!(text(response.into_body()).await.unwrap(), "no");
}

#[tokio::test(start_paused = true)]
async fn failures_of_an_upgrade_have_the_same_answers() {
    let (connman, builder) = manager();
    let proxy = builder.build();
    let answer = exchange(&mut host(&proxy), UPGRADE).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1\r\n"), "{answer}");
    let (listener, _agent) = agent(&connman).await;
    drop(listener);
    let answer = exchange(&mut host(&proxy), UPGRADE).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && !answer.contains("retry-after"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn b79_a_client_that_leaves_during_an_upgrade_is_gone_for_the_service() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    let (at, mut was_at) = mpsc::unbounded_channel();
    serve_streams(listener, move |mut stream: TunnelStream| {
        let at = at.clone();
        async move {
            head(&mut stream).await;
            at.send("asked").unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
            at.send("gone").unwrap();
        }
    });
    let mut io = host(&builder.build());
    io.write_all(UPGRADE.as_bytes()).await.unwrap();
    assert_eq!(was_at.recv().await, Some("asked"));
    drop(io);
    assert_eq!(timeout(Duration::from_millis(100), was_at.recv()).await, Ok(Some("gone")));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_leaves_a_silent_client_ends_its_connection() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    serve_streams(listener, |mut stream: TunnelStream| async move {
        head(&mut stream).await;
        stream.write_all(SWITCHING.as_bytes()).await.unwrap();
    });
    let mut io = host(&builder.build());
    exchange(&mut io, UPGRADE).await;
    // Not only this half: what is written meets nobody.
    assert_eq!(timeout(Duration::from_millis(100), io.read(&mut [0])).await.unwrap().unwrap(), 0);
    assert!(io.write_all(b"x").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_a_hosts_transport_holds_back_is_flushed() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    serve_streams(listener, |mut stream: TunnelStream| async move {
        head(&mut stream).await;
        stream.write_all(format!("{SWITCHING}hello").as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    // As TLS does, this writes only when it is full or flushed.
    let (mut io, far) = tokio::io::duplex(64 * 1024);
    let far = TokioIo::new(tokio::io::BufStream::new(far));
    tokio::spawn(serve_host(&builder.build(), TargetName::default(), far));
    exchange(&mut io, UPGRADE).await;
    let mut bytes = [0; 5];
    timeout(Duration::from_secs(1), io.read_exact(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(&bytes, b"hello");
}

#[tokio::test(start_paused = true)]
async fn a_host_without_upgrades_is_no_clean_end_for_the_service() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    let (give, mut given) = mpsc::unbounded_channel();
    serve_streams(listener, move |mut stream: TunnelStream| {
        let give = give.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(SWITCHING.as_bytes()).await.unwrap();
            give.send(AsyncReadExt::read_u8(&mut stream).await.unwrap_err().kind()).unwrap();
        }
    });
    let (mut io, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(serve_host_without_upgrades(&builder.build(), TokioIo::new(far)));
    exchange(&mut io, UPGRADE).await;
    let end = timeout(Duration::from_millis(100), given.recv()).await;
    assert_eq!(end, Ok(Some(io::ErrorKind::ConnectionReset)));
}

/// A client's socket, over loopback, of an upgraded connection, and the service's stream.
async fn upgraded_over_tcp(auto: bool) -> (TcpStream, TunnelStream, impl Sized) {
    let (connman, builder) = manager();
    let (listener, running) = agent(&connman).await;
    let (give, mut given) = mpsc::unbounded_channel();
    serve_streams(listener, move |mut stream: TunnelStream| {
        let give = give.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(SWITCHING.as_bytes()).await.unwrap();
            give.send(stream).unwrap();
        }
    });
    let proxy = builder.build();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(tcp.local_addr().unwrap()).await.unwrap();
    let (served, _) = tcp.accept().await.unwrap();
    if auto {
        let service = TowerToHyperService::new(to(proxy, TargetName::default()));
        tokio::spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection_with_upgrades(TokioIo::new(served), service).await;
        });
    } else {
        tokio::spawn(serve_host(&proxy, TargetName::default(), TokioIo::new(served)));
    }
    client.write_all(UPGRADE.as_bytes()).await.unwrap();
    head(&mut client).await;
    let stream = given.recv().await.unwrap();
    (client, stream, (connman, running))
}

#[tokio::test]
async fn a_stream_that_fails_cuts_the_clients_socket() {
    for auto in [false, true] {
        let (mut client, stream, _running) = upgraded_over_tcp(auto).await;
        stream.reset();
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "auto: {auto}");
    }
}

#[tokio::test]
async fn a_client_that_is_cut_off_resets_the_stream() {
    let (client, mut stream, _running) = upgraded_over_tcp(false).await;
    client.set_zero_linger().unwrap();
    drop(client);
    let error = AsyncReadExt::read_u8(&mut stream).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

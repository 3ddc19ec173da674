//! Over HTTP/2: the same tunnel, by extended CONNECT, and what happens where a server does not offer that.

use std::{convert::Infallible, sync::atomic::Ordering, time::Duration};

use http::{Request, Response, StatusCode};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use revdial::{
    ErrorKind, Protocol,
    agent::{AgentBuilder, AgentStatus, Backoff, HttpVersion, ProtocolChoice, TlsOptions},
    connman::{ConnectionManager, LossCause},
    server::{RevDialLayer, SharedBearer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use crate::{
    Gateway, NAME, Running, builder,
    certificates::Authority,
    key,
    net::{Net, TOKEN},
    proxy::{Proxy, Socks},
};

fn over_http2(url: &str) -> AgentBuilder {
    builder(url).http(HttpVersion::Http2)
}

/// A net to a real server that speaks HTTP/2 only.
fn net(connman: &ConnectionManager, token: &str) -> Net {
    let service = RevDialLayer::new(connman.clone(), SharedBearer::new(token).unwrap()).into_service();
    Net::new(move |io| {
        let service = TowerToHyperService::new(service.clone());
        let mut server = http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.enable_connect_protocol().serve_connection(TokioIo::new(io), service));
    })
}

async fn answer(_: Request<Incoming>) -> Result<Response<String>, Infallible> {
    Ok(Response::new(String::new()))
}

#[tokio::test]
async fn a_tunnel_over_http2_works_with_and_without_tls_and_through_a_proxy() {
    let plain = Gateway::plain().await;
    let mut agent = Running::of(over_http2(&format!("http://{}", plain.addr)).build().unwrap());
    agent.connected().await;
    plain.works().await;

    let authority = Authority::new();
    let mut config = authority.issue(NAME).server();
    // A server that would speak nothing else.
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = Gateway::tls(config).await;
    let proxy = Proxy::socks(tls.addr, Socks { auth: None, reply: 0 }).await;
    let builder = over_http2(&tls.named("wss")).tls(TlsOptions::new().roots_pem(authority.pem));
    let builder = builder.proxy(revdial::agent::ProxyChoice::Url(format!("socks5h://{}", proxy.addr)));
    let mut agent = Running::of(builder.build().unwrap());
    agent.connected().await;
    tls.works().await;
}

#[tokio::test]
async fn a_server_whose_tls_agrees_on_http_1_1_is_asked_by_that() {
    let authority = Authority::new();
    for alpn in [vec![], vec![b"http/1.1".to_vec()]] {
        let mut config = authority.issue("127.0.0.1").server();
        config.alpn_protocols = alpn;
        let gateway = Gateway::tls_of_old(config).await;
        let options = TlsOptions::new().roots_pem(authority.pem.clone());
        let mut agent = Running::of(over_http2(&format!("https://{}", gateway.addr)).tls(options).build().unwrap());
        agent.connected().await;
        gateway.works().await;
    }
}

#[tokio::test]
async fn a_server_that_takes_websockets_over_http_1_1_only_is_asked_by_that_until_it_fails() {
    let authority = Authority::new();
    let mut config = authority.issue("127.0.0.1").server();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let gateway = Gateway::tls_of_most(config).await;
    let options = TlsOptions::new().roots_pem(authority.pem.clone());
    let builder = over_http2(&format!("https://{}", gateway.addr)).tls(options).protocol(ProtocolChoice::Dialback);
    let soon = Duration::from_millis(100);
    let agent = builder.backoff(Backoff::new(soon, soon).slow_range(soon, soon));
    let mut agent = Running::of(agent.build().unwrap());
    agent.connected().await;
    // Each is a connection of its own, and none of them finds it out anew.
    gateway.works().await;
    gateway.works().await;
    let agreed = || gateway.agreed.lock().unwrap().clone();
    assert_eq!(agreed(), ["h2", "http/1.1", "http/1.1", "http/1.1"]);

    // The link's end is no failure of an attempt.
    gateway.connman.disconnect(&key());
    let agreed_on = async |n: usize| {
        let there = async {
            while agreed().len() < n {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(crate::DEADLINE, there).await.expect("another connection");
        agreed()[n - 1].clone()
    };
    assert_eq!(agreed_on(5).await, "http/1.1");
    agent.status.wait_for(AgentStatus::is_connected).await.unwrap();

    gateway.down.store(true, Ordering::Relaxed);
    gateway.connman.disconnect(&key());
    let failed = |status: &AgentStatus| matches!(status, AgentStatus::Waiting { .. });
    tokio::time::timeout(crate::DEADLINE, agent.status.wait_for(failed)).await.expect("a failure").unwrap();
    gateway.down.store(false, Ordering::Relaxed);
    assert_eq!(agreed_on(6).await, "h2");
}

#[tokio::test]
async fn a_server_that_speaks_http2_only_and_takes_no_websockets_over_it_is_refused_for_that() {
    let authority = Authority::new();
    let mut config = authority.issue("127.0.0.1").server();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let gateway = Gateway::tls_of_most(config).await;
    let options = TlsOptions::new().roots_pem(authority.pem.clone());
    let mut agent = Running::of(over_http2(&format!("https://{}", gateway.addr)).tls(options).build().unwrap());
    let (cause, _, refused, text) = agent.setback().await;
    assert_eq!((cause, refused), (ErrorKind::Version, true), "{text}");
    assert!(text.contains("SETTINGS_ENABLE_CONNECT_PROTOCOL"), "{text}");
    assert_eq!(*gateway.agreed.lock().unwrap(), ["h2"]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_over_http2_survives_a_cut() {
    let connman = ConnectionManager::new();
    let net = net(&connman, TOKEN);
    let mut agent = Running::of(net.build(over_http2("http://gateway")));
    agent.connected().await;
    let mut stream = connman.dial(&key(), &"".parse().unwrap()).await.unwrap();
    for round in 0..20_u32 {
        AsyncWriteExt::write_all(&mut stream, &round.to_le_bytes()).await.unwrap();
        net.cut();
        assert_eq!(stream.read_u32_le().await.unwrap(), round);
    }
    assert!(net.dials().len() > 10, "{}", net.dials().len());
}

#[tokio::test(start_paused = true)]
async fn the_last_words_over_http2_arrive() {
    let connman = ConnectionManager::new();
    let net = net(&connman, TOKEN);
    let mut agent = Running::of(net.build(over_http2("http://gateway")));
    agent.connected().await;
    agent.shutdown.shutdown(Duration::ZERO);
    (&mut agent.run).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let closed = connman.list()[0].last_cause;
    assert!(matches!(closed, Some(LossCause::Closed(Some(_)))), "closed, and not lost: {closed:?}");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(net.links(), 0, "nothing serves a connection whose link is gone");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_run_ends_its_connection_over_http2() {
    let connman = ConnectionManager::new();
    let net = net(&connman, TOKEN);
    let mut agent = Running::of(net.build(over_http2("http://gateway")));
    agent.connected().await;
    drop(agent);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(net.links(), 0);
    assert_eq!(connman.list_grace().len(), 1, "the agent may come back");
}

#[tokio::test]
async fn dial_back_passes_over_http2_too() {
    let gateway = Gateway::plain().await;
    let builder = over_http2(&format!("http://{}", gateway.addr)).protocol(ProtocolChoice::Dialback);
    let mut agent = Running::of(builder.build().unwrap());
    agent.connected().await;
    assert_eq!(gateway.connman.list()[0].protocol, Protocol::Dialback);
    gateway.works().await;
}

#[tokio::test]
async fn the_tail_of_a_stream_over_http2_leaves_though_its_connection_was_dropped() {
    let gateway = Gateway::plain().await;
    let builder = over_http2(&format!("http://{}", gateway.addr)).protocol(ProtocolChoice::Dialback);
    let agent = builder.build().unwrap();
    let mut status = agent.status();
    let (mut listener, run) = agent.listen();
    let run = tokio::spawn(run);
    status.wait_for(AgentStatus::is_connected).await.unwrap();
    let sent = vec![7; 8 * 1024 * 1024];
    let (stream, _) = tokio::join!(gateway.dial(), async {
        let mut stream = listener.accept().await.unwrap();
        let sent = sent.clone();
        tokio::spawn(async move {
            AsyncWriteExt::write_all(&mut stream, &sent).await.unwrap();
            AsyncWriteExt::shutdown(&mut stream).await.unwrap();
        });
    });
    let mut got = Vec::new();
    let mut stream = stream.unwrap();
    tokio::time::timeout(crate::DEADLINE, stream.read_to_end(&mut got)).await.expect("an end").unwrap();
    assert_eq!(got.len(), sent.len());
    run.abort();
}

#[tokio::test(start_paused = true)]
async fn a_refusal_over_http2_is_told_as_over_http_1_1() {
    let net = net(&ConnectionManager::new(), "another");
    let mut agent = Running::of(net.build(over_http2("http://gateway")));
    let (cause, wait, refused, text) = agent.setback().await;
    assert_eq!((cause, refused), (ErrorKind::Auth, true), "{text}");
    assert!(text.contains("401") && wait >= Duration::from_secs(30), "{text}: {wait:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_offer_extended_connect_is_refused_with_what_is_missing() {
    let net = Net::new(|io| {
        let server = http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.serve_connection(TokioIo::new(io), service_fn(answer)));
    });
    let mut agent = Running::of(net.build(over_http2("http://gateway")));
    let start = Instant::now();
    let (cause, wait, refused, text) = agent.setback().await;
    assert_eq!((cause, refused), (ErrorKind::Version, true), "{text}");
    assert!(text.contains("SETTINGS_ENABLE_CONNECT_PROTOCOL") && text.contains("HTTP/2"), "{text}");
    assert!(wait >= Duration::from_secs(30) && start.elapsed() <= Duration::from_secs(6), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_speaks_http_1_1_only_is_told_from_one_that_is_not_there() {
    let net = Net::new(|io| {
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(io), service_fn(answer)));
    });
    let (cause, _, _, text) = Running::of(net.build(over_http2("http://gateway"))).setback().await;
    assert_eq!(cause, ErrorKind::Handshake);
    assert!(text.contains("HTTP/1.1"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_200_of_a_server_that_knows_nothing_of_tunnels_is_no_tunnel() {
    let net = Net::new(|io| {
        let mut server = http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.enable_connect_protocol().serve_connection(TokioIo::new(io), service_fn(answer)));
    });
    let mut agent = Running::of(net.build(over_http2("http://gateway")));
    let (cause, _, _, text) = agent.setback().await;
    assert_eq!(cause, ErrorKind::Handshake);
    assert!(text.contains("revdial-protocol"), "{text}");
    assert!(!matches!(*agent.status.borrow(), AgentStatus::Connected { .. }));
}

#[tokio::test(start_paused = true)]
async fn the_request_over_http2_is_that_of_rfc_8441() {
    let (seen, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let net = Net::new(move |io| {
        let seen = seen.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let _ = seen.send(request.into_parts().0);
            async { Response::builder().status(StatusCode::NOT_FOUND).body(String::new()) }
        });
        let mut server = http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.enable_connect_protocol().serve_connection(TokioIo::new(io), service));
    });
    let _agent = Running::of(net.build(over_http2("https://gateway:8443/base?x=1")));
    let request = asked.recv().await.unwrap();
    assert_eq!(request.method, "CONNECT");
    assert_eq!(request.uri, "https://gateway:8443/base/api/v1/revdial?x=1&runnerid=a");
    assert_eq!(request.extensions.get::<hyper::ext::Protocol>().unwrap().as_str(), "websocket");
    let header = |name: &str| request.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(header("sec-websocket-version"), Some("13"));
    assert_eq!(header("sec-websocket-protocol"), Some("revdial.v1"));
    assert_eq!(header("authorization"), Some(format!("Bearer {TOKEN}").as_str()));
    for name in ["sec-websocket-key", "upgrade", "connection", "host", "content-length"] {
        assert_eq!(header(name), None, "{name}");
    }
}

//! What passes through a proxy: registrations in both protocols, requests, WebSockets, events as they come, HTTP/2.

use std::{net::SocketAddr, sync::Arc};

use axum::body::Body;
use http::{Method, Request, header};
use hyper::{
    client::conn::{http1, http2},
    ext::Protocol,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, crypto::ring, pki_types::ServerName},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use crate::{
    load::{check, load},
    middlebox::{Kind, Settings},
    process::DEADLINE,
    unverified::Unverified,
    world::{CALLER, Echo, PROXY, World, agent, next, text},
};

/// More than any proxy takes into a buffer, and than nginx lets pass by default.
const LOAD: usize = 8 << 20;

#[tokio::test]
async fn behind_nginx_agents_register_and_all_that_callers_do_passes() {
    everything_passes(Kind::Nginx).await;
}

#[tokio::test]
async fn behind_haproxy_agents_register_and_all_that_callers_do_passes() {
    everything_passes(Kind::Haproxy).await;
}

async fn everything_passes(kind: Kind) {
    let mut world = World::new(kind, Settings::default(), "").await;
    for (key, protocol, spoken) in [("n", "native", "revdial.v1"), ("d", "dialback", "dial-back")] {
        world.agent(key, &format!("--protocol {protocol}")).await;
        assert_eq!(agent(&world.stats().await, key)["protocol"], spoken);
        let edge = world.middlebox.faces.plain;
        assert_eq!(text(world.get(edge, &format!("/proxy/{key}/")).await).await, "here");
        let down = world.get(edge, &format!("/proxy/{key}/down/{LOAD}")).await;
        assert_eq!(timeout(DEADLINE, check(down.into_body())).await, Ok(Ok(LOAD)));
        let up = world.send(Method::POST, edge, &format!("/proxy/{key}/up"), load(LOAD)).await;
        assert_eq!(text(up).await, LOAD.to_string());
        Echo::open(edge, key).await.says("hello").await;
        let mut events = world.get(edge, &format!("/proxy/{key}/events")).await.into_body();
        assert_eq!(next(&mut events).await, "data: begun\n\n");
        for event in ["one", "two"] {
            world.service.say(event);
            assert_eq!(next(&mut events).await, format!("data: {event}\n\n"));
        }
    }
}

#[tokio::test]
async fn behind_nginx_the_edge_speaks_http2_to_callers_and_agents_come_over_tls() {
    http2_at_the_edge(Kind::Nginx).await;
}

#[tokio::test]
async fn behind_haproxy_the_edge_speaks_http2_to_callers_and_agents_come_over_tls() {
    http2_at_the_edge(Kind::Haproxy).await;
}

/// Where HTTP/2 is on offer, an agent still gets its upgrade; and callers' requests that share one connection reach it.
async fn http2_at_the_edge(kind: Kind) {
    let mut world = World::new(kind, Settings::default(), "").await;
    let faces = world.middlebox.faces;
    world.agent_by(&format!("https://{}", faces.tls), "a", "--protocol native --insecure").await;
    let socket = TokioIo::new(TcpStream::connect(faces.h2).await.unwrap());
    let (sender, connection) = http2::handshake(TokioExecutor::new(), socket).await.expect("HTTP/2");
    tokio::spawn(connection);
    let get = async |path: &str| {
        let request = Request::get(format!("http://{}/proxy/a{path}", faces.h2)).header(header::AUTHORIZATION, CALLER);
        let request = request.body(Body::empty()).unwrap();
        timeout(DEADLINE, sender.clone().send_request(request)).await.expect("in time").expect("an answer")
    };
    let mut events = get("/events").await;
    assert_eq!(events.headers()[header::CONTENT_TYPE], "text/event-stream");
    let long = format!("/down/{LOAD}");
    let (down, here) = tokio::join!(get(&long), get("/"));
    assert_eq!(text(here).await, "here");
    assert_eq!(timeout(DEADLINE, check(down.into_body())).await, Ok(Ok(LOAD)));
    world.service.say("one");
    for event in ["begun", "one"] {
        assert_eq!(next(events.body_mut()).await, format!("data: {event}\n\n"));
    }
    // Debian's nginx has no WebSockets over HTTP/2: browsers open a connection of HTTP/1.1 for them.
    if kind == Kind::Haproxy {
        let connect = Request::connect(format!("http://{}/proxy/a/echo", faces.h2))
            .extension(Protocol::from_static("websocket"))
            .header(header::AUTHORIZATION, CALLER)
            .header(header::SEC_WEBSOCKET_VERSION, "13");
        let answer = sender.clone().send_request(connect.body(Body::empty()).unwrap());
        let mut answer = timeout(DEADLINE, answer).await.expect("in time").expect("an answer");
        assert_eq!(answer.status(), 200);
        let io = TokioIo::new(hyper::upgrade::on(&mut answer).await.expect("a stream"));
        Echo(WebSocketStream::from_raw_socket(io, Role::Client, None).await).says("hello").await;
    }
}

#[tokio::test]
async fn behind_nginx_services_see_who_asks_and_whether_by_https() {
    services_see_who_asks(Kind::Nginx).await;
}

#[tokio::test]
async fn behind_haproxy_services_see_who_asks_and_whether_by_https() {
    services_see_who_asks(Kind::Haproxy).await;
}

/// As the edge says it; of what a caller says of itself only the beginning of the chain is left.
async fn services_see_who_asks(kind: Kind) {
    let mut world = World::new(kind, Settings::default(), "").await;
    world.agent("a", "--protocol native").await;
    let faces = world.middlebox.faces;
    let plain = TcpStream::connect(faces.plain).await.unwrap();
    assert_eq!(asked(plain, faces.plain).await, seen(faces.plain, "http"));
    let tls = tls(TcpStream::connect(faces.tls).await.unwrap()).await;
    assert_eq!(asked(tls, faces.tls).await, seen(faces.tls, "https"));
}

fn seen(edge: SocketAddr, proto: &str) -> String {
    format!(
        "x-forwarded-for: 6.6.6.6, {PROXY}, {PROXY}\nx-forwarded-host: {edge}\nx-forwarded-proto: {proto}\n\
         x-real-ip: {PROXY}\n"
    )
}

/// What the service is told of one who tells lies.
async fn asked(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, edge: SocketAddr) -> String {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let request = Request::get("/proxy/a/asked").header(header::HOST, edge.to_string());
    let request = request.header(header::AUTHORIZATION, CALLER);
    let lies = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-host", "evil"), ("x-forwarded-proto", "gopher")];
    let more = [("x-real-ip", "6.6.6.6"), ("forwarded", "for=6.6.6.6")];
    let request = lies.into_iter().chain(more).fold(request, |request, (name, lie)| request.header(name, lie));
    let answer = timeout(DEADLINE, sender.send_request(request.body(Body::empty()).unwrap())).await;
    text(answer.expect("in time").expect("an answer")).await
}

/// TLS as a browser has it that was told to go on.
async fn tls(io: TcpStream) -> impl AsyncRead + AsyncWrite + Unpin + Send + 'static {
    let provider = ring::default_provider();
    let config = ClientConfig::builder_with_provider(Arc::new(provider.clone())).with_safe_default_protocol_versions();
    let anyone = Arc::new(Unverified::new(provider));
    let config = config.unwrap().dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth();
    let connected = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("edge").unwrap(), io);
    timeout(DEADLINE, connected).await.expect("in time").expect("TLS")
}

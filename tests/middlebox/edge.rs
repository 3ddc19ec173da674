//! What passes through a proxy: registrations in both protocols, requests, WebSockets, events as they come, HTTP/2.

use axum::body::Body;
use http::{Method, Request, header};
use hyper::{client::conn::http2, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use crate::{
    load::{check, load},
    middlebox::{Kind, Settings},
    process::DEADLINE,
    world::{CALLER, Echo, World, agent, next, text},
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

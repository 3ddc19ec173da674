//! How a client gets a stream through a tunnel by a URI.
#![cfg(feature = "connector")]

#[path = "support/raw.rs"]
#[expect(dead_code, reason = "each test uses its part")]
mod raw;

use std::time::Duration;

use bytes::Bytes;
use http::{Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::Connect},
    rt::{TokioExecutor, TokioTimer},
};
use raw::{RawAgent, serve, upgrade};
use revdial::{
    Error, ErrorKind, TunnelStream,
    connector::{Connecting, RevDialConnector, Target},
    connman::{ConnectionManager, NoGrace},
    frame::{CloseCode, Frame, ResetCode},
    server::{RevDialLayer, SharedBearer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use tower::{Service, ServiceExt};

const BEARER: &str = "Bearer token";

/// A connected agent `a` under a script.
async fn agent(connman: &ConnectionManager) -> RawAgent {
    let service = RevDialLayer::new(connman.clone(), SharedBearer::new("token").unwrap()).into_service();
    let request = upgrade("/api/v1/revdial?runnerid=a").header(header::AUTHORIZATION, BEARER);
    RawAgent::connect(serve(service), request, 1).await
}

fn uri(text: &str) -> Uri {
    text.parse().unwrap()
}

fn client(connector: RevDialConnector) -> Client<RevDialConnector, Empty<Bytes>> {
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector)
}

async fn get(client: &Client<RevDialConnector, Empty<Bytes>>, text: &str) -> Result<String, ErrorKind> {
    let response = client.get(uri(text)).await;
    let response = response.map_err(|error| Error::find(&error).map_or(ErrorKind::Internal, Error::kind))?;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

#[test]
fn the_connector_is_what_clients_ask_for() {
    fn connect<C: Connect + Clone + Send + Sync + 'static>(_: &C) {}
    fn future<F: Unpin + Send>() {}
    fn stream<S: Unpin + Send + Sync>() {}
    connect(&RevDialConnector::new(ConnectionManager::new()));
    future::<Connecting>();
    stream::<TunnelStream>();
}

#[tokio::test(start_paused = true)]
async fn a_client_gets_through_and_uses_its_connection_again() {
    let connman = ConnectionManager::new();
    let agent = agent(&connman).await;
    tokio::spawn(agent.serve_http("hello"));
    let client = client(RevDialConnector::new(connman));
    assert_eq!(get(&client, "http://a/one").await.as_deref(), Ok("hello"));
    assert_eq!(get(&client, "http://A/two").await.as_deref(), Ok("hello"));
    assert_eq!(get(&client, "http://vnc~a/").await.as_deref(), Ok("hello"));
}

#[tokio::test(start_paused = true)]
async fn n1_the_uri_names_the_target() {
    let connman = ConnectionManager::new();
    let mut agent = agent(&connman).await;
    let connector = RevDialConnector::new(connman);
    for (text, target) in [("http://a/", ""), ("http://VNC~A/", "vnc"), ("http://a:9876/", "9876")] {
        let connecting = tokio::spawn(connector.clone().oneshot(uri(text)));
        let (stream, opened) = agent.opened().await;
        assert_eq!(opened, target, "{text}");
        agent.send(Frame::Accept { stream, credit: 64 * 1024 }).await;
        assert_eq!(connecting.await.unwrap().unwrap().target().as_str(), target);
        // The dropped stream says FIN and STOP.
        agent.recv().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_uri_can_mean_something_else() {
    let connman = ConnectionManager::new();
    let mut agent = agent(&connman).await;
    let connector = RevDialConnector::new(connman).map_uri(|uri| match uri.host() {
        Some("desk") => Ok(Target::new("a".parse().unwrap(), "mapped".parse().unwrap())),
        _ => Err(ErrorKind::Forbidden.into()),
    });
    let connecting = tokio::spawn(connector.clone().oneshot(uri("http://desk:1/")));
    assert_eq!(agent.opened().await.1, "mapped");
    connecting.abort();
    assert_eq!(connector.oneshot(uri("http://a/")).await.unwrap_err().kind(), ErrorKind::Forbidden);
}

#[tokio::test(start_paused = true)]
async fn n3_b72_what_cannot_be_dialled_fails_at_once() {
    let connector = RevDialConnector::new(ConnectionManager::new());
    for (text, kind) in [
        ("http://nobody/", ErrorKind::NoConnection),
        ("http://user@a/", ErrorKind::InvalidInput),
        ("http://a:b/", ErrorKind::InvalidInput),
        ("http://vnc~a:80/", ErrorKind::InvalidInput),
        ("/a", ErrorKind::InvalidInput),
    ] {
        let start = Instant::now();
        let error = connector.clone().oneshot(uri(text)).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retry_safe()), (kind, true), "{text}");
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
    assert_eq!(get(&client(connector), "http://nobody/").await, Err(ErrorKind::NoConnection));
}

#[tokio::test(start_paused = true)]
async fn b73_to_b75_a_refusal_is_a_connect_error_of_its_kind() {
    let connman = ConnectionManager::new();
    let mut agent = agent(&connman).await;
    let client = client(RevDialConnector::new(connman));
    for (code, kind) in [
        (ResetCode::TARGET_UNKNOWN, ErrorKind::TargetUnknown),
        (ResetCode::TARGET_DENIED, ErrorKind::TargetDenied),
        (ResetCode::TARGET_REFUSED, ErrorKind::TargetRefused),
        (ResetCode::TARGET_TIMEOUT, ErrorKind::TargetTimeout),
        (ResetCode::TOO_MANY_STREAMS, ErrorKind::Overloaded),
    ] {
        let client = client.clone();
        let request = tokio::spawn(async move { get(&client, "http://a/").await });
        let (stream, _) = agent.opened().await;
        agent.send(Frame::Reset { stream, code, reason: "<b>".to_owned() }).await;
        assert_eq!(request.await.unwrap(), Err(kind));
    }
}

#[tokio::test(start_paused = true)]
async fn a_connect_waits_for_the_answer_and_with_early_data_does_not() {
    let connman = ConnectionManager::new();
    let mut agent = agent(&connman).await;
    let connector = RevDialConnector::new(connman);

    let mut waiting = connector.clone().call(uri("http://a/"));
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut waiting).await.is_err());
    let (stream, _) = agent.opened().await;
    agent.send(Frame::Accept { stream, credit: 64 * 1024 }).await;
    waiting.await.unwrap();

    let mut early = connector.early_data(true).oneshot(uri("http://a/")).await.unwrap();
    early.write_all(b"early").await.unwrap();
    let refused = loop {
        if let raw::Arrived::Frames(_, frames) = agent.recv().await {
            let data = frames.iter().find_map(|frame| match frame {
                Frame::Data { stream, payload } => Some((*stream, payload.clone())),
                _ => None,
            });
            if let Some((stream, payload)) = data {
                assert_eq!(payload, "early");
                break stream;
            }
        }
    };
    agent.send(Frame::Reset { stream: refused, code: ResetCode::TARGET_REFUSED, reason: String::new() }).await;
    let error = early.read_u8().await.unwrap_err();
    assert_eq!(Error::find(&error).map(Error::kind), Some(ErrorKind::TargetRefused));
}

#[tokio::test(start_paused = true)]
async fn the_callers_deadline_holds_over_all_of_a_connect() {
    let connman = ConnectionManager::new();
    let _agent = agent(&connman).await;
    let start = Instant::now();
    let connector = RevDialConnector::new(connman).timeout(Duration::from_secs(2));
    assert_eq!(connector.oneshot(uri("http://a/")).await.unwrap_err().kind(), ErrorKind::DialTimeout);
    assert_eq!(start.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_request_never_goes_out_on_a_pooled_stream_of_a_session_that_has_ended() {
    let connman = ConnectionManager::builder().replace_drain(Duration::ZERO).build();
    let old = tokio::spawn(agent(&connman).await.serve_http("old"));
    let client = client(RevDialConnector::new(connman.clone()));
    assert_eq!(get(&client, "http://a/").await.as_deref(), Ok("old"));

    // The same key, a new link: at once the only one.
    tokio::spawn(agent(&connman).await.serve_http("new"));
    assert_eq!(get(&client, "http://a/").await.as_deref(), Ok("new"));

    // And a lost link, with a return only after the request.
    old.abort();
    let before = connman.epoch(&"a".parse().unwrap()).unwrap();
    let late = {
        let connman = connman.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let third = agent(&connman).await;
            assert!(connman.epoch(&"a".parse().unwrap()).unwrap() > before);
            third.serve_http("third").await;
        })
    };
    assert_eq!(get(&client, "http://a/").await.as_deref(), Ok("new"));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(get(&client, "http://a/").await.as_deref(), Ok("third"));
    late.abort();
}

#[tokio::test(start_paused = true)]
async fn b64_a_connect_to_a_lost_agent_waits_for_its_return() {
    let connman = ConnectionManager::new();
    drop(agent(&connman).await);
    while connman.epoch(&"a".parse().unwrap()).is_some() {
        tokio::task::yield_now().await;
    }
    let client = client(RevDialConnector::new(connman.clone()));
    let returning = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        tokio::spawn(agent(&connman).await.serve_http("back"));
    };
    let (answer, ()) = tokio::join!(get(&client, "http://a/"), returning);
    assert_eq!(answer.as_deref(), Ok("back"));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_connect_gives_its_open_up() {
    let connman = ConnectionManager::new();
    let mut agent = agent(&connman).await;
    let connecting = tokio::spawn(RevDialConnector::new(connman).oneshot(uri("http://a/")));
    let (stream, _) = agent.opened().await;
    connecting.abort();
    let raw::Arrived::Frames(_, frames) = agent.recv().await else { panic!("closed") };
    assert!(
        matches!(&frames[..], [Frame::Reset { stream: reset, code: ResetCode::CANCELLED, .. }] if *reset == stream),
        "{frames:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn b63_an_ended_session_is_an_error_of_its_streams_at_once_and_never_a_clean_end() {
    for closes in [true, false] {
        let builder = ConnectionManager::builder();
        let connman = if closes { builder.build() } else { builder.grace(NoGrace).build() };
        let mut agent = agent(&connman).await;
        let connecting = tokio::spawn(RevDialConnector::new(connman).oneshot(uri("http://a/")));
        let (stream, _) = agent.opened().await;
        agent.send(Frame::Accept { stream, credit: 64 * 1024 }).await;
        let mut io = connecting.await.unwrap().unwrap();
        let start = Instant::now();
        if closes {
            agent.send(Frame::Close { code: CloseCode::NORMAL, reason: String::new() }).await;
        }
        drop(agent);
        let error = io.read_u8().await.unwrap_err();
        assert_eq!(Error::find(&error).map(Error::kind), Some(ErrorKind::SessionLost));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}

//! What happens on a link after its 101.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::BytesMut;
use http::{header, request::Parts};
use hyper::rt::Executor;
use revdial::{
    Error, ErrorKind, TargetName,
    connman::{
        ConnectionManager, ConnectionManagerBuilder, Displace, Grace, GracePolicy, LinkLoss, Registration, TunnelEvent,
    },
    frame::{Bounds, CloseCode, Frame, MessageHead, SessionId},
    server::{Grant, LinkTask, Rejection, RevDialLayer, requested_key},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::Instant,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    BEARER, Counted, URI, ask, block_on, full, gone, granted, key, layer,
    raw::{Arrived, RawAgent, hello, serve, upgrade},
    status,
};

#[tokio::test(start_paused = true)]
async fn a_welcomed_agent_is_registered_with_what_it_said_and_gone_with_its_link() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let connman = ConnectionManager::builder()
        .observer(move |event: &TunnelEvent| seen.lock().unwrap().push(event.clone()))
        .build();
    let peer = "192.0.2.7:4000".parse().unwrap();
    let authorize = move |parts: &Parts| Ok::<_, Rejection>(Grant::new(requested_key(parts)?, "alice").peer_addr(peer));
    let service = RevDialLayer::new(connman.clone(), authorize).into_service();

    let mut agent = RawAgent::open(serve(service.clone()), upgrade(URI)).await;
    let mut hello = hello(7);
    hello.attempt = 3;
    hello.session = SessionId::new([9; 16]); // one that nobody knows here
    hello.agent_version = "test/1".to_owned();
    hello.labels = vec![("zone".to_owned(), "b".to_owned())];
    let (head, welcome) = agent.greet(hello.clone()).await;
    assert_eq!((head.number, head.received, welcome.attempt, welcome.resumed), (0, 0, 3, false));
    assert!(!welcome.session.is_new() && welcome.session != hello.session);
    assert_eq!(welcome.max_hold_ms, 30_000);
    {
        let events = events.lock().unwrap();
        let [TunnelEvent::Connected { registration, .. }] = &events[..] else { panic!("{events:?}") };
        assert_eq!((registration.key.as_str(), registration.principal.as_str()), ("a", "alice"));
        assert_eq!((registration.instance, registration.peer_addr), (hello.instance, Some(peer)));
        assert_eq!((&registration.agent_version, &registration.labels), (&hello.agent_version, &hello.labels));
    }
    assert!(connman.epoch(&key("a")).is_some());

    drop(agent);
    gone(&connman).await;
}

#[tokio::test(start_paused = true)]
async fn b16_bytes_that_follow_the_head_at_once_are_the_first_of_the_link() {
    let connman = ConnectionManager::new();
    let mut io = serve(layer(&connman).into_service());
    let mut message = BytesMut::new();
    MessageHead { number: 0, received: 0 }.encode(&mut message);
    Frame::Hello(hello(1)).encode(&mut message);
    let mut bytes = format!(
        "GET {URI} HTTP/1.1\r\nhost: gateway\r\nauthorization: {BEARER}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-protocol: revdial.v1\r\n\r\n"
    )
    .into_bytes();
    assert!(message.len() < 126);
    bytes.extend([0x82, 0x80 | message.len() as u8, 0, 0, 0, 0]); // binary, final, masked by zeros
    bytes.extend(&message);
    io.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        assert_ne!(io.read_buf(&mut answer).await.unwrap(), 0);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    while connman.epoch(&key("a")).is_none() {
        tokio::task::yield_now().await;
    }
}

/// What a link is closed with that begins with `message`, or with silence, and what is counted.
fn closed_for(message: impl FnOnce() -> Option<Message>) -> (CloseCode, Vec<String>, Duration) {
    Counted::within(|counted| {
        let (code, after) = block_on(async {
            let connman = ConnectionManager::new();
            let start = Instant::now();
            let mut agent = RawAgent::open(serve(layer(&connman).into_service()), granted(URI)).await;
            if let Some(message) = message() {
                agent.send_raw(message).await;
            }
            let code = agent.closed().await;
            assert!(connman.epoch(&key("a")).is_none());
            // The server's side waits for the peer's close, which dropping it gives.
            drop(agent);
            tokio::time::sleep(Duration::from_secs(5)).await;
            (code, start.elapsed() - Duration::from_secs(5))
        });
        (code, counted.take(), after)
    })
}

fn message(frames: &[Frame]) -> Option<Message> {
    let mut message = BytesMut::new();
    MessageHead { number: 0, received: 0 }.encode(&mut message);
    frames.iter().for_each(|frame| frame.encode(&mut message));
    Some(Message::Binary(message.freeze()))
}

#[test]
fn b18_a_link_without_hello_is_closed_after_ten_seconds() {
    let (code, counted, after) = closed_for(|| None);
    assert_eq!((code, after.as_secs()), (CloseCode::DEAD_PEER, 10));
    assert_eq!(counted, ["revdial_handshake_timeout_total{}"]);
}

#[test]
fn b18_a_link_that_begins_with_something_else_is_closed_at_once() {
    for first in
        [message(&[Frame::Ping([0; 8])]), message(&[]), message(&[Frame::Hello(hello(1)), Frame::Ping([0; 8])])]
    {
        let (code, counted, after) = closed_for(|| first);
        assert_eq!((code, after.as_secs()), (CloseCode::FORBIDDEN, 0));
        assert_eq!(counted, ["revdial_protocol_errors_total{4420}"]);
    }
}

#[test]
fn b19_bounds_below_the_minima_are_refused_and_absurd_ones_cut() {
    let mut small = hello(1);
    small.bounds.max_streams = 0;
    let (code, counted, _) = closed_for(|| message(&[Frame::Hello(small)]));
    assert_eq!((code, counted), (CloseCode::FORBIDDEN, vec!["revdial_protocol_errors_total{4420}".to_owned()]));

    block_on(async {
        let mut agent = RawAgent::open(serve(layer(&ConnectionManager::new()).into_service()), granted(URI)).await;
        let mut huge = hello(1);
        (huge.bounds.max_credit, huge.bounds.max_streams) = (u64::MAX, u32::MAX);
        assert_eq!(agent.greet(huge).await.1.bounds, Bounds::default());
    });
}

#[test]
fn b90_another_version_is_refused_by_4426() {
    let mut future = hello(1);
    future.version = 2;
    let (code, counted, _) = closed_for(|| message(&[Frame::Hello(future)]));
    assert_eq!((code, counted), (CloseCode::VERSION, vec!["revdial_protocol_errors_total{4426}".to_owned()]));
}

struct Rejecting;

impl GracePolicy for Rejecting {
    fn grace(&self, _: &LinkLoss<'_>) -> Grace {
        Grace::Drop
    }

    fn displace(&self, _: &Registration, _: &Registration) -> Displace {
        Displace::Reject
    }
}

/// Whoever says so in a header is who he says he is.
fn by_header(parts: &Parts) -> Result<Grant, Rejection> {
    let user = parts.headers["x-user"].to_str().map_err(|_| Rejection::unauthorized())?;
    Ok(Grant::new(requested_key(parts)?, user))
}

/// What `user`, another agent, is told that comes to the key of alice's, and what is counted.
fn newcomer(builder: ConnectionManagerBuilder, user: &'static str) -> (CloseCode, Vec<String>) {
    Counted::within(|counted| {
        let code = block_on(async {
            let connman = builder.build();
            let service = RevDialLayer::new(connman.clone(), by_header).into_service();
            let mut holder = RawAgent::connect(serve(service.clone()), upgrade(URI).header("x-user", "alice"), 1).await;
            let epoch = connman.epoch(&key("a"));
            let mut other = RawAgent::open(serve(service), upgrade(URI).header("x-user", user)).await;
            other.send(Frame::Hello(hello(2))).await;
            let code = other.closed().await;
            assert_eq!(connman.epoch(&key("a")), epoch);
            holder.send(Frame::Ping([7; 8])).await;
            assert!(matches!(holder.recv().await, Arrived::Frames(..)), "the holder is unharmed");
            code
        });
        (code, counted.take())
    })
}

#[test]
fn b8_the_key_of_somebody_else_is_refused_after_hello_and_its_holder_unharmed() {
    let (code, counted) = newcomer(ConnectionManager::builder(), "mallory");
    assert_eq!((code, counted), (CloseCode::FOREIGN, vec!["revdial_key_conflicts_total{denied}".to_owned()]));
}

#[test]
fn b9_a_key_in_use_is_refused_after_hello_where_the_policy_rejects_and_its_holder_unharmed() {
    let (code, counted) = newcomer(ConnectionManager::builder().grace(Rejecting), "alice");
    assert_eq!((code, counted), (CloseCode::IN_USE, vec!["revdial_key_conflicts_total{rejected}".to_owned()]));
}

#[test]
fn b10_where_the_policy_replaces_the_old_agent_is_told_4410_and_the_new_one_has_the_key_at_once() {
    let counted = Counted::by(async {
        let connman = ConnectionManager::new();
        let service = layer(&connman).into_service();
        let mut old = RawAgent::connect(serve(service.clone()), granted(URI), 1).await;
        let epoch = connman.epoch(&key("a"));
        let _new = RawAgent::connect(serve(service), granted(URI), 2).await;
        assert!(connman.epoch(&key("a")) > epoch);
        // Nothing ran, so that it is closed without a drain.
        loop {
            match old.recv().await {
                Arrived::Closed(code) => break assert_eq!(code, Some(CloseCode::REPLACED)),
                Arrived::Frames(_, frames) => assert!(
                    matches!(frames[0], Frame::Drain { code, .. } | Frame::Close { code, .. } if code == CloseCode::REPLACED),
                    "{frames:?}"
                ),
            }
        }
    });
    assert!(counted.contains(&"revdial_key_conflicts_total{replaced}".to_owned()), "{counted:?}");
}

#[test]
fn b84_who_comes_while_the_server_goes_down_is_told_so_and_counted() {
    let counted = Counted::by(async {
        let connman = ConnectionManager::new();
        connman.shutdown();
        let mut agent = RawAgent::open(serve(layer(&connman).into_service()), granted(URI)).await;
        agent.send(Frame::Hello(hello(1))).await;
        assert_eq!(agent.closed().await, CloseCode::DRAINED);
        drop(agent);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mut classic = full(granted(URI));
        classic.headers_mut().remove(header::SEC_WEBSOCKET_PROTOCOL);
        let response = ask(&layer(&connman), classic).await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    });
    assert_eq!(counted, [(); 2].map(|()| "revdial_handshake_rejected_total{shutting_down}"));
}

/// Runs links until it is told not to.
#[derive(Clone, Default)]
struct Links(Arc<Mutex<JoinSet<()>>>);

impl Executor<LinkTask> for Links {
    fn execute(&self, task: LinkTask) {
        self.0.lock().unwrap().spawn(task);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_whose_task_is_dropped_is_lost_and_its_agent_cut_off() {
    let (connman, links) = (ConnectionManager::new(), Links::default());
    let service = layer(&connman).executor(links.clone()).into_service();
    let mut agent = RawAgent::connect(serve(service), granted(URI), 1).await;
    let stream = tokio::spawn(connman.dial(&key("a"), &TargetName::default()).early_data(true));
    let mut stream = stream.await.unwrap().unwrap();
    links.0.lock().unwrap().abort_all();
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(Error::find(&error).map(Error::kind), Some(ErrorKind::SessionLost));
    assert!(connman.epoch(&key("a")).is_none());
    while agent.recv().await != Arrived::Closed(None) {}
}

#[test]
fn a_connection_that_is_never_handed_over_is_counted() {
    Counted::within(|counted| {
        block_on(async {
            // A request that no connection is behind.
            assert_eq!(status(&layer(&ConnectionManager::new()), granted(URI)).await, 101);
            tokio::task::yield_now().await;
        });
        assert_eq!(counted.take(), ["revdial_handshake_rejected_total{upgrade}"]);
    });
}

#[tokio::test(start_paused = true)]
async fn b64_a_grace_is_not_prolonged_by_links_that_say_hello_and_no_more() {
    let connman = ConnectionManager::new();
    let service = layer(&connman).into_service();
    let mut agent = RawAgent::connect(serve(service.clone()), granted(URI), 1).await;
    agent.send(Frame::Ping([1; 8])).await;
    assert!(matches!(agent.recv().await, Arrived::Frames(..)), "a PONG, and with it our own to the server's PING");
    drop(agent);
    gone(&connman).await;
    let start = Instant::now();
    let dial = {
        let connman = connman.clone();
        tokio::spawn(async move { connman.dial(&key("a"), &TargetName::default()).await })
    };
    let flapping = async {
        loop {
            tokio::time::sleep(Duration::from_secs(7)).await;
            let mut agent = RawAgent::open(serve(service.clone()), granted(URI)).await;
            agent.send(Frame::Hello(hello(1))).await;
        }
    };
    let error = tokio::select! {
        () = flapping => unreachable!(),
        dialled = tokio::time::timeout(Duration::from_secs(3600), dial) => dialled.unwrap().unwrap().unwrap_err(),
    };
    assert_eq!(error.kind(), ErrorKind::ReconnectTimeout);
    assert!(start.elapsed() <= Duration::from_secs(31), "{:?}", start.elapsed());
}

//! What a handshake may take, and how many there may be, of them and of tunnels.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::header;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use revdial::{
    TargetName,
    connman::{ConnectionManager, NoGrace, RegisterRefusal, TunnelEvent},
    server::RevDialLayer,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::{Instant, sleep},
};

use crate::{
    Counted, URI, ask, block_on,
    callbacks::Moody,
    classic::Peer,
    full, gone, granted, key, layer,
    raw::{PATH, RawAgent, serve, upgrade},
    status,
};

const OTHER: &str = "/api/v1/revdial?runnerid=b";

/// A request for a tunnel, as it is on the wire.
fn wire(uri: &str) -> String {
    let request = full(granted(uri));
    let headers = request.headers().iter().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
    format!("GET {uri} HTTP/1.1\r\n{}\r\n", headers.collect::<String>())
}

#[test]
fn b13_a_101_that_is_not_taken_in_ten_seconds_ends_the_connection() {
    let counted = Counted::by(async {
        let connman = ConnectionManager::new();
        let service = layer(&connman).max_handshakes(1).into_service();
        // So narrow that the answer does not fit.
        let (mut agent, theirs) = tokio::io::duplex(32);
        let host =
            http1::Builder::new().serve_connection(TokioIo::new(theirs), TowerToHyperService::new(service.clone()));
        tokio::spawn(host.with_upgrades());
        agent.write_all(wire(URI).as_bytes()).await.unwrap();
        sleep(Duration::from_millis(9_900)).await;
        assert_eq!(crate::raw::send(serve(service.clone()), full(granted(OTHER))).await.status(), 503);
        sleep(Duration::from_millis(200)).await;
        let mut rest = String::new();
        agent.read_to_string(&mut rest).await.unwrap();
        assert!(rest.starts_with("HTTP/1.1 101") && rest.ends_with("\r\n\r\n"), "the answer, and the end: {rest}");
        assert_eq!(connman.stats().active_connections, 0);
        let _other = RawAgent::connect(serve(service), granted(OTHER), 1).await;
    });
    let timeouts = counted.iter().filter(|name| *name == "revdial_handshake_timeout_total{}").count();
    assert_eq!(timeouts, 1, "{counted:?}");
}

#[tokio::test(start_paused = true)]
async fn b13_how_long_a_step_may_take_is_a_setting() {
    let layer = RevDialLayer::new(ConnectionManager::new(), Moody).handshake_timeout(Duration::from_millis(200));
    let start = Instant::now();
    assert_eq!((status(&layer, upgrade(URI)).await, start.elapsed().as_millis()), (408, 200));
}

#[test]
fn b13_an_agent_that_leaves_before_it_is_answered_is_reported_and_its_place_given_back() {
    let counted = Counted::by(async {
        let layer = RevDialLayer::new(ConnectionManager::new(), Moody).max_handshakes(1);
        let (mut agent, theirs) = tokio::io::duplex(4096);
        let service = TowerToHyperService::new(layer.clone().into_service());
        let host = http1::Builder::new().serve_connection(TokioIo::new(theirs), service);
        let host = tokio::spawn(host.with_upgrades());
        agent.write_all(wire(&URI.replace("=a", "=slow")).as_bytes()).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(status(&layer, upgrade(OTHER)).await, 503);
        drop(agent);
        let _ = host.await.unwrap();
        assert_eq!(status(&layer, upgrade(OTHER)).await, 101);
    });
    assert!(counted.contains(&"revdial_handshake_rejected_total{lost}".to_owned()), "{counted:?}");
}

#[test]
fn b14_beyond_the_limit_of_handshakes_a_request_is_refused_before_anybody_is_asked() {
    let counted = Counted::by(async {
        let layer = RevDialLayer::new(ConnectionManager::new(), Moody).max_handshakes(1);
        let other = layer.clone();
        let (first, second) = tokio::join!(status(&layer, upgrade(URI)), async {
            let start = Instant::now();
            let response = ask(&other, full(upgrade(URI))).await;
            assert_eq!(start.elapsed(), Duration::ZERO);
            assert_eq!(response.headers()[header::RETRY_AFTER], "1");
            response.status().as_u16()
        });
        assert_eq!((first, second), (101, 503));
        tokio::task::yield_now().await; // the first one's upgrade fails, there being no connection
        assert_eq!(status(&layer, upgrade(URI)).await, 101, "the place was given back");
    });
    assert!(counted.contains(&"revdial_overload_total{handshakes}".to_owned()), "{counted:?}");
}

#[tokio::test(start_paused = true)]
async fn b14_an_open_tunnel_is_no_handshake_any_more() {
    let connman = ConnectionManager::new();
    let service = layer(&connman).max_handshakes(1).into_service();
    let first = RawAgent::connect(serve(service.clone()), granted(URI), 1).await;
    let second = RawAgent::connect(serve(service), granted(OTHER), 2).await;
    assert_eq!(connman.stats().active_connections, 2);
    drop((first, second));
}

#[test]
fn b14_where_all_places_are_taken_a_new_key_is_503_before_the_upgrade_and_told_to_the_observer() {
    let refused = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&refused);
    let counted = Counted::by(async move {
        let observer = move |event: &TunnelEvent| {
            if let TunnelEvent::Refused { key, why, .. } = event {
                seen.lock().unwrap().push((key.to_string(), *why));
            }
        };
        let connman = ConnectionManager::builder().max_tunnels(1).observer(observer).build();
        let layer = layer(&connman);
        let _agent = RawAgent::connect(serve(layer.clone().into_service()), granted(URI), 1).await;
        for protocol in ["revdial.v1", ""] {
            let mut request = full(granted(OTHER));
            if protocol.is_empty() {
                request.headers_mut().remove(header::SEC_WEBSOCKET_PROTOCOL);
            }
            let response = ask(&layer, request).await;
            assert_eq!(response.status(), 503, "{protocol}");
            assert_eq!(response.headers()[header::RETRY_AFTER], "10", "{protocol}");
        }
    });
    let tunnels = counted.iter().filter(|name| *name == "revdial_overload_total{tunnels}").count();
    assert_eq!(tunnels, 2, "{counted:?}");
    let rejected = counted.iter().any(|name| name.starts_with("revdial_handshake_rejected"));
    assert!(!rejected, "counted once: {counted:?}");
    assert_eq!(*refused.lock().unwrap(), [(); 2].map(|()| ("b".to_owned(), RegisterRefusal::Overloaded)));
}

#[tokio::test(start_paused = true)]
async fn b14_a_key_that_has_its_place_keeps_it_while_connected_and_in_grace_and_gives_it_back_then() {
    let connman = ConnectionManager::builder().max_tunnels(1).build();
    let layer = layer(&connman);
    let open =
        |uri: &'static str, instance| RawAgent::connect(serve(layer.clone().into_service()), granted(uri), instance);
    let first = open(URI, 1).await;
    let second = open(URI, 2).await;
    drop((first, second));
    gone(&connman).await;
    assert_eq!(status(&layer, granted(OTHER)).await, 503, "in grace it is not free");
    drop(open(URI, 3).await);
    let connman = ConnectionManager::builder().max_tunnels(1).grace(NoGrace).build();
    let layer = crate::layer(&connman);
    drop(RawAgent::connect(serve(layer.clone().into_service()), granted(URI), 1).await);
    gone(&connman).await;
    assert_eq!(status(&layer, granted(OTHER)).await, 101);
}

/// A dial-back agent's stream, there and back.
async fn picks_up(connman: &ConnectionManager, control: &mut Peer<DuplexStream>, io: DuplexStream) {
    let dialled = tokio::spawn(connman.dial(&key("a"), &TargetName::default()));
    let path = control.conn_ready().await;
    let mut there = Peer::pick_up(io, &path, "token").await.unwrap();
    let mut here = dialled.await.unwrap().unwrap();
    here.write_all(b"hello").await.unwrap();
    assert_eq!(there.bytes(5).await, b"hello");
}

#[test]
fn b14_dials_do_not_wait_behind_a_herd_of_handshakes() {
    let counted = Counted::by(async {
        let connman = ConnectionManager::new();
        let service = layer(&connman).max_handshakes(2).into_service();
        let mut control = Peer::control(serve(service.clone()), "a", "token").await;
        // They have their 101 and say nothing.
        let herd = [
            RawAgent::open(serve(service.clone()), granted(OTHER)).await,
            RawAgent::open(serve(service.clone()), granted(OTHER)).await,
        ];
        assert_eq!(crate::raw::send(serve(service.clone()), full(granted(OTHER))).await.status(), 503);
        for _ in 0..3 {
            picks_up(&connman, &mut control, serve(service.clone())).await;
        }
        let forged = format!("{PATH}?revdial.dialer={:032x}&revdial.req={:032x}", 7, 7);
        let response = crate::raw::send(serve(service.clone()), full(granted(&forged))).await;
        assert_eq!(response.status(), 503, "what nobody asked for has no place of its own");
        drop(herd);
    });
    let refused = counted.iter().filter(|name| *name == "revdial_overload_total{handshakes}").count();
    assert_eq!(refused, 2, "{counted:?}");
    assert!(!counted.iter().any(|name| name == "revdial_overload_total{pickups}"), "{counted:?}");
}

#[test]
fn b14_handshakes_do_not_wait_behind_pick_ups_either() {
    block_on(async {
        let connman = ConnectionManager::new();
        let service = layer(&connman).max_handshakes(1).into_service();
        let mut control = Peer::control(serve(service.clone()), "a", "token").await;
        let dialled = tokio::spawn(connman.dial(&key("a"), &TargetName::default()));
        let path = control.conn_ready().await.replacen("/revdial", PATH, 1);
        // Its answer is not taken, so that it is under way for long.
        let (mut agent, theirs) = tokio::io::duplex(32);
        let host =
            http1::Builder::new().serve_connection(TokioIo::new(theirs), TowerToHyperService::new(service.clone()));
        tokio::spawn(host.with_upgrades());
        let pick_up = wire(&path).replace("sec-websocket-protocol: revdial.v1\r\n", "");
        agent.write_all(pick_up.as_bytes()).await.unwrap();
        sleep(Duration::from_millis(10)).await;
        let _other = RawAgent::connect(serve(service.clone()), granted(OTHER), 1).await;
        // The next pick-up is one too many: that dial fails at once, and its agent is told why.
        let second = tokio::spawn(connman.dial(&key("a"), &TargetName::default()));
        let path = control.conn_ready().await;
        assert_eq!(Peer::pick_up(serve(service), &path, "token").await.err(), Some(503));
        drop((dialled, second));
    });
}

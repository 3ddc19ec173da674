//! What the host gives a proxy, a connector or an agent and what then panics costs one request, and nothing else.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Uri, request::Parts};
use http_body_util::{BodyExt, Empty};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use revdial::{
    Error, ErrorKind, TargetName,
    agent::{AgentStatus, Targets},
    connector::{RevDialConnector, Target},
    proxy::{Proxy, ProxyBuilder},
};
use tokio::{net::TcpListener, time::sleep};
use tower::ServiceExt;

use crate::{
    counted::listed,
    support::{World, builder, key, talk},
};

const FAILURES: &str = "revdial_callback_failures_total";

#[tokio::test(start_paused = true)]
async fn b86_what_the_proxy_asks_about_a_caller_and_what_then_panics_is_500_and_counted() {
    let peer: fn(&Parts) -> Option<IpAddr> = |parts| panic!("on purpose: {}", parts.uri);
    let trusted: fn(&Parts) -> bool = |parts| panic!("on purpose: {}", parts.uri);
    let table: [(&str, &dyn Fn(ProxyBuilder) -> ProxyBuilder); 2] =
        [("peer", &|proxy| proxy.peer(peer)), ("trusted", &|proxy| proxy.trusted(trusted))];
    for (name, with) in table {
        let world = World::new();
        let agent = world.agent().await;
        let proxy = with(Proxy::builder(world.connman.clone())).build::<Empty<Bytes>>();
        let request = Request::get("/").body(Empty::new()).unwrap();
        let answer = proxy.forward(&key(), &TargetName::default(), request).await;
        assert_eq!(answer.status(), 500, "{name}");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "internal", "{name}");
        assert_eq!(world.counted.sum(FAILURES), 1, "{name}");
        assert_eq!(agent.untaken(), 0, "{name}: nothing is sent");
        world.over([agent]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn b86_a_mapping_of_uris_that_panics_fails_its_connect_with_internal_and_is_counted() {
    let world = World::new();
    let mut agent = world.agent().await;
    let connector = RevDialConnector::new(world.connman.clone()).map_uri(|uri| {
        assert_ne!(uri.host(), Some("panics"), "on purpose");
        Target::of(uri)
    });
    let connect = |uri: &'static str| connector.clone().oneshot(Uri::from_static(uri));
    let error: Error = connect("http://panics/").await.unwrap_err();
    assert_eq!((error.kind(), world.counted.sum(FAILURES)), (ErrorKind::Internal, 1));
    let connecting = tokio::spawn(connect("http://a/"));
    agent.accepted().await;
    connecting.await.unwrap().expect("the next one is none the worse");
    world.over([agent]).await;
}

#[tokio::test]
async fn b86_a_rule_for_addresses_that_panics_denies_that_one_and_is_counted() {
    let world = World::new();
    let (good, bad) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let forbidden = bad.local_addr().unwrap();
    let targets = [good.local_addr().unwrap().to_string(), format!("bad={forbidden}")];
    let targets = Targets::parse(targets).unwrap().allow(move |address| {
        assert_ne!(address, forbidden, "on purpose");
        true
    });
    let agent = world.net.build(builder());
    let (mut status, run) = (agent.status(), tokio::spawn(agent.forward(targets)));
    status.wait_for(AgentStatus::is_connected).await.unwrap();
    let kept = world.connman.dial(&key(), &TargetName::default()).await.unwrap();
    let error = world.connman.dial(&key(), &"bad".parse().unwrap()).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::TargetDenied, true));
    assert_eq!(world.counted.sum(FAILURES), 1);
    assert_eq!(world.counted.sum("revdial_dial_failures_total{target_denied}"), 1);
    world.connman.dial(&key(), &TargetName::default()).await.expect("others are let through");
    assert_eq!(world.connman.stats().draining_sessions, 0);
    drop(kept);
    run.abort();
}

/// Panics at one metric each time.
struct Clumsy {
    at: &'static str,
    panicked: Arc<AtomicUsize>,
}

impl Clumsy {
    fn touch(&self, key: &Key) {
        if key.name() == self.at {
            self.panicked.fetch_add(1, Ordering::SeqCst);
            panic!("on purpose: {}", self.at);
        }
    }
}

impl Recorder for Clumsy {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.touch(key);
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.touch(key);
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.touch(key);
        Histogram::noop()
    }
}

#[tokio::test(start_paused = true)]
async fn b86_a_recorder_that_panics_loses_what_it_was_told_and_nothing_else() {
    let metrics: Vec<_> = listed::rows().iter().map(|row| row.name).collect();
    assert!(metrics.len() > 20, "{metrics:?}");
    let mut touched = 0;
    for at in metrics {
        let world = World::new();
        let panicked = Arc::new(AtomicUsize::new(0));
        let clumsy = Clumsy { at, panicked: Arc::clone(&panicked) };
        let clumsy = metrics::set_default_local_recorder(&clumsy);
        let mut agent = world.agent().await;
        let (mut here, mut there) = world.pair(&mut agent).await;
        talk((&mut here, &mut there)).await;
        sleep(Duration::from_secs(20)).await; // a ping, and its answer
        world.net.cut();
        talk((&mut here, &mut there)).await;
        let absent = world.connman.dial(&"nobody".parse().unwrap(), &TargetName::default()).await;
        assert_eq!(absent.unwrap_err().kind(), ErrorKind::NoConnection);
        assert_eq!(world.events(), ["connected", "lost", "resumed"], "{at}: nothing but the cut was noticed");
        touched += usize::from(panicked.load(Ordering::SeqCst) > 0);
        drop((here, there, clumsy));
        agent.kill().await;
    }
    assert!(touched >= 10, "{touched} of them were recorded");
}

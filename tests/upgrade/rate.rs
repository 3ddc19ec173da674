//! How often authentications may fail, and who pays for it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, header, request::Parts};
use http_body_util::Full;
use hyper::body::Bytes;
use revdial::{
    connman::ConnectionManager,
    server::{Authorize, Grant, Rejection, RevDialLayer, SharedBearer},
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{advance, sleep},
};

use crate::{BEARER, Counted, URI, ask, full, raw::upgrade, shared};

/// Tells how often it was asked.
struct Asked<A>(A, Arc<AtomicUsize>);

impl<A: Authorize> Authorize for Asked<A> {
    async fn authorize(&self, parts: &Parts) -> Result<Grant, Rejection> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.authorize(parts).await
    }
}

/// The address that a test says the request comes from.
fn stated(parts: &Parts) -> Option<SocketAddr> {
    parts.headers.get("x-from")?.to_str().ok()?.parse().ok()
}

fn from(addr: &str, token: &str) -> Request<Full<Bytes>> {
    full(upgrade(URI).header("x-from", addr).header(header::AUTHORIZATION, token))
}

const HERE: &str = "192.0.2.1:1000";
const WRONG: &str = "Bearer wrong";

#[test]
fn b15_too_many_failures_from_an_address_are_429_and_nobody_is_asked_about_more() {
    let counted = Counted::by(async {
        let asked = Arc::new(AtomicUsize::new(0));
        let layer = RevDialLayer::new(ConnectionManager::new(), Asked(shared(), Arc::clone(&asked)))
            .max_auth_failures(2, Duration::from_secs(3))
            .peer_addr(stated);
        let answer = async |addr, token| {
            let response = ask(&layer, from(addr, token)).await;
            let after = response.headers().get(header::RETRY_AFTER).map(|after| after.to_str().unwrap().to_owned());
            (response.status().as_u16(), after)
        };
        for _ in 0..2 {
            assert_eq!(answer(HERE, WRONG).await, (401, None));
        }
        for token in [WRONG, BEARER] {
            assert_eq!(answer("192.0.2.1:2000", token).await, (429, Some("3".to_owned())));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        advance(Duration::from_secs(2)).await;
        assert_eq!(answer(HERE, WRONG).await, (429, Some("1".to_owned())));
        advance(Duration::from_secs(1)).await;
        assert_eq!(answer(HERE, BEARER).await, (101, None));
        assert_eq!(answer(HERE, WRONG).await, (401, None));
        assert_eq!(answer(HERE, WRONG).await, (429, Some("3".to_owned())));
        tokio::task::yield_now().await;
    });
    let rate = counted.iter().filter(|name| *name == "revdial_auth_failures_total{rate}").count();
    assert_eq!(rate, 4, "{counted:?}");
}

#[tokio::test(start_paused = true)]
async fn b15_what_fails_elsewhere_is_nothing_to_good_credentials() {
    let layer = RevDialLayer::new(ConnectionManager::new(), shared())
        .max_auth_failures(1, Duration::from_secs(60))
        .peer_addr(stated);
    let status = async |addr, token| ask(&layer, from(addr, token)).await.status().as_u16();
    for addr in [HERE, "[2001:db8::1]:1", "nowhere"] {
        assert_eq!((status(addr, WRONG).await, status(addr, WRONG).await), (401, 429), "{addr}");
    }
    for addr in ["192.0.2.2:1000", "[2001:db8:0:1::1]:1"] {
        assert_eq!((status(addr, BEARER).await, status(addr, WRONG).await), (101, 401), "{addr}");
    }
    assert_eq!(status("nowhere", BEARER).await, 101, "it may be anybody");
}

#[tokio::test(start_paused = true)]
async fn b15_by_default_fifty_fail_at_once_and_five_a_second_and_good_credentials_never() {
    let layer = RevDialLayer::new(ConnectionManager::new(), shared());
    let status = async |token| ask(&layer, from(HERE, token)).await.status().as_u16();
    for _ in 0..50 {
        assert_eq!(status(WRONG).await, 401);
    }
    let refused = ask(&layer, from(HERE, WRONG)).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()[header::RETRY_AFTER], "30", "as slow as after a 401");
    assert_eq!(status(BEARER).await, 101);
    sleep(Duration::from_secs(1)).await;
    for _ in 0..5 {
        assert_eq!(status(WRONG).await, 401);
    }
    assert_eq!((status(WRONG).await, status(BEARER).await), (429, 101));
}

#[tokio::test(start_paused = true)]
async fn b15_other_refusals_are_no_failures_to_authenticate() {
    let verdict = |parts: &Parts| match parts.headers.get(header::AUTHORIZATION) {
        Some(_) => Ok::<_, Rejection>(Grant::new("a".parse()?, "p")),
        None => Err(Rejection::forbidden()),
    };
    let layer = RevDialLayer::new(ConnectionManager::new(), verdict)
        .max_auth_failures(1, Duration::from_secs(60))
        .peer_addr(stated);
    for _ in 0..3 {
        assert_eq!(ask(&layer, full(upgrade(URI).header("x-from", HERE))).await.status(), 403);
    }
    assert_eq!(ask(&layer, from(HERE, BEARER)).await.status(), 101);
}

/// After this one more may fail.
const EVERY: Duration = Duration::from_secs(60);

/// Judges by token once the test lets it, one verdict for each permit; tells how often it was asked.
struct Slow(Asked<SharedBearer>, Arc<Semaphore>);

impl Authorize for Slow {
    async fn authorize(&self, parts: &Parts) -> Result<Grant, Rejection> {
        let verdict = self.0.authorize(parts).await;
        self.1.acquire().await.unwrap().forget();
        verdict
    }
}

/// A layer that waits for the test's verdicts, of which two from one address may fail.
struct World {
    layer: RevDialLayer<Slow>,
    verdicts: Arc<Semaphore>,
    asked: Arc<AtomicUsize>,
}

impl World {
    fn new() -> Self {
        let (verdicts, asked) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let layer =
            RevDialLayer::new(ConnectionManager::new(), Slow(Asked(shared(), asked.clone()), Arc::clone(&verdicts)))
                .max_auth_failures(2, EVERY)
                .peer_addr(stated);
        Self { layer, verdicts, asked }
    }

    /// So many requests at once, all of which wait for their verdicts.
    async fn herd(&self, number: usize, token: &'static str) -> JoinSet<u16> {
        let mut herd = JoinSet::new();
        for _ in 0..number {
            let layer = self.layer.clone();
            herd.spawn(async move { ask(&layer, from(HERE, token)).await.status().as_u16() });
        }
        sleep(Duration::from_millis(1)).await;
        herd
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn sorted(herd: JoinSet<u16>) -> Vec<u16> {
    let mut statuses = herd.join_all().await;
    statuses.sort_unstable();
    statuses
}

#[tokio::test(start_paused = true)]
async fn b15_many_at_once_are_no_way_around_the_limit_what_fails_beyond_it_is_owed() {
    let world = World::new();
    let herd = world.herd(10, WRONG).await;
    world.verdicts.add_permits(100);
    assert_eq!(sorted(herd).await, [vec![401; 2], vec![429; 8]].concat());
    let asked = world.asked();
    for _ in 0..9 {
        assert_eq!(sorted(world.herd(1, BEARER).await).await, [429]);
        advance(EVERY).await;
    }
    assert_eq!(world.asked(), asked, "nobody from there is listened to meanwhile");
    assert_eq!(sorted(world.herd(1, BEARER).await).await, [101]);
}

#[tokio::test(start_paused = true)]
async fn b15_a_fleet_with_good_credentials_behind_one_address_is_judged_at_once() {
    let world = World::new();
    let herd = world.herd(10, BEARER).await;
    assert_eq!(world.asked(), 10);
    world.verdicts.add_permits(10);
    assert_eq!(sorted(herd).await, [101; 10]);
}

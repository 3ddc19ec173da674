//! One download and one upload, each a single request on a single stream, while the link below breaks many times.

use std::{
    env,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::Path,
    routing::{get, put},
};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use revdial::proto::SessionConfig;
use tokio::time::timeout;

use crate::{
    PATIENCE,
    load::{check, load},
    plan::{Plan, Way},
    world::World,
};

/// How much goes each way, and how often the link breaks meanwhile.
#[derive(Debug, Clone, Copy)]
struct Scale {
    bytes: usize,
    cuts: u64,
}

impl Scale {
    fn of_this_run() -> Self {
        match env::var("REVDIAL_KILL").as_deref() {
            Ok("full") => Self { bytes: 1 << 30, cuts: 1_000 },
            Ok(other) => panic!("REVDIAL_KILL={other}: it may be full"),
            Err(_) if cfg!(debug_assertions) => Self { bytes: 16 << 20, cuts: 40 },
            Err(_) => Self { bytes: 128 << 20, cuts: 100 },
        }
    }
}

/// What the cuts are drawn from. A test that fails tells it.
struct Seed(u64);

impl Seed {
    fn of_this_run() -> Self {
        Self(match env::var("REVDIAL_KILL_SEED") {
            Ok(seed) => seed.parse().expect("REVDIAL_KILL_SEED is a number"),
            Err(_) => RandomState::new().hash_one(()),
        })
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("REVDIAL_KILL_SEED={} plays it again", self.0);
        }
    }
}

/// A service of bodies, and how many requests it saw.
fn service() -> (Router, Arc<AtomicUsize>) {
    let requests = Arc::<AtomicUsize>::default();
    let (down, up) = (Arc::clone(&requests), Arc::clone(&requests));
    let router = Router::new()
        .route(
            "/{bytes}",
            get(async move |Path(bytes): Path<usize>| {
                down.fetch_add(1, Ordering::Relaxed);
                load(bytes)
            }),
        )
        .route(
            "/",
            put(async move |body: Body| {
                up.fetch_add(1, Ordering::Relaxed);
                match check(body).await {
                    Ok(bytes) => (StatusCode::OK, bytes.to_string()),
                    Err(why) => (StatusCode::UNPROCESSABLE_ENTITY, why),
                }
            }),
        );
    (router, requests)
}

/// Asserts that all cuts hit the transfer, and that it was one of one session all the same.
fn assert_survived(world: &World, requests: &AtomicUsize, cuts: u64) {
    assert_eq!(requests.load(Ordering::Relaxed), 1, "requests that the service saw");
    assert_eq!(world.chaos.counts().cuts, cuts);
    world.assert_one_session();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_download_survives_every_cut() {
    let (Scale { bytes, cuts }, seed) = (Scale::of_this_run(), Seed::of_this_run());
    let plan = Plan::new(seed.0, cuts, Way::ToServer, bytes as u64);
    let (router, requests) = service();
    let world = World::serving(plan, SessionConfig::default(), router).await;
    let transfer = async {
        let response = world.client.get(format!("http://a/{bytes}").parse().unwrap()).await.expect("an answer");
        assert_eq!(check(response.into_body()).await, Ok(bytes));
    };
    timeout(PATIENCE, transfer).await.unwrap_or_else(|_| panic!("it takes too long: {:?}", world.chaos.counts()));
    assert_survived(&world, &requests, cuts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_upload_survives_every_cut() {
    let (Scale { bytes, cuts }, seed) = (Scale::of_this_run(), Seed::of_this_run());
    let plan = Plan::new(seed.0, cuts, Way::ToAgent, bytes as u64);
    let (router, requests) = service();
    let world = World::serving(plan, SessionConfig::default(), router).await;
    let transfer = async {
        let request = Request::put("http://a/").body(load(bytes)).unwrap();
        let response = world.client.request(request).await.expect("an answer");
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(body, bytes.to_string());
    };
    timeout(PATIENCE, transfer).await.unwrap_or_else(|_| panic!("it takes too long: {:?}", world.chaos.counts()));
    assert_survived(&world, &requests, cuts);
}

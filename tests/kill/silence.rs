//! Links that fall silent and stay open: found dead within the dead-peer time, and gone on from on a new one.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Path,
    routing::{get, put},
};
use http::Request;
use http_body_util::BodyExt;
use revdial::proto::SessionConfig;
use tokio::time::{Instant, timeout};

use crate::{
    PATIENCE,
    load::{check, load},
    plan::{Cut, How, Way},
    ticks::{self, Events},
    world::World,
};

const DEAD_AFTER: Duration = Duration::from_secs(2);

/// What a caller may notice of a silence: the time until it is found out, and a second for a new link.
const PAUSE: Duration = DEAD_AFTER.saturating_add(Duration::from_secs(1));

const WAYS: [Way; 3] = [Way::ToServer, Way::ToAgent, Way::Both];

fn session() -> SessionConfig {
    SessionConfig { ping_interval: Duration::from_millis(500), dead_after: DEAD_AFTER, ..SessionConfig::default() }
}

#[tokio::test]
async fn events_pause_for_the_dead_peer_time_and_no_longer() {
    let world = World::serving(None, session(), ticks::service()).await;
    let mut events = Events::of(&world).await;
    events.next().await;
    for way in WAYS {
        let links = world.chaos.counts().accepted;
        world.cut(How::Silence(way)).await;
        // Those that had come already, then the first ones on the new link.
        while world.chaos.counts().accepted == links {
            let since = Instant::now();
            events.next().await;
            assert!(since.elapsed() < PAUSE, "{way:?}: {:?}", since.elapsed());
        }
        for _ in 0..20 {
            events.next().await;
        }
    }
    world.assert_one_session();
}

/// Three links that fall silent in the middle of a transfer that goes this way.
fn silences(bulk: Way) -> impl Iterator<Item = Cut> {
    WAYS.into_iter().map(move |way| Cut { after_bytes: 3 << 20, way: bulk, how: How::Silence(way) })
}

/// More than the links carry before they fall silent.
const BYTES: usize = 16 << 20;

/// A body, and the longest pause between two of its frames so far.
fn watched<B>(body: B) -> (impl http_body::Body<Data = Bytes, Error = B::Error> + Unpin, Arc<Mutex<Duration>>)
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let longest = Arc::<Mutex<Duration>>::default();
    let (seen, mut last) = (Arc::clone(&longest), Instant::now());
    let body = body.map_frame(move |frame| {
        let mut longest = seen.lock().unwrap();
        *longest = longest.max(last.elapsed());
        last = Instant::now();
        frame
    });
    (body, longest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_pauses_for_the_dead_peer_time_and_no_longer() {
    let router = Router::new().route("/{bytes}", get(async |Path(bytes): Path<usize>| load(bytes)));
    let world = World::serving(silences(Way::ToServer), session(), router).await;
    let response = world.client.get(format!("http://a/{BYTES}").parse().unwrap()).await.expect("an answer");
    let (body, longest) = watched(response.into_body());
    assert_eq!(timeout(PATIENCE, check(body)).await, Ok(Ok(BYTES)));
    assert_eq!(world.chaos.counts().cuts, 3);
    assert!(*longest.lock().unwrap() < PAUSE, "{longest:?}");
    world.assert_one_session();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_pauses_for_the_dead_peer_time_and_no_longer() {
    let longest = Arc::<Mutex<Duration>>::default();
    let tells = Arc::clone(&longest);
    let handler = async move |body: Body| {
        let (body, longest) = watched(body);
        let checked = check(body).await;
        *tells.lock().unwrap() = *longest.lock().unwrap();
        format!("{checked:?}")
    };
    let router = Router::new().route("/", put(handler));
    let world = World::serving(silences(Way::ToAgent), session(), router).await;
    let request = Request::put("http://a/").body(load(BYTES)).unwrap();
    let response = timeout(PATIENCE, world.client.request(request)).await.expect("in time").expect("an answer");
    let answer = response.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(answer, format!("Ok({BYTES})"));
    assert_eq!(world.chaos.counts().cuts, 3);
    assert!(*longest.lock().unwrap() < PAUSE, "{longest:?}");
    world.assert_one_session();
}

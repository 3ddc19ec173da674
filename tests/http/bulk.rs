//! Bodies larger than any buffer between: what is under way at a time is bounded, also when nobody reads.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, Incoming};
use tokio::time::{Instant, sleep, timeout};

use super::{
    counted::Counted,
    support::{agent, get, host, manager, send, serve_http, text},
};

const MIB: u64 = 1024 * 1024;

/// More than all windows and buffers of the way hold together.
const SIZE: u64 = if cfg!(debug_assertions) { 64 * MIB } else { 1024 * MIB };

const CHUNK: u64 = 64 * 1024;

/// What may be under way in one direction: the window of a stream, what its writer and the link hold, and what hyper and
/// the pipes of these tests hold on both sides of the tunnel. Far less than is sent, whatever that is.
const UNDER_WAY: u64 = 3 * MIB;

/// Bytes between where they are made and where they are taken.
#[derive(Debug, Default)]
struct Flow {
    made: AtomicU64,
    taken: AtomicU64,
    most: AtomicU64,
}

impl Flow {
    fn make(&self, n: u64) {
        let made = self.made.fetch_add(n, Ordering::SeqCst) + n;
        self.most.fetch_max(made - self.taken.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    fn take(&self, n: u64) {
        self.taken.fetch_add(n, Ordering::SeqCst);
    }

    fn made(&self) -> u64 {
        self.made.load(Ordering::SeqCst)
    }

    /// A body that is made as it is asked for.
    fn body(self: &Arc<Self>) -> UnsyncBoxBody<Bytes, Infallible> {
        let (flow, chunk) = (Arc::clone(self), Bytes::from(vec![7; CHUNK as usize]));
        let chunks = stream::iter(0..SIZE / CHUNK).map(move |_| {
            flow.make(CHUNK);
            Ok(Frame::data(chunk.clone()))
        });
        StreamBody::new(chunks).boxed_unsync()
    }

    /// Takes all of a body.
    async fn drain(&self, mut body: impl Body<Data = Bytes, Error: std::fmt::Debug> + Unpin) {
        while let Some(frame) = body.frame().await {
            self.take(frame.unwrap().into_data().unwrap().len() as u64);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn b80_a_body_of_a_gigabyte_goes_up_and_comes_down_at_once_and_is_never_held() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    serve_http(listener, |request: Request<Incoming>| async move { Response::new(request.into_body()) });
    let flow = Arc::new(Flow::default());
    let request = Request::post("/").header("host", "gateway").body(flow.body()).unwrap();
    flow.drain(send(host(&builder.build()), request).await.into_body()).await;
    assert_eq!((flow.made(), flow.taken.load(Ordering::SeqCst)), (SIZE, SIZE));
    // Both ways.
    let most = flow.most.load(Ordering::SeqCst);
    assert!(most <= 2 * UNDER_WAY, "{most}");
}

#[tokio::test(start_paused = true)]
async fn b83_a_client_that_does_not_read_stops_its_service_and_nobody_else() {
    let counted = Counted::new();
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    let flow = Arc::new(Flow::default());
    let made = Arc::clone(&flow);
    serve_http(listener, move |request: Request<Incoming>| {
        let bulk = (request.uri().path() == "/bulk").then(|| made.body());
        async move { Response::new(bulk.unwrap_or_default()) }
    });
    let proxy = builder.build();
    let body = send(host(&proxy), get("/bulk")).await.into_body();
    sleep(Duration::from_secs(60)).await;
    let stuck = flow.made();
    assert!((CHUNK..=UNDER_WAY).contains(&stuck), "{stuck}");

    let start = Instant::now();
    assert_eq!(text(send(host(&proxy), get("/")).await.into_body()).await.unwrap(), "");
    assert!(start.elapsed() <= Duration::from_millis(100));
    assert_eq!(flow.made(), stuck);

    flow.drain(body).await;
    assert_eq!(flow.taken.load(Ordering::SeqCst), SIZE);
    let blocked = counted.sum("revdial_flow_blocked_seconds_total");
    assert!((59..=61).contains(&blocked), "{blocked}");
}

#[tokio::test(start_paused = true)]
async fn b83_a_service_that_does_not_read_stops_its_client_and_nobody_else() {
    let counted = Counted::new();
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    let flow = Arc::new(Flow::default());
    let taken = Arc::clone(&flow);
    serve_http(listener, move |request: Request<Incoming>| {
        let taken = Arc::clone(&taken);
        async move {
            if request.uri().path() == "/bulk" {
                sleep(Duration::from_secs(120)).await;
                taken.drain(request.into_body()).await;
            }
            Response::new(UnsyncBoxBody::<Bytes, Infallible>::default())
        }
    });
    let proxy = builder.build();
    let request = Request::post("/bulk").header("host", "gateway").body(flow.body()).unwrap();
    let mut sending = tokio::spawn(send(host(&proxy), request));
    assert!(timeout(Duration::from_secs(60), &mut sending).await.is_err());
    let stuck = flow.made();
    assert!((CHUNK..=UNDER_WAY).contains(&stuck), "{stuck}");

    let start = Instant::now();
    assert_eq!(send(host(&proxy), get("/")).await.status(), 200);
    assert!(start.elapsed() <= Duration::from_millis(100));

    assert_eq!(sending.await.unwrap().status(), 200);
    assert_eq!(flow.taken.load(Ordering::SeqCst), SIZE);
    let blocked = counted.sum("revdial_flow_blocked_seconds_total");
    assert!((119..=121).contains(&blocked), "{blocked}");
}

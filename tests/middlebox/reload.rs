//! A proxy is reloaded under load: it cuts every tunnel, and no request fails.
//!
//! One thing is excused, and counted: a request on a connection of the proxy's that was kept from the one before. A proxy
//! that reloads closes those connections on which nothing runs, and a request that is just on its way to one then gets no
//! answer. HTTP/1.1 has no word against that (RFC 9112, section 9.3.1), so the client asks again, and cannot fail twice:
//! each reload closes a caller's one connection at the most once. Requests on new connections, those of callers whom the
//! proxy is not between, and whatever has begun to be answered have no excuse.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use http::{Method, Request, Response, header};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    load::{check, load},
    middlebox::{Kind, Settings},
    process::DEADLINE,
    world::{CALLER, Echo, World, agent, next, text},
};

const RELOADS: u64 = 3;

/// How long what the proxy had open may go on after a reload: longer than any request that comes through it takes, so
/// that it is tunnels alone that it cuts, of which none ends by itself.
const CUT: Duration = Duration::from_secs(2);

/// Of a body that goes one way: enough for several messages, little enough to come through many times.
const LENGTH: usize = 300_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_is_reloaded_under_load_and_no_request_fails() {
    no_request_fails(Kind::Nginx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_is_reloaded_under_load_and_no_request_fails() {
    no_request_fails(Kind::Haproxy).await;
}

/// Callers ask without a pause, some at the gateway and some through the proxy, and each answer has to be whole; what is
/// under way the whole time misses nothing.
async fn no_request_fails(kind: Kind) {
    let settings = Settings { cut_after_reload: Some(CUT), ..Settings::default() };
    let mut world = World::new(kind, settings, "").await;
    world.agent("a", "--protocol native").await;
    world.agent("d", "--protocol dialback").await;
    let (gateway, edge) = (world.gateway, world.middlebox.faces.plain);
    let callers = [
        Caller::start(gateway, Connections::Undisturbed),
        Caller::start(gateway, Connections::Undisturbed),
        Caller::start(edge, Connections::Kept),
        Caller::start(edge, Connections::New),
    ];
    let mut echo = Echo::open(gateway, "a").await;
    let mut events = world.get(gateway, "/proxy/a/events").await.into_body();
    assert_eq!(next(&mut events).await, "data: begun\n\n");
    for reload in 1..=RELOADS {
        let before = callers.each_ref().map(Caller::answers);
        world.middlebox.reload().await;
        echo.says("while the old worker still has the tunnel").await;
        // Each loss is a return of the agent, and nothing else is.
        world.until(DEADLINE, |stats| agent(stats, "a")["reconnects"] == reload).await;
        world.service.say("cut");
        assert_eq!(next(&mut events).await, "data: cut\n\n");
        echo.says("on the new one").await;
        for (caller, before) in callers.iter().zip(before) {
            assert!(caller.answers() > before, "nobody asked during reload {reload}");
        }
    }
    for (caller, may_be_excused) in callers.into_iter().zip([0, 0, RELOADS, 0]) {
        let excused = caller.ends().await;
        assert!(excused <= may_be_excused, "{excused} requests found their connection closed");
    }
    // Streams of the dial-back protocol do not outlive such a cut, and so nobody had any; the agent does.
    world.until(DEADLINE, |stats| agent(stats, "d")["reconnects"].as_u64() >= Some(1)).await;
    assert_eq!(text(world.get(gateway, "/proxy/d/").await).await, "here");
    let metrics = text(world.get(gateway, "/metrics").await).await;
    // The agent may be back before the gateway hears that the link before is gone.
    let resumes = metrics.lines().filter_map(|line| line.strip_prefix("revdial_session_resumes_total{result="));
    let went_on = resumes.filter_map(|rest| rest.strip_prefix("\"ok\"} ").or(rest.strip_prefix("\"fenced\"} ")));
    assert_eq!(went_on.map(|count| count.parse::<u64>().unwrap()).sum::<u64>(), RELOADS, "{metrics}");
    assert!(!metrics.contains("revdial_protocol_errors_total{"), "{metrics}");
}

/// What a caller asks on.
#[derive(Clone, Copy, PartialEq)]
enum Connections {
    /// One that is kept, and nobody reloads whom it asks.
    Undisturbed,
    /// One that is kept, of a proxy that closes it when it reloads: it is excused then.
    Kept,
    /// Each of them new.
    New,
}

/// Asks one thing after the other until it is told to stop.
struct Caller {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    task: JoinHandle<u64>,
}

impl Caller {
    fn start(at: SocketAddr, connections: Connections) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&answers));
        let task = tokio::spawn(async move {
            let mut asks = Asks::new(at, connections);
            while !stopped.load(Ordering::Relaxed) {
                assert_eq!(text(asks.ask(Method::GET, "/", Body::empty).await).await, "here");
                let down = asks.ask(Method::GET, &format!("/down/{LENGTH}"), Body::empty).await;
                assert_eq!(down.status(), 200);
                assert_eq!(timeout(DEADLINE, check(down.into_body())).await, Ok(Ok(LENGTH)));
                let up = asks.ask(Method::POST, "/up", || load(LENGTH)).await;
                assert_eq!(text(up).await, LENGTH.to_string());
                counter.fetch_add(1, Ordering::Relaxed);
            }
            asks.excused
        });
        Self { stop, answers, task }
    }

    /// How often it got all three of its answers.
    fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Stops it; a panic in it is this one's. How often it asked again.
    async fn ends(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        match timeout(DEADLINE, self.task).await.expect("an end") {
            Ok(excused) => excused,
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }
}

/// The requests of one caller.
struct Asks {
    at: SocketAddr,
    connections: Connections,
    client: Client<HttpConnector, Body>,
    excused: u64,
}

impl Asks {
    fn new(at: SocketAddr, connections: Connections) -> Self {
        let idle = if connections == Connections::New { 0 } else { 1 };
        let mut client = Client::builder(TokioExecutor::new());
        // It would ask again by itself what never left, and count nothing.
        let client = client.retry_canceled_requests(false).pool_max_idle_per_host(idle).build_http();
        Self { at, connections, client, excused: 0 }
    }

    /// Once more where it is excused, and in no other case.
    async fn ask(&mut self, method: Method, path: &str, body: fn() -> Body) -> Response<Incoming> {
        let answer = match self.once(&method, path, body()).await {
            Err(why) if self.connections == Connections::Kept && !why.is_connect() => {
                self.excused += 1;
                self.once(&method, path, body()).await
            }
            answer => answer,
        };
        answer.unwrap_or_else(|why| panic!("{method} {path}: {why:?}"))
    }

    async fn once(&self, method: &Method, path: &str, body: Body) -> Result<Response<Incoming>, Error> {
        let request = Request::builder().method(method).uri(format!("http://{}/proxy/a{path}", self.at));
        let request = request.header(header::AUTHORIZATION, CALLER).body(body).unwrap();
        timeout(DEADLINE, self.client.request(request)).await.expect("an answer in time")
    }
}

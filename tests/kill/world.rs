//! A gateway and an agent that reach each other through a proxy which breaks their links.

use std::{
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use axum::{Router, body::Body, serve::ListenerExt};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use revdial::{
    AgentKey, Error, TargetName, TunnelStream,
    agent::{Agent, AgentStatus, Backoff, Listener},
    connector::RevDialConnector,
    connman::{ConnectionManager, TunnelEvent},
    proto::SessionConfig,
    server::{RevDialLayer, SharedBearer},
};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};

use crate::{
    PATIENCE,
    chaos::Chaos,
    plan::{Cut, How},
};

const TOKEN: &str = "token";

/// Plans have cuts in a row that let nothing through, as hardly any line has; by default that takes half a minute.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));

/// What all worlds of this process count.
static COUNTS: LazyLock<Snapshotter> = LazyLock::new(|| {
    let recorder = DebuggingRecorder::new();
    let counts = recorder.snapshotter();
    recorder.install().expect("the first recorder");
    counts
});

/// What correct peers never count, whatever lies between them.
const FAULTS: [&str; 2] = ["revdial_duplicate_messages_total", "revdial_protocol_errors_total"];

/// All that is between a caller and a service: a connected agent `a` and how it is reached.
pub(crate) struct World {
    pub(crate) connman: ConnectionManager,
    /// Asks `http://a/`.
    pub(crate) client: Client<RevDialConnector, Body>,
    pub(crate) chaos: Chaos,
    events: Arc<Mutex<Vec<&'static str>>>,
}

impl World {
    /// A world whose links break by this plan, and the agent's listener.
    pub(crate) async fn new<P>(plan: P, session: SessionConfig) -> (Self, Listener)
    where
        P: IntoIterator<Item = Cut, IntoIter: Send + 'static>,
    {
        // With RUST_LOG set, a test that fails shows what both sides said.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter(filter).try_init();
        LazyLock::force(&COUNTS);
        let events = Arc::<Mutex<Vec<_>>>::default();
        let seen = Arc::clone(&events);
        let observer = move |event: &TunnelEvent| seen.lock().unwrap().push(event.name());
        let connman = ConnectionManager::builder().observer(observer).build();
        let layer = RevDialLayer::new(connman.clone(), SharedBearer::new(TOKEN).unwrap());
        let app = Router::new().layer(layer.session(session.clone()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let chaos = Chaos::start(listener.local_addr().unwrap(), plan).await;
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        tokio::spawn(axum::serve(listener, app).into_future());

        let agent = Agent::builder(format!("http://{}", chaos.addr), "a").token(TOKEN).session(session);
        let agent = agent.backoff(Backoff::new(BACKOFF.0, BACKOFF.1)).build().unwrap();
        let mut status = agent.status();
        let (listener, run) = agent.listen();
        tokio::spawn(run);
        timeout(PATIENCE, status.wait_for(AgentStatus::is_connected)).await.expect("a tunnel").unwrap();
        let client = Client::builder(TokioExecutor::new()).build(RevDialConnector::new(connman.clone()));
        (Self { connman, client, chaos, events }, listener)
    }

    /// The same with an axum app behind the agent.
    pub(crate) async fn serving<P>(plan: P, session: SessionConfig, router: Router) -> Self
    where
        P: IntoIterator<Item = Cut, IntoIter: Send + 'static>,
    {
        let (world, listener) = Self::new(plan, session).await;
        tokio::spawn(axum::serve(listener, router).into_future());
        world
    }

    /// Opens a stream without HTTP.
    pub(crate) fn dial(&self) -> JoinHandle<Result<TunnelStream, Error>> {
        let key: AgentKey = "a".parse().unwrap();
        tokio::spawn(self.connman.dial(&key, &TargetName::default()))
    }

    /// Breaks the link that there is.
    pub(crate) async fn cut(&self, how: How) {
        let before = self.chaos.counts().cuts;
        self.chaos.cut_now(how);
        self.chaos.until(|counts| counts.cuts > before).await;
    }

    /// Asserts that since the first link there is one session, whatever became of its links, and that neither side
    /// saw the other break a rule.
    pub(crate) fn assert_one_session(&self) {
        let events = self.events.lock().unwrap();
        let (first, rest) = events.split_first().expect("an agent came");
        assert_eq!(*first, "connected");
        let harmless = |event: &&str| matches!(*event, "lost" | "resumed");
        assert!(rest.iter().all(harmless), "{events:?}");
        for (key, _, _, value) in COUNTS.snapshot().into_vec() {
            let name = key.key().name();
            assert!(!FAULTS.contains(&name) || value == DebugValue::Counter(0), "{name}: {value:?}");
        }
    }
}

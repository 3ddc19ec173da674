//! A server, agents that reach it over links that can fail, and what was told of it all.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{header, request::Parts};
use revdial::{
    AgentKey, Error, ErrorKind, TargetName, TunnelStream,
    agent::{Agent, AgentBuilder, AgentStatus, ShutdownHandle},
    connman::{AgentInfo, ConnectionManager, ConnectionManagerBuilder, TunnelEvent},
    proto::SessionConfig,
    server::{Grant, Rejection, RevDialLayer, SharedBearer, requested_key},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::{
    counted::Counted,
    net::{Net, TOKEN},
    raw::{PATH, RawAgent, upgrade},
};

/// What nothing takes that is not stuck: virtual time.
pub(crate) const LONG: Duration = Duration::from_secs(120);

pub(crate) type Dialled = JoinHandle<Result<TunnelStream, Error>>;

pub(crate) fn key() -> AgentKey {
    "a".parse().unwrap()
}

/// A session that holds a silent link for dead after two seconds.
pub(crate) fn quick() -> SessionConfig {
    let (ping_interval, dead_after) = (Duration::from_millis(500), Duration::from_secs(2));
    SessionConfig { ping_interval, dead_after, ..SessionConfig::default() }
}

/// A server and the way to it.
pub(crate) struct World {
    pub(crate) connman: ConnectionManager,
    pub(crate) net: Net,
    pub(crate) counted: Counted,
    events: Arc<Mutex<Vec<(TunnelEvent, Instant)>>>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of(ConnectionManager::builder(), SessionConfig::default())
    }

    pub(crate) fn of(builder: ConnectionManagerBuilder, config: SessionConfig) -> Self {
        Self::behind(builder, |connman| Net::of(layer(connman, config)))
    }

    /// A server that takes any token, whose bearer it is.
    pub(crate) fn of_many(builder: ConnectionManagerBuilder) -> Self {
        let authorize = |parts: &Parts| {
            let token = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
            Ok(Grant::new(requested_key(parts)?, token.ok_or_else(Rejection::unauthorized)?))
        };
        Self::behind(builder, |connman| Net::of(RevDialLayer::new(connman.clone(), authorize)))
    }

    pub(crate) fn behind(builder: ConnectionManagerBuilder, net: impl FnOnce(&ConnectionManager) -> Net) -> Self {
        let counted = Counted::new();
        let events = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&events);
        let observer = move |event: &TunnelEvent| told.lock().unwrap().push((event.clone(), Instant::now()));
        let connman = builder.observer(observer).build();
        let net = net(&connman);
        Self { connman, net, counted, events }
    }

    /// A connected agent `a`.
    pub(crate) async fn agent(&self) -> Running {
        self.agent_of(builder()).await
    }

    pub(crate) async fn agent_of(&self, builder: AgentBuilder) -> Running {
        let mut running = Running::new(self.net.build(builder));
        running.connected().await;
        running
    }

    pub(crate) fn dial(&self) -> Dialled {
        tokio::spawn(self.connman.dial(&key(), &TargetName::default()))
    }

    /// A stream, here and at the agent.
    pub(crate) async fn pair(&self, agent: &mut Running) -> (TunnelStream, TunnelStream) {
        let dialled = self.dial();
        let there = agent.accepted().await;
        (dialled.await.unwrap().unwrap(), there)
    }

    /// A link under a script, past the 101, of the bearer of `token` under the key `key`.
    pub(crate) async fn raw_of(&self, key: &str, token: &str) -> RawAgent {
        let request = upgrade(&format!("{PATH}?runnerid={key}"));
        let request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        RawAgent::open(self.net.open(), request).await
    }

    /// The same of an agent `a`.
    pub(crate) async fn raw(&self) -> RawAgent {
        self.raw_of("a", TOKEN).await
    }

    /// The names of events so far.
    pub(crate) fn events(&self) -> Vec<&'static str> {
        self.events.lock().unwrap().iter().map(|(event, _)| event.name()).collect()
    }

    /// When events of this name came.
    pub(crate) fn when(&self, name: &str) -> Vec<Instant> {
        let events = self.events.lock().unwrap();
        events.iter().filter(|(event, _)| event.name() == name).map(|(_, when)| *when).collect()
    }

    /// What is listed of the key.
    pub(crate) fn info(&self) -> AgentInfo {
        self.connman.list().pop().expect("the key is listed")
    }

    /// Takes the network away, and waits until the server has seen it.
    pub(crate) async fn pause(&self) {
        self.net.down(true);
        self.net.cut();
        self.in_grace().await;
    }

    /// Waits until the server has seen the loss of the link.
    pub(crate) async fn in_grace(&self) {
        until("in grace", || self.connman.stats().grace_period_entries > 0).await;
    }

    /// Waits until so many dials wait.
    pub(crate) async fn waiting(&self, dials: usize) {
        until("waiting", || self.connman.stats().pending_dials_total == dials).await;
    }
}

/// The layer of a server for `connman`.
pub(crate) fn layer(connman: &ConnectionManager, config: SessionConfig) -> RevDialLayer<SharedBearer> {
    RevDialLayer::new(connman.clone(), SharedBearer::new(TOKEN).unwrap()).session(config).unwrap()
}

/// The settings of an agent `a`.
pub(crate) fn builder() -> AgentBuilder {
    Agent::builder("http://gateway", "a").token(TOKEN)
}

/// A running agent whose streams are accepted as they come.
pub(crate) struct Running {
    pub(crate) status: watch::Receiver<AgentStatus>,
    pub(crate) run: JoinHandle<Result<(), Error>>,
    pub(crate) shutdown: ShutdownHandle,
    accepted: mpsc::UnboundedReceiver<TunnelStream>,
}

impl Running {
    pub(crate) fn new(agent: Agent) -> Self {
        let (status, shutdown) = (agent.status(), agent.shutdown_handle());
        let (mut listener, run) = agent.listen();
        let (keep, accepted) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(stream) = listener.accept().await {
                let _ = keep.send(stream);
            }
        });
        Self { status, run: tokio::spawn(run), shutdown, accepted }
    }

    pub(crate) async fn connected(&mut self) {
        let connected = self.status.wait_for(AgentStatus::is_connected);
        timeout(LONG, connected).await.expect("connected in time").unwrap();
    }

    /// The next stream that it took.
    pub(crate) async fn accepted(&mut self) -> TunnelStream {
        timeout(LONG, self.accepted.recv()).await.expect("a stream in time").expect("an agent that runs")
    }

    /// How many streams it took that nobody asked for yet.
    pub(crate) fn untaken(&self) -> usize {
        self.accepted.len()
    }

    /// Ends it as `kill -9` would.
    pub(crate) async fn kill(self) {
        self.run.abort();
        let _ = self.run.await;
    }

    /// How it ends.
    pub(crate) async fn end(&mut self) -> Result<(), ErrorKind> {
        timeout(LONG, &mut self.run).await.expect("an end in time").unwrap().map_err(|error| error.kind())
    }
}

/// Polls until it is so, without letting time pass as long as something can happen.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < LONG, "never: {what}");
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        if !so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// What a read of a stream without bytes brings: an error's kind, or the clean end.
pub(crate) async fn end(stream: &mut TunnelStream) -> Option<ErrorKind> {
    match timeout(LONG, stream.read(&mut [0])).await.expect("an end in time") {
        Ok(n) => {
            assert_eq!(n, 0, "a byte");
            None
        }
        Err(error) => Some(Error::find(&error).expect("an error of ours").kind()),
    }
}

/// What a write brings, sooner or later.
pub(crate) async fn write_end(stream: &mut TunnelStream) -> ErrorKind {
    loop {
        let written = timeout(LONG, AsyncWriteExt::write(stream, &[0; 1024])).await;
        if let Err(error) = written.expect("an end in time") {
            return Error::find(&error).expect("an error of ours").kind();
        }
    }
}

/// A word from one end to the other.
pub(crate) async fn say(from: &mut TunnelStream, to: &mut TunnelStream) {
    AsyncWriteExt::write_all(from, b"word").await.unwrap();
    let mut word = [0; 4];
    timeout(LONG, to.read_exact(&mut word)).await.expect("a word in time").unwrap();
    assert_eq!(&word, b"word");
}

/// A word each way.
pub(crate) async fn talk((here, there): (&mut TunnelStream, &mut TunnelStream)) {
    say(here, there).await;
    say(there, here).await;
}

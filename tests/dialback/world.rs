//! A server of ours with scripted agents, and an agent of ours with a scripted server.

use std::sync::{Arc, Mutex};

use http::{header, request::Parts};
use revdial::{
    AgentKey, Error, ErrorKind, TargetName, TunnelStream,
    agent::{Agent, AgentStatus, Listener, ShutdownHandle},
    connman::{AgentInfo, ConnectionManager, ConnectionManagerBuilder, TunnelEvent},
    server::{Authorize, BadKey, Grant, Rejection, RevDialLayer, requested_key},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    classic::{KEEP_ALIVE, Peer, soon},
    counted::Counted,
    net::{Net, TOKEN},
    until,
};

pub(crate) type Pipe = Peer<DuplexStream>;
pub(crate) type Dialled = JoinHandle<Result<TunnelStream, Error>>;

/// Names, which are tokens too, and the keys that are theirs.
pub(crate) const ALICE: (&str, &str) = ("alice", "a");
pub(crate) const MALLORY: (&str, &str) = ("mallory", "m");

/// Who has the token of a name is who it says. Without a `runnerid`, as in pick-ups, it is under the key of its own.
pub(crate) fn by_name(parts: &Parts) -> Result<Grant, Rejection> {
    let token = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let known = [ALICE, MALLORY].into_iter().find(|(name, _)| Some(*name) == token);
    let (name, own) = known.ok_or_else(Rejection::unauthorized)?;
    let key = match requested_key(parts) {
        Err(BadKey::Missing) => own.parse()?,
        requested => requested?,
    };
    Ok(Grant::new(key, name))
}

/// A server of ours.
pub(crate) struct Server {
    pub(crate) connman: ConnectionManager,
    pub(crate) net: Net,
    pub(crate) counted: Counted,
    events: Arc<Mutex<Vec<&'static str>>>,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self::of(ConnectionManager::builder(), by_name)
    }

    pub(crate) fn of(builder: ConnectionManagerBuilder, authorize: impl Authorize) -> Self {
        let counted = Counted::new();
        let events = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&events);
        let connman = builder.observer(move |event: &TunnelEvent| told.lock().unwrap().push(event.name())).build();
        let net = Net::of(RevDialLayer::new(connman.clone(), authorize));
        Self { connman, net, counted, events }
    }

    /// The control connection of alice's agent.
    pub(crate) async fn control(&self) -> Pipe {
        self.control_of(ALICE).await
    }

    pub(crate) async fn control_of(&self, (name, key): (&str, &str)) -> Pipe {
        Peer::control(self.net.open(), key, name).await
    }

    /// A connection that alice's agent was asked for.
    pub(crate) async fn pick_up(&self, path: &str) -> Pipe {
        self.pick_up_as(path, ALICE.0).await.unwrap_or_else(|status| panic!("{status} for {path}"))
    }

    /// The same by the bearer of a token; or the status by which it is refused.
    pub(crate) async fn pick_up_as(&self, path: &str, token: &str) -> Result<Pipe, u16> {
        Peer::pick_up(self.net.open(), path, token).await
    }

    /// A dial under way to alice's agent.
    pub(crate) fn dial(&self) -> Dialled {
        self.dial_to(ALICE.1)
    }

    pub(crate) fn dial_to(&self, key: &str) -> Dialled {
        let key: AgentKey = key.parse().unwrap();
        tokio::spawn(self.connman.dial(&key, &TargetName::default()))
    }

    /// A stream, and its other end at alice's agent.
    pub(crate) async fn joined(&self, control: &mut Pipe) -> (TunnelStream, Pipe) {
        let dialled = self.dial();
        let path = control.conn_ready().await;
        let there = self.pick_up(&path).await;
        (opened(dialled).await, there)
    }

    /// A dial comes through this control connection, a byte goes there and back, and both ends are left.
    pub(crate) async fn works(&self, control: &mut Pipe) {
        let (mut here, mut there) = self.joined(control).await;
        say(&mut here, b"?").await;
        assert_eq!(there.bytes(1).await, b"?");
        there.say("!").await;
        hear(&mut here, b"!").await;
    }

    /// What is listed of the one key.
    pub(crate) fn info(&self) -> AgentInfo {
        let mut agents = self.connman.list();
        assert_eq!(agents.len(), 1, "{agents:?}");
        agents.remove(0)
    }

    pub(crate) fn events(&self) -> Vec<&'static str> {
        self.events.lock().unwrap().clone()
    }

    /// Waits until the loss of a control connection is known.
    pub(crate) async fn in_grace(&self) {
        until("in grace", || self.connman.stats().grace_period_entries > 0).await;
    }

    /// Waits until so many dials wait for an agent.
    pub(crate) async fn waiting(&self, dials: usize) {
        until("dials wait", || self.connman.stats().pending_dials_total == dials).await;
    }
}

/// The stream of a dial that has to succeed.
pub(crate) async fn opened(dialled: Dialled) -> TunnelStream {
    soon(dialled).await.unwrap().unwrap_or_else(|error| panic!("{error:?}"))
}

/// Why a dial failed.
pub(crate) async fn failed(dialled: Dialled) -> ErrorKind {
    soon(dialled).await.unwrap().expect_err("no stream").kind()
}

pub(crate) async fn say(stream: &mut TunnelStream, bytes: &[u8]) {
    soon(AsyncWriteExt::write_all(stream, bytes)).await.unwrap();
}

pub(crate) async fn hear(stream: &mut TunnelStream, bytes: &[u8]) {
    let mut heard = vec![0; bytes.len()];
    soon(stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, bytes);
}

/// The stream's end comes next, and is a clean one.
pub(crate) async fn ends(stream: &mut TunnelStream) {
    assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0);
}

/// An agent of ours, `a`, whose server is scripted.
pub(crate) struct Ours {
    pub(crate) net: Net,
    pub(crate) counted: Counted,
    pub(crate) status: watch::Receiver<AgentStatus>,
    pub(crate) shutdown: ShutdownHandle,
    pub(crate) run: JoinHandle<Result<(), Error>>,
    incoming: mpsc::UnboundedReceiver<DuplexStream>,
    asked: u128,
}

impl Ours {
    /// One that sends back what comes.
    pub(crate) fn echoing() -> Self {
        Self::with(echo)
    }

    /// One that does this with its listener.
    pub(crate) fn with<F: Future<Output = ()> + Send + 'static>(serve: impl FnOnce(Listener) -> F) -> Self {
        let counted = Counted::new();
        let (there, incoming) = mpsc::unbounded_channel();
        let net = Net::new(move |io| drop(there.send(io)));
        let agent = net.build(Agent::builder("http://gateway", "a").token(TOKEN));
        let (status, shutdown) = (agent.status(), agent.shutdown_handle());
        let (listener, run) = agent.listen();
        tokio::spawn(serve(listener));
        Self { net, counted, status, shutdown, run: tokio::spawn(run), incoming, asked: 0 }
    }

    /// The next connection of the agent.
    pub(crate) async fn connects(&mut self) -> DuplexStream {
        soon(self.incoming.recv()).await.expect("a net")
    }

    /// How many connections of the agent wait to be answered.
    pub(crate) fn waiting(&self) -> usize {
        self.incoming.len()
    }

    /// Its next control connection, granted. Pick-ups that come first are left without an answer.
    pub(crate) async fn control(&mut self) -> Pipe {
        loop {
            let (mut peer, request) = Peer::asked(self.connects().await).await;
            if request.target() == "/api/v1/revdial?runnerid=a" {
                peer.grant(&request).await;
                peer.say(KEEP_ALIVE).await;
                return peer;
            }
        }
    }

    /// A path with ids that were not used before.
    pub(crate) fn path(&mut self) -> String {
        self.asked += 1;
        let (dialer, request) = (0xd1a1_u128 << 64, (0x4e << 96) + self.asked);
        format!("/revdial?revdial.dialer={dialer:032x}&revdial.req={request:032x}")
    }

    /// The agent is asked for a connection, and brings it.
    pub(crate) async fn dial(&mut self, control: &mut Pipe) -> Pipe {
        let path = self.path();
        control.say_ready(&path).await;
        self.brings(&path).await
    }

    /// The agent brings the connection that it was asked for.
    pub(crate) async fn brings(&mut self, path: &str) -> Pipe {
        let (mut peer, request) = Peer::asked(self.connects().await).await;
        assert_eq!(request.target(), format!("/api/v1{path}"));
        assert_eq!(request.get("Authorization"), Some(format!("Bearer {TOKEN}").as_str()));
        peer.grant(&request).await;
        peer
    }

    /// The agent says that it does not bring this connection.
    pub(crate) async fn fails(&self, control: &mut Pipe, path: &str) {
        let line = control.line().await;
        let told: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        assert_eq!((&told["command"], &told["connPath"]), (&"pickup-failed".into(), &path.into()));
        let err = told["err"].as_str().unwrap();
        assert!((1..=512).contains(&err.len()), "{err:?}");
    }

    /// A connection comes by this control connection, a byte goes there and back, and it is left.
    pub(crate) async fn works(&mut self, control: &mut Pipe) {
        let mut peer = self.dial(control).await;
        peer.say("?").await;
        assert_eq!(peer.bytes(1).await, b"?");
    }

    pub(crate) async fn connected(&mut self) {
        soon(self.status.wait_for(AgentStatus::is_connected)).await.unwrap();
    }
}

/// An agent is stopped with its test, as is all else of it.
impl Drop for Ours {
    fn drop(&mut self) {
        self.run.abort();
    }
}

/// Sends back what comes on every stream.
async fn echo(mut listener: Listener) {
    while let Some(stream) = listener.accept().await {
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
    }
}

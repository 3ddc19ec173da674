//! The one loop of an agent: connect, establish, drive, back off, again, until it is stopped or replaced.

use std::{
    fmt,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{
    config::{AgentBuilder, Config},
    connect::{BoxFuture, Connect, reach},
    forward::Forwarder,
    listener::{Listener, Queue, listener},
    refusal::{Retry, Setback},
    status::{AgentStatus, ShutdownHandle},
    targets::Targets,
};
use crate::{
    error::{Error, ErrorKind},
    frame::{CloseCode, InstanceId},
    key::{AgentKey, Epoch},
    link::LinkEnd,
    metrics,
    mux::{Driver, MuxTunnel, establish},
    proto::{Role, Session, SessionEnd},
};

/// How long the token, the connect and the upgrade may take together.
const REACH_WITHIN: Duration = Duration::from_secs(20);

/// How long WELCOME may take.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);

/// How long the orderly end of a session may take once nothing runs any more.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// How often a drain looks whether streams still run.
const DRAIN_TICK: Duration = Duration::from_millis(20);

/// A link that stood for this long is progress even if nobody used it, and earns one more retry without delay.
const STEADY: Duration = Duration::from_secs(30);

/// An agent that is set up and does not run yet.
///
/// ```no_run
/// # async fn example() -> Result<(), revdial::Error> {
/// use revdial::agent::{Agent, Targets};
///
/// let agent = Agent::builder("https://gateway.example", "sandbox-1").token("secret").build()?;
/// let targets = Targets::parse(["127.0.0.1:8080"])?;
/// agent.forward(targets).await
/// # }
/// ```
pub struct Agent {
    config: Config,
    connector: Box<dyn Connect>,
    status: watch::Sender<AgentStatus>,
    shutdown: ShutdownHandle,
}

/// An agent at work. It resolves with `Ok` after a shutdown, and with [`ErrorKind::Replaced`] when another agent has
/// taken the key; all else it retries.
///
/// # Cancel safety
/// Dropping it cuts the link without a word: callers see their streams fail, and the server holds the key in grace.
#[must_use = "an agent does nothing unless its run is awaited or spawned"]
pub struct Run(BoxFuture<'static, Result<(), Error>>);

impl Agent {
    /// Sets up an agent for the server at `server_url` under `key`.
    ///
    /// `server_url` is http, https, ws or wss, with a path if the server lives below one; the endpoint's path
    /// `/api/v1/revdial` is added unless it is there, and the key as `runnerid`. What cannot be is told by
    /// [`AgentBuilder::build`].
    pub fn builder(server_url: impl fmt::Display, key: impl fmt::Display) -> AgentBuilder {
        AgentBuilder::new(server_url.to_string(), key.to_string())
    }

    pub(crate) fn new(config: Config, connector: Box<dyn Connect>) -> Self {
        let status = watch::Sender::new(AgentStatus::Connecting);
        Self { config, connector, status, shutdown: ShutdownHandle::new() }
    }

    /// The agent's key.
    #[must_use]
    pub fn key(&self) -> &AgentKey {
        &self.config.key
    }

    /// What the agent is doing, for readiness checks. Ask before the agent is consumed.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<AgentStatus> {
        self.status.subscribe()
    }

    /// Stops the agent in order, later. Ask before the agent is consumed.
    #[must_use]
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.shutdown.clone()
    }

    /// Runs with a listener, from which this program takes the streams itself.
    pub fn listen(self) -> (Listener, Run) {
        let (queue, listener) = listener(self.config.key.clone());
        (listener, self.run(Sink::Queue(queue)))
    }

    /// Runs and forwards each stream to the local address of its target; what is not named is refused.
    pub fn forward(self, targets: Targets) -> Run {
        self.run(Sink::Forward(Forwarder::new(targets)))
    }

    fn run(self, sink: Sink) -> Run {
        let work = Work { agent: self, sink, epoch: 0, hasty: false };
        Run(Box::pin(work.run()))
    }
}

/// Where streams go.
enum Sink {
    Queue(Queue),
    Forward(Forwarder),
}

/// The state of the loop.
struct Work {
    agent: Agent,
    sink: Sink,
    epoch: u64,
    // Whether the last retry had no delay and its link did not stand for long.
    hasty: bool,
}

/// A session that is agreed on, and its link.
struct Up {
    tunnel: Ending,
    driver: Driver,
}

/// Ends the session when dropped: a session does not outlive its link yet.
struct Ending(MuxTunnel);

/// How a link that was up went, for the pace of the next attempt.
#[derive(Debug, Clone, Copy, Default)]
struct Past {
    /// Streams that the server opened on it. Each is a counted message that got through, and none does before them.
    opened: u64,
    /// For how long it stood.
    stood: Duration,
}

impl Work {
    async fn run(mut self) -> Result<(), Error> {
        loop {
            self.agent.status.send_replace(AgentStatus::Connecting);
            let shutdown = self.agent.shutdown.clone();
            let attempt = tokio::select! {
                biased;
                _ = shutdown.asked() => return Ok(()),
                attempt = self.attempt() => attempt,
            };
            let (setback, past) = match attempt {
                Ok(up) => match self.serve(up).await {
                    (Some(setback), past) => (setback, past),
                    (None, _) => return Ok(()),
                },
                Err(setback) => {
                    metrics::record_agent_connect_failure(setback.error.kind().as_str());
                    (setback, Past::default())
                }
            };
            if setback.forked {
                self.agent.config.hello.instance = InstanceId::new(rand::random());
            }
            let Some(delay) = self.delay(&setback, past) else {
                warn!(key = %self.agent.config.key, told = ?setback.told, "another agent has taken the key; this one ends");
                return Err(setback.error);
            };
            self.tell(&setback, delay);
            tokio::select! {
                biased;
                _ = shutdown.asked() => return Ok(()),
                () = sleep(delay) => {}
            }
        }
    }

    /// One attempt, up to WELCOME.
    async fn attempt(&mut self) -> Result<Up, Setback> {
        let config = &self.agent.config;
        let connector = &mut *self.agent.connector;
        let reached = timeout(REACH_WITHIN, async {
            let token = caught("the token source panicked", config.token.ask()).await?;
            caught("the connector panicked", reach(connector, &config.uri, token)).await?
        });
        let mut link = reached.await.unwrap_or_else(|_| {
            Err(Setback::new(ErrorKind::Handshake, Retry::Backoff, "the server did not answer in time"))
        })?;
        let offer = establish::offer(&mut link, &config.hello, 0, WELCOME_WITHIN);
        let (welcome, has) = offer.await.map_err(Setback::by_establish)?;
        self.epoch += 1;
        let epoch = Epoch::new(self.epoch);
        let session = Session::new(Role::Agent, config.session.clone(), welcome.bounds, rand::random());
        let tunnel = Ending(MuxTunnel::new(session, epoch));
        match tunnel.0.link_up(link, epoch, has) {
            Ok(driver) => Ok(Up { tunnel, driver }),
            Err(mut refused) => {
                establish::refuse(&mut refused.link, refused.code, "").await;
                Err(Setback::by_end(LinkEnd::Violation(refused.code), None))
            }
        }
    }

    /// Serves a link until it ends. `None`: a shutdown is done.
    async fn serve(&mut self, up: Up) -> (Option<Setback>, Past) {
        let key = &self.agent.config.key;
        let since = Instant::now();
        info!(%key, "connected");
        self.agent.status.send_replace(AgentStatus::Connected { since });
        let Up { tunnel: Ending(ref tunnel), driver } = up;
        let mut driver = pin!(driver);
        let mut opened = 0;
        let end = tokio::select! {
            end = &mut driver => Some(end),
            never = self.sink.pump(tunnel, &mut opened) => match never {},
            () = drained(&self.agent.shutdown, tunnel) => None,
        };
        let past = Past { opened, stood: since.elapsed() };
        if let Some(end) = end {
            let ended = tunnel.ended();
            info!(%key, ?end, stood = ?past.stood, streams = opened, "the link ended");
            return (Some(Setback::by_end(end, ended.as_ref())), past);
        }
        self.sink.stop().await;
        tunnel.shutdown(CloseCode::DRAINED, "the agent shuts down");
        // A peer that acks nothing any more must not hold this up.
        let _ = timeout(CLOSE_WITHIN, driver).await;
        info!(%key, "shut down");
        (None, past)
    }

    /// How long to wait for the next attempt; `None` if there is none.
    fn delay(&mut self, setback: &Setback, past: Past) -> Option<Duration> {
        let backoff = &mut self.agent.config.backoff;
        let steady = past.stood >= STEADY;
        // A server that closes for cause right after some progress is not to be hurried.
        if steady || (past.opened > 0 && setback.retry != Retry::Backoff) {
            backoff.reset();
        }
        let random = rand::random();
        let delay = match setback.retry {
            Retry::Never => return None,
            // The exception to the jitter that a blip deserves, once: a link that breaks again and again right
            // after its first stream would be a storm of handshakes.
            Retry::AtOnce if past.opened > 0 && (steady || !self.hasty) => {
                self.hasty = true;
                return Some(setback.at_least);
            }
            Retry::AtOnce | Retry::Jitter | Retry::Backoff => backoff.next_delay(random),
            Retry::Slow => backoff.slow_delay(random),
        };
        self.hasty &= !steady;
        // Added, not the longer of both: those that were told the same time must not all come at it.
        Some(setback.at_least.saturating_add(delay))
    }

    /// Says what went wrong, to the log and by the status.
    fn tell(&self, setback: &Setback, delay: Duration) {
        let (cause, text, until) = (setback.error.kind(), setback.text(), Instant::now() + delay);
        warn!(key = %self.agent.config.key, cause = cause.as_str(), told = ?setback.told, retry_in = ?delay, "{text}");
        let text = text.into();
        self.agent.status.send_replace(match setback.retry {
            Retry::Slow => AgentStatus::Refused { until, cause, text },
            _ => AgentStatus::Waiting { until, cause, text },
        });
    }
}

impl Sink {
    /// Takes what the server opens; `opened` counts it. When the session has ended it waits for ever.
    async fn pump(&mut self, tunnel: &MuxTunnel, opened: &mut u64) -> std::convert::Infallible {
        match self {
            Self::Queue(queue) => queue.pump(tunnel, opened).await,
            Self::Forward(forwarder) => forwarder.pump(tunnel, opened).await,
        }
        std::future::pending().await
    }

    /// Ends what still runs, as far as it is ours.
    async fn stop(&mut self) {
        match self {
            Self::Queue(_) => {}
            Self::Forward(forwarder) => forwarder.stop().await,
        }
    }
}

/// What `code`, some of it the user's, gives. That it panicked is a failed attempt, not the end of the agent.
async fn caught<T>(what: &'static str, code: impl Future<Output = T>) -> Result<T, Setback> {
    let caught = AssertUnwindSafe(code).catch_unwind().await;
    caught.map_err(|_| Setback::new(ErrorKind::Internal, Retry::Backoff, what))
}

/// Resolves when a shutdown was asked for and nothing runs any more, or its time is up.
async fn drained(shutdown: &ShutdownHandle, tunnel: &MuxTunnel) {
    let drain = shutdown.asked().await;
    if drain.is_zero() {
        return;
    }
    tunnel.drain(CloseCode::DRAINED, drain, Duration::ZERO, "the agent shuts down");
    let asked = Instant::now();
    // Looked at, not told: a stream's last byte has many ways to go, and this happens once in a life. The time is
    // asked for again, since it may be shortened.
    while tunnel.stats().streams > 0 && asked.elapsed() < shutdown.asked().await {
        sleep(DRAIN_TICK).await;
    }
}

impl Future for Run {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end(SessionEnd::Lost);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.agent.status.send_replace(AgentStatus::Stopped);
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("config", &self.config).finish_non_exhaustive()
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").finish_non_exhaustive()
    }
}

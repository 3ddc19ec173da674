//! The one loop of an agent: connect, establish, drive, back off, again, until it is stopped or replaced.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tracing::{info, warn};

use super::{
    attempt::Server,
    config::{AgentBuilder, Config},
    connect::{BoxFuture, Connect},
    life::{CLOSE_WITHIN, Departed, Life, Teller, Up, far, pause_until},
    listener::{Listener, listener},
    pace::{Pace, Past},
    refusal::Setback,
    sink::Sink,
    status::{AgentStatus, ShutdownHandle},
    targets::Targets,
};
use crate::{
    error::Error,
    frame::{CloseCode, Hello, InstanceId},
    key::AgentKey,
    mux::PeerDrain,
    proto::Attempts,
};

/// Sessions that may finish beside the current one: the oldest is ended for one more. There is one for each server
/// that went down while a long stream ran.
const MAX_LEAVING: usize = 4;

/// The longest jitter that is heeded, as of `Retry-After`.
const MAX_JITTER: Duration = Duration::from_secs(600);

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

/// An agent at work. It resolves with `Ok` after a shutdown, and with
/// [`ErrorKind::Replaced`](crate::ErrorKind::Replaced) when another agent has taken the key; all else it retries.
///
/// # Cancel safety
/// Dropping it cuts the link without a word and ends the session on this side. The server holds the key in grace;
/// callers see their streams fail when that is over, or when the agent is started anew.
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
    ///
    /// A guard of the receiver, [`watch::Ref`], keeps the agent from telling the next status. Clone what it shows, as below,
    /// and let it go at once: an agent that has something to tell blocks its thread until then, and a thread that holds
    /// the guard and drops the [`Run`] waits for itself, forever.
    ///
    /// ```no_run
    /// # async fn example(agent: revdial::agent::Agent) -> Result<(), tokio::sync::watch::error::RecvError> {
    /// let mut status = agent.status();
    /// let now = status.borrow_and_update().clone();
    /// let then = status.wait_for(|status| *status != now).await?.clone();
    /// # drop(then);
    /// # Ok(())
    /// # }
    /// ```
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
        self.run(Sink::Forward(Arc::new(targets)))
    }

    fn run(self, sink: Sink) -> Run {
        let Self { config, connector, status, shutdown } = self;
        let (hello, pace) = (config.hello.clone(), Pace::new(config.backoff.clone()));
        let teller = Teller { server: Arc::new(Server::new(config, connector)), status, streams: Arc::default() };
        let work = Work { teller, sink, hello, pace, shutdown, leaving: Vec::new() };
        Run(Box::pin(work.run()))
    }
}

/// The state of the loop.
struct Work {
    teller: Teller,
    sink: Sink,
    hello: Hello,
    pace: Pace,
    shutdown: ShutdownHandle,
    /// Sessions that the server drains, oldest first.
    leaving: Vec<Life>,
}

/// What interrupts the loop.
enum Turn {
    /// The agent is to stop.
    Stop,
    /// A session has begun.
    Up(Box<Up>),
    /// The current session has ended.
    Departed(Box<Departed>),
    /// The server drains the current session; the next one is to come after so long.
    Next(PeerDrain),
    /// There is no reason to go on.
    Over(Error),
}

impl Work {
    async fn run(mut self) -> Result<(), Error> {
        let mut current: Option<Life> = None;
        let mut delay = Duration::ZERO;
        loop {
            let turn = match &mut current {
                Some(life) => until_turn(life, &self.shutdown, &mut self.leaving).await,
                None => self.begin(delay).await,
            };
            delay = Duration::ZERO;
            match turn {
                Turn::Stop => break,
                Turn::Over(error) => return Err(error),
                Turn::Up(up) => {
                    self.leaving.extend(current.take());
                    current = Some(self.start(*up));
                }
                Turn::Next(drain) => {
                    info!(key = %self.teller.server.key(), "the server drains: the next session is opened beside this one");
                    self.leaving.extend(current.take());
                    let surplus = self.leaving.len().saturating_sub(MAX_LEAVING);
                    self.leaving.drain(..surplus);
                    delay = drain.jitter.min(MAX_JITTER).mul_f64(rand::random());
                    if drain.code == CloseCode::STALE {
                        // Another process says that it is this one, as when a machine was copied.
                        let setback = Setback::by_code(CloseCode::STALE, "");
                        delay = delay.max(self.next_delay(setback, Past::default())?);
                    }
                }
                Turn::Departed(departed) => {
                    current = None;
                    let Departed { setback, past, pace, next } = *departed;
                    self.pace = pace;
                    match next {
                        Some(up) => current = Some(self.start(*up)),
                        None => delay = self.next_delay(setback, past)?,
                    }
                }
            }
        }
        self.shut_down(current).await;
        Ok(())
    }

    /// The life of a session that has begun: the current one from here on.
    fn start(&self, up: Up) -> Life {
        self.leaving.iter().for_each(Life::moved_on);
        info!(key = %self.teller.server.key(), "connected");
        Life::start(up, self.hello.clone(), self.pace.clone(), self.teller.clone(), &self.sink)
    }

    /// Begins a session, after `delay`; meanwhile those that leave go on.
    async fn begin(&mut self, delay: Duration) -> Turn {
        let mut leaving = std::mem::take(&mut self.leaving);
        let shutdown = self.shutdown.clone();
        let turn = tokio::select! {
            biased;
            _ = shutdown.asked() => Turn::Stop,
            up = beside(&mut leaving) => Turn::Up(up),
            begun = self.try_begin(delay) => match begun {
                Ok(up) => Turn::Up(Box::new(up)),
                Err(error) => Turn::Over(error),
            },
        };
        self.leaving = leaving;
        turn
    }

    async fn try_begin(&mut self, mut delay: Duration) -> Result<Up, Error> {
        let mut attempts = Attempts::default();
        loop {
            pause_until(far(Instant::now(), delay)).await;
            self.teller.status.send_replace(AgentStatus::Connecting);
            let server = Arc::clone(&self.teller.server);
            let begun = match server.attach(&mut attempts, &self.hello, 0).await {
                // Of a session that does not come about there is nothing to go on with.
                Ok(attached) => Up::new(&server, std::mem::take(&mut attempts), attached).await,
                Err(setback) => Err(setback),
            };
            match begun {
                Ok(up) => return Ok(up),
                Err(setback) => delay = self.next_delay(setback, Past::default())?,
            }
        }
    }

    /// How long to wait after a setback, which is told; the error if there is no next attempt.
    fn next_delay(&mut self, setback: Setback, past: Past) -> Result<Duration, Error> {
        if setback.forked {
            self.hello.instance = InstanceId::new(rand::random());
        }
        match self.pace.delay(&setback, past, Instant::now().into_std(), rand::random()) {
            Some(delay) => {
                self.teller.setback(&setback, delay, true);
                Ok(delay)
            }
            None => {
                let key = self.teller.server.key();
                warn!(%key, told = ?setback.told, "another agent has taken the key; this one ends");
                Err(setback.error)
            }
        }
    }

    /// Lets what runs finish in its time, and ends all sessions.
    async fn shut_down(&mut self, current: Option<Life>) {
        let asked = Instant::now();
        let mut lives = std::mem::take(&mut self.leaving);
        lives.extend(current);
        let drain = self.shutdown.asked().await;
        if !drain.is_zero() {
            lives.retain_mut(|life| life.drain(drain));
            let over = poll_fn(|cx| {
                lives.retain_mut(|life| Pin::new(life).poll(cx).is_pending());
                if lives.is_empty() { Poll::Ready(()) } else { Poll::Pending }
            });
            let streams = &self.teller.streams;
            tokio::select! {
                _ = async { tokio::join!(over, streams.idle()) } => {}
                () = self.shutdown.time_is_up(asked) => {}
            }
        }
        self.teller.streams.end();
        // The process may end after this, and what is not told by then is not told at all.
        let told = timeout(CLOSE_WITHIN, self.teller.streams.idle());
        let _ = tokio::join!(told, join_all(lives.into_iter().map(Life::finish)));
        info!(key = %self.teller.server.key(), "shut down");
    }
}

/// Serves the current session until something else is to be done; those that leave go on beside it.
async fn until_turn(life: &mut Life, shutdown: &ShutdownHandle, leaving: &mut Vec<Life>) -> Turn {
    tokio::select! {
        biased;
        _ = shutdown.asked() => Turn::Stop,
        drain = life.server_drains() => Turn::Next(drain),
        departed = &mut *life => Turn::Departed(Box::new(departed)),
        // A session that leaves has ended, and the server has begun another one in its place: it displaces ours.
        up = beside(leaving) => Turn::Up(up),
    }
}

/// Serves sessions that leave. Resolves if a server has begun a new session in the place of one of them.
async fn beside(leaving: &mut Vec<Life>) -> Box<Up> {
    poll_fn(|cx| {
        let mut next = None;
        leaving.retain_mut(|life| match Pin::new(life).poll(cx) {
            Poll::Ready(departed) => {
                next = departed.next.or(next.take());
                false
            }
            Poll::Pending => true,
        });
        next.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

impl Future for Run {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.teller.streams.end();
        self.teller.status.send_replace(AgentStatus::Stopped);
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

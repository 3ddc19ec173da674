//! One session of an agent, from its WELCOME to its end, over all its links.

use std::{
    future::poll_fn,
    panic,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tracing::{Instrument, Span, debug, info, warn};

use super::{
    attempt::{Attached, Server, Welcoming},
    connect::BoxFuture,
    dialback::{self, Streams},
    pace::{Pace, Past},
    refusal::{Retry, Setback},
    sink::Sink,
    status::AgentStatus,
};
use crate::{
    dialback::ControlLink,
    frame::{CloseCode, Hello, ResetCode},
    key::Epoch,
    link::{LinkEnd, MessageLink},
    mux::{BindError, Driver, MuxTunnel, PeerDrain, establish},
    proto::{Attempts, Role, Session, SessionEnd, Welcomed},
    spans,
};

/// How much longer than the server, which has its own clock of the loss and announces only the longest time, an agent
/// holds a session without a link; its dead-peer time comes on top, for which the server may not know of the loss yet.
const HOLD_MARGIN: Duration = Duration::from_secs(15);

/// How long the orderly end of a session may take once nothing runs any more.
pub(crate) const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// A new session, and its first link.
pub(crate) enum Up {
    /// Of the native protocol.
    Native { tunnel: Ending, driver: Driver, attempts: Attempts, hold: Duration },
    /// Of the dial-back protocol, whose sessions have one link only.
    Dialback(ControlLink),
}

/// Ends the session when dropped.
pub(crate) struct Ending(MuxTunnel);

/// How a session came to its end.
pub(crate) struct Departed {
    /// Why.
    pub(crate) setback: Setback,
    /// How its last link went.
    pub(crate) past: Past,
    /// The pace, with what it has learned.
    pub(crate) pace: Pace,
    /// The session that the server has begun in its place.
    pub(crate) next: Option<Box<Up>>,
}

/// One session at work: its links one after the other, and what takes its streams. Ends with the session; dropped, it
/// ends that without a word.
#[must_use = "a session makes no progress unless it is polled"]
pub(crate) struct Life {
    /// `None` of a dial-back session, which has no state beside its link.
    tunnel: Option<MuxTunnel>,
    links: BoxFuture<'static, Departed>,
    /// `None` once it has ended.
    pump: Option<BoxFuture<'static, ()>>,
    /// Dropped to stop the pump.
    stop: Option<oneshot::Sender<()>>,
    moved: watch::Sender<bool>,
}

/// What a life says about itself.
#[derive(Clone)]
pub(crate) struct Teller {
    pub(crate) server: Arc<Server>,
    pub(crate) status: watch::Sender<AgentStatus>,
    /// Streams of dial-back sessions, which outlive these.
    pub(crate) streams: Arc<Streams>,
}

impl Up {
    /// The new session of an attempt that did not resume one.
    pub(crate) async fn new(server: &Server, attempts: Attempts, attached: Attached) -> Result<Self, Setback> {
        let Welcoming { link, welcome, has, .. } = match attached {
            Attached::Native(welcoming) => welcoming,
            Attached::Dialback(link) => return Ok(Self::Dialback(link)),
        };
        let config = server.session();
        let session = Session::new(Role::Agent, config.clone(), welcome.bounds, rand::random());
        let max_hold = Duration::from_millis(welcome.max_hold_ms.into());
        // A server that keeps nothing has nothing to come back to.
        let (session, hold) = if max_hold.is_zero() {
            (session.without_resume(), max_hold)
        } else {
            (session, max_hold.saturating_add(config.dead_after).saturating_add(HOLD_MARGIN))
        };
        let tunnel = Ending(MuxTunnel::new(session, Epoch::new(0), server.session_span()));
        let driver = bind(&tunnel.0, Epoch::new(0), link, has).await?;
        Ok(Self::Native { driver, tunnel, attempts, hold })
    }
}

impl Life {
    /// Starts the life of a session.
    pub(crate) fn start(up: Up, hello: Hello, pace: Pace, teller: Teller, sink: &Sink) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (moved, moved_on) = watch::channel(false);
        let (driver, links) = match up {
            Up::Native { tunnel, driver, attempts, hold } => {
                (driver, Links { tunnel, attempts, hold, epoch: 0, hello, pace, teller, moved_on })
            }
            Up::Dialback(link) => {
                let span = spans::link(teller.server.key(), Epoch::new(0));
                let links = dialback::run(link, pace, teller, sink.clone(), stopped).instrument(span);
                return Self { tunnel: None, links: Box::pin(links), pump: None, stop: Some(stop), moved };
            }
        };
        let tunnel = links.tunnel.0.clone();
        let pump = sink.pump(tunnel.clone(), stopped);
        Self { tunnel: Some(tunnel), links: Box::pin(links.run(driver)), pump: Some(pump), stop: Some(stop), moved }
    }

    /// Resolves when the server drains the session, and there is to be a next one beside it.
    pub(crate) fn server_drains(&self) -> impl Future<Output = PeerDrain> + use<> {
        let tunnel = self.tunnel.clone();
        async move {
            let Some(tunnel) = tunnel else { return std::future::pending().await };
            let drain = tunnel.peer_drains().await;
            if drain.code == CloseCode::REPLACED {
                // Its end says the rest.
                return std::future::pending().await;
            }
            drain
        }
    }

    /// There is a newer session: this one finishes what runs on the link that it has, and asks for no other. The server
    /// that would answer is the newer one's.
    pub(crate) fn moved_on(&self) {
        self.moved.send_replace(true);
    }

    /// Has the server open nothing new and what runs finish. False: there is nothing to wait for.
    pub(crate) fn drain(&mut self, drain: Duration) -> bool {
        let Some(tunnel) = &self.tunnel else {
            // It knows no word for it: its link is closed, and what runs has connections of its own.
            drop(self.stop.take());
            return true;
        };
        // Asked before: an idle session can end at once, and its link has words to say all the same.
        let up = tunnel.up_since().is_some();
        tunnel.drain(CloseCode::DRAINED, drain, Duration::ZERO, "the agent shuts down");
        up || tunnel.stats().streams > 0
    }

    /// Ends what still runs, and then the session, in order if it has a link.
    pub(crate) async fn finish(mut self) {
        // Asked before: the link is given up as soon as CLOSE is its last word.
        let up = self.tunnel.as_ref().is_none_or(|tunnel| tunnel.up_since().is_some());
        drop(self.stop.take());
        if let Some(pump) = self.pump.take() {
            pump.await;
        }
        if let Some(tunnel) = &self.tunnel {
            tunnel.reset_all(ResetCode::SHUTDOWN, "the agent shuts down");
            tunnel.shutdown(CloseCode::DRAINED, "the agent shuts down");
        }
        if up {
            // A peer that acks nothing any more must not hold this up.
            let _ = timeout(CLOSE_WITHIN, self.links).await;
        }
    }
}

impl Future for Life {
    type Output = Departed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Departed> {
        if let Some(pump) = &mut self.pump
            && pump.as_mut().poll(cx).is_ready()
        {
            self.pump = None;
        }
        self.links.as_mut().poll(cx)
    }
}

/// The links of one session.
struct Links {
    tunnel: Ending,
    attempts: Attempts,
    hold: Duration,
    epoch: u64,
    hello: Hello,
    pace: Pace,
    teller: Teller,
    moved_on: watch::Receiver<bool>,
}

impl Links {
    async fn run(mut self, mut driver: Driver) -> Departed {
        loop {
            let since = Instant::now();
            self.tell(AgentStatus::Connected { since });
            if self.epoch > 0 {
                info!(key = %self.hello_key(), "connected again, and the session goes on");
            }
            let end;
            let span = spans::link(self.hello_key(), Epoch::new(self.epoch));
            (end, driver) = until_unbound(driver, span).await;
            let tunnel = &self.tunnel.0;
            let past = Past { progress: tunnel.progress(), stood: since.elapsed() };
            let ended = tunnel.ended();
            debug!(key = %self.hello_key(), ?end, ?ended, stood = ?past.stood, "the link ended");
            let setback = match tunnel.peer_drain() {
                // Said before, and true however the session ends.
                Some(drain) if drain.code == CloseCode::REPLACED => Setback::by_code(CloseCode::REPLACED, ""),
                _ => Setback::by_end(end, ended.as_ref()),
            };
            if ended.is_some() || setback.forked || setback.retry == Retry::Never || self.hold.is_zero() {
                driver.await;
                return self.depart(setback, past, None);
            }
            driver = match self.attach(driver, setback, past).await {
                Ok(driver) => driver,
                Err(departed) => return *departed,
            };
        }
    }

    /// Gets the session a new link, as long as it is held. Until then, and no longer, `old` has time for its farewell.
    async fn attach(&mut self, old: Driver, mut setback: Setback, mut past: Past) -> Result<Driver, Box<Departed>> {
        let mut old = Some(old);
        let deadline = far(Instant::now(), self.hold);
        loop {
            let Some(delay) = self.pace.delay(&setback, past, Instant::now().into_std(), rand::random()) else {
                return Err(Box::new(self.depart(setback, past, None)));
            };
            self.teller.setback(&setback, delay, self.is_current());
            let mut moved_on = self.moved_on.clone();
            let attempt = async {
                let until = far(Instant::now(), delay);
                match old.take() {
                    // A timer for no time at all would wait for its next tick.
                    Some(old) if delay.is_zero() => drop(old.now_or_never()),
                    Some(old) => drop(timeout_at(until, old).await),
                    None => {}
                }
                pause_until(until).await;
                self.tell(AgentStatus::Connecting);
                let has = self.tunnel.0.received();
                self.teller.server.attach(&mut self.attempts, &self.hello, has).await
            };
            let attempt = tokio::select! {
                attempt = timeout_at(deadline, attempt) => attempt.ok(),
                Ok(_) = moved_on.wait_for(|moved| *moved) => None,
            };
            // Dropped midway, with its link.
            let Some(attempt) = attempt else { return Err(Box::new(self.depart(lost(), past, None))) };
            match attempt {
                Ok(Attached::Native(Welcoming { link, has, welcomed: Welcomed::Resumed, .. })) => {
                    self.epoch += 1;
                    let bound = bind(&self.tunnel.0, Epoch::new(self.epoch), link, has).await;
                    return bound.map_err(|setback| Box::new(self.depart(setback, past, None)));
                }
                Ok(attached) => {
                    // The old streams fail before the new session has any.
                    self.tunnel.0.end(SessionEnd::Lost);
                    let up = Up::new(&self.teller.server, self.attempts.clone(), attached).await;
                    return Err(Box::new(match up {
                        Ok(up) => self.depart(lost(), past, Some(Box::new(up))),
                        Err(setback) => self.depart(setback, past, None),
                    }));
                }
                Err(next) if next.forked => return Err(Box::new(self.depart(next, past, None))),
                Err(next) => (setback, past) = (next, Past::default()),
            }
        }
    }

    fn depart(&self, setback: Setback, past: Past, next: Option<Box<Up>>) -> Departed {
        let end = if setback.retry == Retry::Never { SessionEnd::Replaced } else { SessionEnd::Lost };
        self.tunnel.0.end(end);
        Departed { setback, past, pace: self.pace.clone(), next }
    }

    /// Whether this is the session in which the server opens streams.
    fn is_current(&self) -> bool {
        self.tunnel.0.peer_drain().is_none() && !*self.moved_on.borrow()
    }

    fn tell(&self, status: AgentStatus) {
        if self.is_current() {
            self.teller.status.send_replace(status);
        }
    }

    fn hello_key(&self) -> &crate::key::AgentKey {
        self.teller.server.key()
    }
}

impl Teller {
    /// Says what went wrong, to the log, and by the status if that is of the current session.
    pub(crate) fn setback(&self, setback: &Setback, delay: Duration, current: bool) {
        let (cause, text, until) = (setback.error.kind(), setback.text(), far(Instant::now(), delay));
        warn!(key = %self.server.key(), cause = cause.as_str(), told = ?setback.told, retry_in = ?delay, "{text}");
        if current {
            let text = text.into();
            self.status.send_replace(match setback.retry {
                Retry::Slow => AgentStatus::Refused { until, cause, text },
                _ => AgentStatus::Waiting { until, cause, text },
            });
        }
    }
}

/// Drives the link until it is not the bound one any more, in a task of its own, which ends with this future: each
/// message that comes wakes it, and nothing else of the agent.
async fn until_unbound(mut driver: Driver, span: Span) -> (LinkEnd, Driver) {
    let mut task = JoinSet::new();
    let driving = async move {
        let end = poll_fn(|cx| driver.poll_unbound(cx)).await;
        (end, driver)
    };
    task.spawn(driving.instrument(span));
    match task.join_next().await {
        Some(Ok(unbound)) => unbound,
        Some(Err(failed)) if failed.is_panic() => panic::resume_unwind(failed.into_panic()),
        // The runtime goes down, and this task with it.
        _ => std::future::pending().await,
    }
}

/// Binds a link whose server has so many messages of the session. One that cannot be is closed with the code.
async fn bind(tunnel: &MuxTunnel, epoch: Epoch, mut link: MessageLink, has: u64) -> Result<Driver, Setback> {
    match tunnel.bind(epoch, has).wake() {
        Ok(bound) => Ok(Driver::new(link, bound)),
        Err(BindError::Violation(violation)) => {
            establish::refuse(&mut link, violation.code(), violation.rule()).await;
            Err(Setback::by_violation(violation))
        }
        Err(BindError::Stale | BindError::Ended) => Err(lost()),
    }
}

/// Waits until then; at once, and not at the timer's next tick, if that is past.
pub(crate) async fn pause_until(until: Instant) {
    if until > Instant::now() {
        sleep_until(until).await;
    }
}

/// `now` and so much; a time that the clock cannot tell is never reached.
pub(super) fn far(now: Instant, after: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    now.checked_add(after).unwrap_or(now + CENTURY)
}

/// The session is gone for good, and the next attempt asks for a new one.
fn lost() -> Setback {
    Setback::by_end(LinkEnd::Lost, Some(&SessionEnd::Lost))
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end(SessionEnd::Lost);
    }
}

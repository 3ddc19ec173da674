//! The server's side: dials ask the agent for connections, and pick-ups are matched to the one dial that asked.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::{
    control_link::{ControlEnd, ControlLink},
    pending::{Id, Pending},
    tie::{Tie, Ties},
};
use crate::{
    error::Error,
    frame::CloseCode,
    key::{AgentKey, Epoch},
    link::LinkEnd,
    metrics::{self, Direction},
    proto::{SessionEnd, SessionStats},
    spans::SessionSpan,
};

mod driver;
mod known;
mod opening;
#[cfg(test)]
mod tests;

use driver::Driver;

pub(crate) use known::{Dialers, Orphans};
#[cfg(feature = "server")]
pub(crate) use opening::Claim;
pub(crate) use opening::Opening;

/// Dials of one agent that may wait for their pick-ups: as many as opens of the native protocol.
const MAX_PENDING: usize = 256;

/// The handle by which streams are asked of an agent. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct DialbackTunnel(Arc<Shared>);

/// What all handles of a tunnel share.
struct Shared {
    dialers: Arc<Dialers>,
    id: Id,
    key: AgentKey,
    principal: String,
    ties: Arc<Ties>,
    span: SessionSpan,
    state: Mutex<State>,
}

/// What a dial is told: its connection is about to come, or does not.
type Answer = Result<Tie, Error>;

struct State {
    pending: Pending<oneshot::Sender<Answer>>,
    /// Dials that the agent is not asked for yet.
    unasked: VecDeque<Id>,
    up_since: Option<Instant>,
    rtt: Option<Duration>,
    /// Nothing new is opened.
    draining: bool,
    ended: Option<SessionEnd>,
    /// The control link is to be closed so.
    closing: Option<(CloseCode, String)>,
    /// The control link's task.
    driver: Option<Waker>,
}

impl DialbackTunnel {
    /// The tunnel of an agent whose control link is about to be driven.
    pub(crate) fn new(dialers: &Arc<Dialers>, key: AgentKey, principal: String, epoch: Epoch) -> Self {
        let id = Id::new(rand::random());
        let state = State {
            pending: Pending::new(MAX_PENDING),
            unasked: VecDeque::new(),
            up_since: Some(Instant::now()),
            rtt: None,
            draining: false,
            ended: None,
            closing: None,
            driver: None,
        };
        let span = SessionSpan::new(key.clone(), epoch.number());
        let (dialers, ties, state) = (Arc::clone(dialers), Arc::default(), Mutex::new(state));
        let shared = Arc::new(Shared { dialers, id, key, principal, ties, span, state });
        shared.dialers.lock().tunnels.insert(id, Arc::downgrade(&shared));
        Self(shared)
    }

    /// Whose agent it is.
    pub(crate) fn key(&self) -> &AgentKey {
        &self.0.key
    }

    /// On whose behalf it came.
    pub(crate) fn principal(&self) -> &str {
        &self.0.principal
    }

    /// Since when there is a control link.
    pub(crate) fn up_since(&self) -> Option<std::time::Instant> {
        self.0.lock().up_since.map(Instant::into_std)
    }

    /// Whether nothing new is opened here any more.
    pub(crate) fn is_draining(&self) -> bool {
        let state = self.0.lock();
        state.draining || state.ended.is_some()
    }

    /// Opens nothing new and closes the control link; what runs goes on.
    pub(crate) fn drain(&self, code: CloseCode, reason: &str) {
        self.0.stop(|state| {
            state.draining = true;
            state.closing.get_or_insert_with(|| (code, reason.to_owned()));
        });
    }

    /// Ends it, streams included; and if the agent's leave is over, those of its earlier tunnels, too.
    pub(crate) fn close(&self, code: CloseCode, reason: &str, end: SessionEnd) {
        let kind = Error::from(end.clone()).kind();
        if end == SessionEnd::Revoked {
            self.0.dialers.end_orphans(Orphans::Of(&self.0.owner()), kind);
        }
        // Whoever was replaced and left its streams alone, leaves them alone.
        let spares_streams = end == SessionEnd::Replaced && self.ended() == Some(SessionEnd::Replaced);
        self.0.stop(|state| {
            state.ended.get_or_insert(end);
            state.closing.get_or_insert_with(|| (code, reason.to_owned()));
        });
        if !spares_streams {
            self.0.ties.cut(kind);
        }
    }

    /// Ends it, and closes the control link; streams have connections of their own, and go on.
    pub(crate) fn end(&self, end: SessionEnd) {
        let code = if end == SessionEnd::Replaced { CloseCode::REPLACED } else { CloseCode::DRAINED };
        self.0.stop(|state| {
            state.ended.get_or_insert(end);
            state.closing.get_or_insert_with(|| (code, String::new()));
        });
        // Now, and not when its link has ended: nobody else knows of its streams from here on.
        self.0.dialers.lock().adopt(&self.0);
    }

    /// Why it ended, if it did.
    pub(crate) fn ended(&self) -> Option<SessionEnd> {
        self.0.lock().ended.clone()
    }

    /// Resolves when no stream is left.
    pub(crate) async fn idle(&self) {
        self.0.ties.idle().await;
    }

    /// Its counts.
    pub(crate) fn stats(&self) -> SessionStats {
        let (rtt, waiting) = {
            let state = self.0.lock();
            (state.rtt, state.pending.len())
        };
        SessionStats {
            streams: self.0.ties.len().saturating_add(waiting),
            sent_bytes: self.0.ties.bytes(Direction::Sent),
            received_bytes: self.0.ties.bytes(Direction::Received),
            rtt,
            ..SessionStats::default()
        }
    }

    /// Drives the control link until its end; dials that wait for a pick-up then fail as those of a lost session do.
    ///
    /// # Cancel safety
    /// Dropping it is the loss of the control link.
    pub(crate) async fn drive(&self, link: &mut ControlLink) -> ControlEnd {
        self.0.span.get();
        let mut driver = Driver::new(&self.0, link);
        poll_fn(|cx| driver.poll(cx)).await
    }

    /// What the control link is closed with, in words.
    pub(crate) fn closing_reason(&self) -> String {
        self.0.lock().closing.as_ref().map_or_else(String::new, |(_, reason)| reason.clone())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f` under the lock, then wakes the control link's task.
    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = f(&mut state);
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    /// Runs `f`, which stops the tunnel, under the lock; then dials that wait fail, in their order.
    fn stop(&self, f: impl FnOnce(&mut State)) {
        let (waiting, error) = self.with(|state| {
            f(state);
            state.unasked.clear();
            (state.pending.take_all(), state.ended.clone().unwrap_or(SessionEnd::Shutdown))
        });
        for sender in waiting {
            let _ = sender.send(Err(Error::from(error.clone()).unsent()));
        }
    }

    /// The control link has ended.
    fn on_link_end(&self, end: LinkEnd) {
        metrics::record_close(end.as_str());
        self.stop(|state| {
            state.up_since = None;
            if !state.draining {
                state.ended.get_or_insert(match end {
                    LinkEnd::Local(_) => SessionEnd::Shutdown,
                    _ => SessionEnd::Lost,
                });
            }
        });
        self.dialers.lock().adopt(self);
    }

    fn owner(&self) -> (AgentKey, String) {
        (self.key.clone(), self.principal.clone())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut known = self.dialers.lock();
        known.tunnels.remove(&self.id);
        known.adopt(self);
        known.sweep();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialbackTunnel").field("key", &self.key).finish_non_exhaustive()
    }
}

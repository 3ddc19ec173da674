//! The handle to a session: opens and takes streams, binds links, ends it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

#[cfg(feature = "server")]
use super::budget::{Budget, Charge};
use super::{
    bound::{Bound, now},
    opening::Opening,
    shared::{Asleep, Deferred, Shared},
    state::{BindError, PeerDrain, State, Waiters},
    stream::MuxStream,
};
use crate::{
    error::{Error, ErrorKind},
    frame::{CloseCode, Metadata, ResetCode},
    key::{Epoch, TargetName},
    proto::{Incoming, Session, SessionEnd, SessionStats},
    spans::SessionSpan,
};

/// A cloneable handle to one session.
#[derive(Debug, Clone)]
pub(crate) struct MuxTunnel {
    shared: Arc<Shared>,
}

impl MuxTunnel {
    /// A handle to `session`, whose first link will have `epoch`.
    pub(crate) fn new(session: Session, epoch: Epoch, span: SessionSpan) -> Self {
        Self { shared: Shared::new(session, epoch, span) }
    }

    /// Binds the link with `epoch`, which is higher than that of the last one, if it may be; `peer_has` is from HELLO or
    /// WELCOME. From here on the driver of the link before is superseded. Wakes nobody yet, since it may be called under
    /// the lock of the registry.
    pub(crate) fn bind(&self, epoch: Epoch, peer_has: u64) -> Deferred<Result<Bound, BindError>> {
        self.shared.deferred(|state| {
            let found = state.bind(now(), epoch, peer_has)?;
            Ok(Bound::new(Arc::clone(&self.shared), epoch, found))
        })
    }

    /// Charges what the session holds while it has no link.
    #[cfg(feature = "server")]
    pub(crate) fn charge_to(&self, budget: &Arc<Budget>) {
        self.shared.with(|state| state.charge = Some(Charge::new(Arc::clone(budget))));
    }

    /// Since when there is a link; `None`: there is none.
    pub(crate) fn up_since(&self) -> Option<Instant> {
        self.shared.with(|state| state.up_since())
    }

    /// Whether the peer has said anything on the present link, or on the last one if there is none.
    pub(crate) fn heard(&self) -> bool {
        self.shared.with(|state| state.session.heard())
    }

    /// Whether a counted message or an ack got through on the present link, or on the last one if there is none.
    pub(crate) fn progress(&self) -> bool {
        self.shared.with(|state| state.session.progress())
    }

    /// How many counted messages of the peer this side has: what HELLO tells.
    #[cfg(feature = "agent")]
    pub(crate) fn received(&self) -> u64 {
        self.shared.with(|state| state.session.received())
    }

    /// Whether nothing new is opened here any more.
    pub(crate) fn is_draining(&self) -> bool {
        self.shared.with(|state| state.session.is_draining())
    }

    /// Resolves when the peer says that it drains; at once if it has.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub(crate) async fn peer_drains(&self) -> PeerDrain {
        self.until(State::drains, |state| state.peer_drain()).await
    }

    /// What the peer has said in DRAIN, if it drains.
    pub(crate) fn peer_drain(&self) -> Option<PeerDrain> {
        self.shared.with(|state| state.peer_drain())
    }

    /// Opens a stream; waits for ACCEPT unless `early_data`. Waits, too, while too many opens are unanswered.
    pub(crate) fn open(&self, target: TargetName, metadata: Metadata, early_data: bool) -> Opening {
        Opening::new(Arc::clone(&self.shared), target, metadata, early_data)
    }

    /// The next stream that the peer opens; `Err` with the session's end.
    ///
    /// # Cancel safety
    /// No stream is lost when the future is dropped.
    pub(crate) async fn incoming(&self) -> Result<MuxIncoming, Error> {
        let incoming = self
            .until(State::incoming, |state| match state.session.incoming() {
                Some(incoming) => Some(Ok(incoming)),
                None => state.session.ended().cloned().map(Err),
            })
            .await?;
        self.shared.begin();
        Ok(MuxIncoming { shared: Some(Arc::clone(&self.shared)), incoming })
    }

    /// Orderly end: nothing new; once all is sent and acked, CLOSE with `code`.
    pub(crate) fn shutdown(&self, code: CloseCode, reason: &str) {
        self.shared.with(|state| {
            state.closes_with(code, reason);
            state.session.shutdown(code, reason);
        });
    }

    /// Has the peer see every stream reset that still runs; here they fail since this side goes down.
    #[cfg(feature = "agent")]
    pub(crate) fn reset_all(&self, code: ResetCode, reason: &str) {
        self.shared.with(|state| state.session.reset_all(code, reason));
    }

    /// Tells the peer to open nothing new here and to connect anew after a random part of `jitter`; what still runs
    /// at the deadline is cut off by whoever calls this.
    pub(crate) fn drain(&self, code: CloseCode, deadline: Duration, jitter: Duration, reason: &str) {
        self.shared.with(|state| {
            // It closes itself when nothing runs any more. One that was replaced ends as if its peer had closed it.
            if code != CloseCode::REPLACED {
                state.closes_with(code, reason);
            }
            state.session.drain(code, deadline, jitter, reason);
        });
    }

    /// Ends the session now: CLOSE goes out if a link is there; streams fail with `end`.
    pub(crate) fn close(&self, code: CloseCode, reason: &str, end: SessionEnd) {
        self.shared.with(|state| {
            state.closes_with(code, reason);
            state.session.close(code, reason, end);
        });
    }

    /// Ends the session now, without CLOSE.
    pub(crate) fn end(&self, end: SessionEnd) {
        self.shared.with(|state| {
            state.closes_with(code_of(&end), "");
            state.session.end(end);
        });
    }

    /// Why the session ended, if it did.
    pub(crate) fn ended(&self) -> Option<SessionEnd> {
        self.shared.with(|state| state.session.ended().cloned())
    }

    /// Resolves when the session ended.
    #[cfg(test)]
    pub(crate) async fn closed(&self) -> SessionEnd {
        self.until(State::ended, |state| state.session.ended().cloned()).await
    }

    /// Counts of the session.
    pub(crate) fn stats(&self) -> SessionStats {
        self.shared.with(|state| state.session.stats())
    }

    fn until<T, F>(&self, of: fn(&mut State) -> &mut Waiters, find: F) -> Until<'_, F>
    where
        F: FnMut(&mut State) -> Option<T> + Unpin,
    {
        Until { shared: &self.shared, of, ticket: None, asleep: Asleep::default(), find }
    }
}

impl State {
    /// Notes with which code this side closes the link, unless the session has ended already.
    fn closes_with(&mut self, code: CloseCode, reason: &str) {
        if self.session.ended().is_none() {
            self.closing = Some((code, reason.into()));
        }
    }
}

/// Waits until `find` finds something under the lock.
struct Until<'a, F> {
    shared: &'a Shared,
    of: fn(&mut State) -> &mut Waiters,
    ticket: Option<u64>,
    asleep: Asleep,
    find: F,
}

impl<T, F> Future for Until<'_, F>
where
    F: FnMut(&mut State) -> Option<T> + Unpin,
{
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Self { shared, of, ticket, asleep, find } = self.get_mut();
        let round = &shared.rounds().sets;
        // Its task was woken for another future: the driver of a link, as a rule.
        if asleep.is_asleep(round, cx.waker()) {
            return Poll::Pending;
        }
        shared.with(|state| match find(state) {
            Some(found) => Poll::Ready(found),
            None => {
                state.wait_in(*of, ticket, cx.waker());
                state.drop_later(asleep.fall_asleep(round, cx.waker()));
                Poll::Pending
            }
        })
    }
}

impl<F> Drop for Until<'_, F> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shared.with(|state| state.leave(self.of, ticket));
        }
    }
}

/// A stream that the peer opened. Dropping it refuses with `CANCELLED`.
#[derive(Debug)]
pub(crate) struct MuxIncoming {
    /// `None` once it is answered.
    shared: Option<Arc<Shared>>,
    incoming: Incoming,
}

impl MuxIncoming {
    /// What the peer wants to reach.
    pub(crate) fn target(&self) -> &TargetName {
        &self.incoming.target
    }

    /// Takes the stream. `Err` if the peer has given it up meanwhile, or the session ended.
    pub(crate) fn accept(mut self) -> Result<MuxStream, Error> {
        let Some(shared) = self.shared.take() else { return Err(Error::new(ErrorKind::Internal)) };
        let id = self.incoming.stream;
        shared.with(|state| state.session.accept(id))?;
        shared.begin();
        Ok(MuxStream::new(shared, id))
    }

    /// Turns it down.
    pub(crate) fn refuse(mut self, code: ResetCode, reason: &str) {
        self.answer_reset(code, reason);
    }

    fn answer_reset(&mut self, code: ResetCode, reason: &str) {
        if let Some(shared) = self.shared.take() {
            shared.with(|state| state.session.reset(self.incoming.stream, code, reason));
        }
    }
}

impl Drop for MuxIncoming {
    fn drop(&mut self) {
        self.answer_reset(ResetCode::CANCELLED, "");
    }
}

/// With which code a link is closed whose session ends without CLOSE.
fn code_of(end: &SessionEnd) -> CloseCode {
    match end {
        SessionEnd::Replaced => CloseCode::REPLACED,
        SessionEnd::Violation(violation) | SessionEnd::Unresumable(violation) => violation.code(),
        SessionEnd::ClosedByPeer { code, .. } => *code,
        SessionEnd::Shutdown => CloseCode::DRAINED,
        SessionEnd::Revoked => CloseCode::CREDENTIALS,
        SessionEnd::Internal => CloseCode::INTERNAL,
        // The peer is to come back.
        SessionEnd::Lost => CloseCode::DEAD_PEER,
    }
}

#[cfg(test)]
impl MuxTunnel {
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }
}

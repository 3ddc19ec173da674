//! Which link may act on the session: at most one, and never an older one than before.

use std::time::Instant;

use super::State;
use crate::{key::Epoch, proto::Violation};

/// Why a link is not bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BindError {
    /// A newer one is, or was.
    Stale,
    /// The session has ended.
    Ended,
    /// What the peer says it has cannot be, or it never takes anything; the session ends with that.
    Violation(Violation),
}

/// Which link may act on the session. Epochs only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkSlot {
    /// None yet; from this epoch on, the first that comes.
    Awaited(Epoch),
    /// This one.
    Bound(Epoch),
    /// None since this one; a later one may.
    Gone(Epoch),
}

impl State {
    /// Binds the link with `epoch`: from here on the driver of the one before is superseded. Gives how many counted
    /// messages of the peer this side has, in the same critical section, so that nothing is handled in between; and
    /// whether the peer had spoken on the link before.
    pub(in crate::mux) fn bind(&mut self, now: Instant, epoch: Epoch, peer_has: u64) -> Result<(u64, bool), BindError> {
        if self.session.ended().is_some() {
            return Err(BindError::Ended);
        }
        let newer = match self.link {
            LinkSlot::Awaited(first) => epoch >= first,
            LinkSlot::Bound(last) | LinkSlot::Gone(last) => epoch > last,
        };
        if !newer {
            return Err(BindError::Stale);
        }
        if let LinkSlot::Bound(_) = self.link {
            self.session.link_down(now);
        }
        self.unpark();
        self.dead = false;
        self.link = LinkSlot::Gone(epoch);
        let heard = self.session.heard();
        self.session.link_up(now, peer_has).map_err(BindError::Violation)?;
        self.link = LinkSlot::Bound(epoch);
        self.up_since = Some(now);
        Ok((self.session.received(), heard))
    }

    /// The bound link is gone. A later one may be bound.
    pub(in crate::mux) fn unbind(&mut self, now: Instant) {
        if let LinkSlot::Bound(epoch) = self.link {
            self.link = LinkSlot::Gone(epoch);
            self.session.link_down(now);
            self.up_since = None;
        }
        self.after.discard(self.driver.take().map(|parked| parked.waker));
    }

    /// Whether the link with `epoch` is the bound one.
    pub(in crate::mux) fn is_bound(&self, epoch: Epoch) -> bool {
        self.link == LinkSlot::Bound(epoch)
    }

    /// Since when there is a link; `None`: there is none.
    pub(in crate::mux) fn up_since(&self) -> Option<Instant> {
        self.up_since
    }
}

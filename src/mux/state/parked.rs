//! The driver while it has nothing to do, and what wakes it.

use std::{task::Waker, time::Instant};

use super::State;

/// A driver that has nothing to do.
pub(super) struct Parked {
    pub(super) waker: Waker,
    /// Its link takes a message. If not, the link wakes it, and new data would only do so in vain.
    room: bool,
    /// When it wakes up by itself.
    timeout: Option<Instant>,
}

impl State {
    /// Has the driver woken when there is something to send and its link has `room`, when a deadline comes to lie
    /// before the present one, which this gives, and when the session ends or another link is bound.
    pub(in crate::mux) fn park(&mut self, waker: &Waker, room: bool) -> Option<Instant> {
        let timeout = self.session.poll_timeout();
        match &mut self.driver {
            Some(parked) if parked.waker.will_wake(waker) => (parked.room, parked.timeout) = (room, timeout),
            driver => {
                let old = driver.replace(Parked { waker: waker.clone(), room, timeout });
                self.after.discard(old.map(|old| old.waker));
            }
        }
        timeout
    }

    /// Has the driver woken if there is something for it to do.
    pub(in crate::mux) fn unpark_if_due(&mut self) {
        let Some(parked) = &self.driver else { return };
        let earlier = || self.session.poll_timeout().is_some_and(|due| parked.timeout.is_none_or(|armed| due < armed));
        if (parked.room && self.session.wants_transmit()) || earlier() {
            self.unpark();
        }
    }

    /// The same after what sets no deadline.
    pub(in crate::mux) fn unpark_to_send(&mut self) {
        if self.driver.as_ref().is_some_and(|parked| parked.room) && self.session.wants_transmit() {
            self.unpark();
        }
    }

    /// Has the driver woken, if it is parked.
    #[inline]
    pub(super) fn unpark(&mut self) {
        self.after.wake(self.driver.take().map(|parked| parked.waker));
    }
}

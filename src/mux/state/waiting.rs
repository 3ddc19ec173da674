//! Who waits for what: for one stream, or in a set with others.

use std::{
    mem,
    sync::{Arc, atomic::AtomicU64},
    task::Waker,
};

use super::State;
use crate::frame::StreamId;

/// How often those who wait were woken, readable without the lock: a future whose task was woken for something else
/// need not take it to find that it was not meant.
#[derive(Debug, Default)]
pub(in crate::mux) struct Rounds {
    /// Those who wait in a set.
    pub(in crate::mux) sets: AtomicU64,
    /// Readers of streams.
    pub(in crate::mux) reads: AtomicU64,
}

/// Who waits for one stream.
#[derive(Default)]
pub(super) struct Slots {
    pub(super) read: Option<Waker>,
    pub(super) write: Option<Waker>,
    pub(super) answer: Option<Waker>,
    pub(super) stopped: Option<Waker>,
}

/// For what a task waits on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mux) enum Wait {
    /// Bytes, the end or an error.
    Read,
    /// Room or an error.
    Write,
    /// The answer to an open.
    Answer,
    /// The peer's word that it reads no more.
    Stopped,
}

/// Wakers of futures that wait for the same thing, sorted by ticket, so that a dropped future leaves nothing behind. It is
/// one, as a rule.
#[derive(Default)]
pub(in crate::mux) struct Waiters(Vec<(u64, Waker)>);

impl State {
    /// Has `waker` woken when `stream` has what is waited for. Only the last one is.
    pub(in crate::mux) fn wait(&mut self, stream: StreamId, wait: Wait, waker: &Waker) {
        let Some(slots) = self.streams.get_mut(stream) else {
            let mut slots = Slots::default();
            *slots.of(wait) = Some(waker.clone());
            self.streams.insert(stream, slots);
            return;
        };
        let slot = slots.of(wait);
        if !slot.as_ref().is_some_and(|old| old.will_wake(waker)) {
            self.after.discard(slot.replace(waker.clone()));
        }
    }

    /// Nobody waits for `stream` any more: its handle is gone.
    pub(in crate::mux) fn forget(&mut self, stream: StreamId) {
        if let Some(slots) = self.streams.remove(stream) {
            self.after.discard(slots.into_wakers());
        }
    }

    /// Has `waker` woken once for the set that `of` picks; `ticket` is filled on the first call.
    pub(in crate::mux) fn wait_in(
        &mut self,
        of: fn(&mut Self) -> &mut Waiters,
        ticket: &mut Option<u64>,
        waker: &Waker,
    ) {
        let ticket = match *ticket {
            Some(ticket) => ticket,
            None => *ticket.insert(self.ticket()),
        };
        let old = of(self).set(ticket, waker.clone());
        self.after.discard(old);
    }

    /// Undoes [`wait_in`](Self::wait_in).
    pub(in crate::mux) fn leave(&mut self, of: fn(&mut Self) -> &mut Waiters, ticket: u64) {
        let old = of(self).remove(ticket);
        self.after.discard(old);
    }

    /// Drops a waker once the lock is released, since that may run code that takes it.
    pub(in crate::mux) fn drop_later(&mut self, waker: Option<Waker>) {
        self.after.discard(waker);
    }

    /// How often those who wait were woken.
    pub(in crate::mux) fn rounds(&self) -> Arc<Rounds> {
        Arc::clone(&self.rounds)
    }

    /// Who waits for a stream of the peer's.
    pub(in crate::mux) fn incoming(&mut self) -> &mut Waiters {
        &mut self.incoming
    }

    /// Who waits for the peer's DRAIN.
    pub(in crate::mux) fn drains(&mut self) -> &mut Waiters {
        &mut self.drains
    }

    /// Who waits for the end of the session.
    #[cfg(test)]
    pub(in crate::mux) fn ended(&mut self) -> &mut Waiters {
        &mut self.ended
    }
}

impl Waiters {
    /// Gives the waker that this ticket had.
    fn set(&mut self, ticket: u64, waker: Waker) -> Option<Waker> {
        match self.0.binary_search_by_key(&ticket, |(ticket, _)| *ticket) {
            Ok(at) => self.0.get_mut(at).map(|(_, old)| mem::replace(old, waker)),
            Err(at) => {
                self.0.insert(at, (ticket, waker));
                None
            }
        }
    }

    fn remove(&mut self, ticket: u64) -> Option<Waker> {
        let at = self.0.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()?;
        Some(self.0.remove(at).1)
    }

    /// All, in the order of their tickets.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Waker> + use<> {
        mem::take(&mut self.0).into_iter().map(|(_, waker)| waker)
    }
}

impl Slots {
    fn of(&mut self, wait: Wait) -> &mut Option<Waker> {
        match wait {
            Wait::Read => &mut self.read,
            Wait::Write => &mut self.write,
            Wait::Answer => &mut self.answer,
            Wait::Stopped => &mut self.stopped,
        }
    }

    #[inline]
    pub(super) fn into_wakers(self) -> impl Iterator<Item = Waker> {
        [self.read, self.write, self.answer, self.stopped].into_iter().flatten()
    }
}

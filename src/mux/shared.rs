//! The lock around a session: what is done under it, and what only after it.

use std::{
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::state::{After, State};
use crate::{key::Epoch, proto::Session};

/// One session and all who wait for it.
pub(super) struct Shared {
    state: Mutex<State>,
    /// See [`State::rounds`].
    rounds: Arc<AtomicU64>,
    /// See [`Shared::begin`].
    begun: AtomicBool,
}

/// What was found under the lock of a session, and whom to wake for it. For who holds another lock at the time: wakers
/// may run code that takes it again.
#[derive(Debug)]
#[must_use = "who waits is woken by `wake` only"]
pub(crate) struct Deferred<T> {
    value: T,
    after: After,
}

/// A driver whose link is no longer the bound one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superseded;

impl Shared {
    /// Holds `session` for its first link, which has `epoch` or a later one.
    pub(super) fn new(session: Session, epoch: Epoch) -> Arc<Self> {
        let state = State::new(session, epoch);
        Arc::new(Self { rounds: state.rounds(), state: Mutex::new(state), begun: AtomicBool::new(false) })
    }

    /// Runs `f` under the lock, for streams and handles; then wakes whom its effects concern, the driver included.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        self.locked(|state| {
            let result = f(state);
            state.settle();
            state.unpark_if_due();
            state.recharge();
            result
        })
    }

    /// The same for the driver of the link with `epoch`, if that is still the bound one. Does not wake the driver
    /// for what it does itself.
    pub(super) fn with_link<R>(&self, epoch: Epoch, f: impl FnOnce(&mut State) -> R) -> Result<R, Superseded> {
        self.locked(|state| {
            if !state.is_bound(epoch) {
                return Err(Superseded);
            }
            let result = f(state);
            state.settle();
            state.recharge();
            Ok(result)
        })
    }

    /// The same as [`with`](Self::with), but wakes nobody yet.
    pub(super) fn deferred<R>(&self, f: impl FnOnce(&mut State) -> R) -> Deferred<R> {
        self.locked_deferred(|state| {
            let result = f(state);
            state.settle();
            state.unpark_if_due();
            state.recharge();
            result
        })
    }

    /// See [`State::rounds`].
    pub(super) fn round(&self) -> u64 {
        self.rounds.load(Ordering::Acquire)
    }

    /// A stream of the peer's was taken or accepted: whoever did so is about to hand it to a task, or to write.
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Whether any [began](Self::begin) since this was asked last.
    pub(super) fn take_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed) && self.begun.swap(false, Ordering::Relaxed)
    }

    fn locked<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        self.locked_deferred(f).wake()
    }

    /// The only place that locks. What was half done when `f` panicked is never used again.
    fn locked_deferred<R>(&self, f: impl FnOnce(&mut State) -> R) -> Deferred<R> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| f(&mut state)));
        let fallen = outcome.is_err().then(|| state.fall());
        let after = state.take_after();
        drop(state);
        drop(fallen);
        match outcome {
            Ok(value) => Deferred { value, after },
            Err(panic) => {
                after.run();
                panic::resume_unwind(panic)
            }
        }
    }
}

impl<T> Deferred<T> {
    /// A value for which nobody waits.
    pub(crate) fn ready(value: T) -> Self {
        Self { value, after: After::default() }
    }

    /// What was found, to be looked at before anybody is woken.
    pub(crate) fn value(&self) -> &T {
        &self.value
    }

    /// The same, of something else that was found.
    pub(crate) fn map<U>(self, f: impl FnOnce(T) -> U) -> Deferred<U> {
        Deferred { value: f(self.value), after: self.after }
    }

    /// Wakes, and gives what was found.
    pub(crate) fn wake(self) -> T {
        self.after.run();
        self.value
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

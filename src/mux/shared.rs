//! The lock around a session: what is done under it, and what only after it.

use std::{
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
};

use tracing::Span;

use super::state::{After, Rounds, State};
use crate::{key::Epoch, proto::Session, spans::SessionSpan};

/// One session and all who wait for it.
pub(super) struct Shared {
    state: Mutex<State>,
    rounds: Arc<Rounds>,
    /// See [`Shared::begin`].
    begun: AtomicBool,
    span: SessionSpan,
}

/// What was found under the lock of a session, and whom to wake for it. For who holds another lock at the time: wakers
/// may run code that takes it again.
#[derive(Debug)]
#[must_use = "who waits is woken by `wake` only"]
pub(crate) struct Deferred<T> {
    value: T,
    after: After,
}

/// A future that found nothing and left its waker, and has no need to look again before those like it are woken.
#[derive(Debug, Default)]
pub(super) struct Asleep(Option<(Waker, u64)>);

impl Asleep {
    /// Whether that is still so. A wake-up that comes at this moment wakes the task anew.
    pub(super) fn is_asleep(&self, round: &AtomicU64, waker: &Waker) -> bool {
        self.0.as_ref().is_some_and(|(own, slept)| *slept == round.load(Ordering::Acquire) && own.will_wake(waker))
    }

    /// To be called under the lock that the waker was left under. Gives the waker of another task that slept here, to be
    /// dropped after the lock.
    pub(super) fn fall_asleep(&mut self, round: &AtomicU64, waker: &Waker) -> Option<Waker> {
        let round = round.load(Ordering::Acquire);
        match &mut self.0 {
            Some((own, slept)) if own.will_wake(waker) => {
                *slept = round;
                None
            }
            awake => awake.replace((waker.clone(), round)).map(|(old, _)| old),
        }
    }
}

/// A driver whose link is no longer the bound one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superseded;

impl Shared {
    /// Holds `session` for its first link, which has `epoch` or a later one.
    pub(super) fn new(session: Session, epoch: Epoch, span: SessionSpan) -> Arc<Self> {
        let state = State::new(session, epoch);
        Arc::new(Self { rounds: state.rounds(), state: Mutex::new(state), begun: AtomicBool::new(false), span })
    }

    /// The span of the session. Not to be asked for under its lock.
    pub(super) fn span(&self) -> &Span {
        self.span.get()
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

    /// The same for readers, by whom no deadline is set.
    pub(super) fn with_reader<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        self.locked(|state| {
            let result = f(state);
            state.settle();
            state.unpark_to_send();
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

    /// How often those who wait were woken.
    pub(super) fn rounds(&self) -> &Rounds {
        &self.rounds
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

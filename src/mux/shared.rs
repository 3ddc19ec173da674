//! The lock around a session: what is done under it, and what only after it.

use std::{
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, PoisonError},
};

use super::state::State;
use crate::{key::Epoch, proto::Session};

/// One session and all who wait for it.
pub(super) struct Shared(Mutex<State>);

/// A driver whose link is no longer the bound one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superseded;

impl Shared {
    /// Holds `session` for its first link, which has `epoch` or a later one.
    pub(super) fn new(session: Session, epoch: Epoch) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State::new(session, epoch))))
    }

    /// Runs `f` under the lock, for streams and handles; then wakes whom its effects concern, the driver included.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        self.locked(|state| {
            let result = f(state);
            state.settle();
            state.unpark_if_due();
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
            Ok(result)
        })
    }

    /// The only place that locks. What was half done when `f` panicked is never used again.
    fn locked<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| f(&mut state)));
        let fallen = outcome.is_err().then(|| state.fall());
        let after = state.take_after();
        drop(state);
        drop(fallen);
        after.run();
        outcome.unwrap_or_else(|panic| panic::resume_unwind(panic))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

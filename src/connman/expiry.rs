//! The task that ends graces and waits on time. It runs only while there is a deadline, and keeps nothing alive.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use tokio::{runtime::Handle as Runtime, sync::Notify};

use crate::connman::{
    handle::Handle,
    state::{Expiry, Inner},
};

/// How often it is looked whether sessions without a link hold too much: they fill up while nobody calls.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is to be done about the task, outside the lock.
#[must_use = "the task learns of the deadline only by carrying this out"]
pub(super) enum Arm {
    Nothing,
    Wake,
    Spawn,
}

/// Decides, under the lock, what a nearest deadline means for the task.
pub(super) fn arm(expiry: &mut Expiry, next: Option<Instant>) -> Arm {
    match (*expiry, next) {
        (Expiry::Idle, Some(_)) => {
            // Without a runtime nothing can wait; every call to the registry still ends what is due.
            if Runtime::try_current().is_err() {
                return Arm::Nothing;
            }
            *expiry = Expiry::Starting;
            Arm::Spawn
        }
        (Expiry::Until(until), Some(next)) if next < until => Arm::Wake,
        _ => Arm::Nothing,
    }
}

impl Arm {
    pub(super) fn carry_out<T: Handle>(self, inner: &Arc<Inner<T>>) {
        match self {
            Self::Nothing => {}
            Self::Wake => inner.rearm.notify_one(),
            Self::Spawn => {
                let guard = Running { inner: Arc::downgrade(inner), armed: true };
                tokio::spawn(run(guard, Arc::clone(&inner.rearm)));
            }
        }
    }
}

/// Tells the state when the task is gone without its own doing, as with a runtime that is shut down, so that the next
/// call starts another.
struct Running<T: Handle> {
    inner: Weak<Inner<T>>,
    armed: bool,
}

impl<T: Handle> Drop for Running<T> {
    fn drop(&mut self) {
        if self.armed
            && let Some(inner) = self.inner.upgrade()
        {
            inner.lock().expiry = Expiry::Idle;
        }
    }
}

async fn run<T: Handle>(mut running: Running<T>, rearm: Arc<Notify>) {
    loop {
        let Some(next) = running.inner.upgrade().and_then(|inner| step(&inner)) else {
            // With the state gone, or told by `step` in the section that found no deadline.
            running.armed = false;
            return;
        };
        // A wake-up sent after `step` unlocked is kept by `Notify`, so none is lost in between.
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            () = rearm.notified() => {}
        }
    }
}

/// Ends what is due, and gives the nearest deadline.
fn step<T: Handle>(inner: &Arc<Inner<T>>) -> Option<Instant> {
    inner.with(|state, now| {
        state.registry.expire(now);
        let next = state.registry.next_deadline().map(|next| next.min(now + LOOK_EVERY));
        state.expiry = next.map_or(Expiry::Idle, Expiry::Until);
        next
    })
}

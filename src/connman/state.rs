//! One lock over the registry: what it decides is carried out after unlocking, on a clock of the runtime's.
//!
//! No code of the user's, no waker and no drop of a tunnel runs under the lock. Policies are asked before it is taken,
//! on a snapshot, and what they decide is applied only if the key still has the epoch that they saw.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot};

use crate::{
    callback,
    connman::{
        event::Observer,
        expiry,
        handle::Handle,
        policy::{Absent, DEFAULT_HOLD, DEFAULT_WAITING, GracePolicy},
        registry::{Absence, Ask, Counts, DialStep, Found, Limits, Refusal, Registry, Ticket},
        subscribe::Topic,
        wake::Wake,
    },
    dialback::Dialers,
    key::{AgentKey, Epoch},
    metrics,
    mux::Budget,
};

/// What a manager is built with.
pub(super) struct Settings {
    pub(super) policy: Arc<dyn GracePolicy>,
    pub(super) observers: Vec<Arc<dyn Observer>>,
    pub(super) dial_timeout: Duration,
    /// For how long after its making absent keys are waited for.
    pub(super) boot_grace: Duration,
    pub(super) limits: Limits,
    /// Bytes that sessions in grace may hold together.
    pub(super) grace_memory: usize,
    /// Whether the end of a dial-back stream is an error.
    pub(super) strict_eof: bool,
}

/// What every clone of a manager, every lease and every dial shares.
pub(crate) struct Inner<T: Handle> {
    pub(super) settings: Settings,
    max_hold: Duration,
    built: Instant,
    epochs: AtomicU64,
    state: Mutex<State<T>>,
    /// Tells the expiry task that its deadline is no longer the nearest.
    pub(super) rearm: Arc<Notify>,
    /// Tells that no session leaves any more.
    pub(super) left: Notify,
    /// What happens, for who subscribes to it.
    pub(super) events: Topic,
    /// What sessions without a link hold.
    pub(super) budget: Arc<Budget>,
    /// The tunnels that pick-ups name.
    pub(super) dialers: Arc<Dialers>,
}

/// What the lock guards.
pub(super) struct State<T> {
    pub(super) registry: Registry<T>,
    waiting: HashMap<Ticket, oneshot::Sender<Answer<T>>>,
    pub(super) expiry: Expiry,
}

/// What the expiry task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    /// There is none.
    Idle,
    /// It is about to look for the nearest deadline.
    Starting,
    /// It sleeps until then.
    Until(Instant),
}

/// What a waiting dial gets: a value, never a bare wake-up.
pub(super) type Answer<T> = Result<(Epoch, T), Refusal>;

/// What a dial gets.
pub(super) enum Asked<T: Handle> {
    Ready(Epoch, T),
    Wait(Waiting<T>),
    Refused(Refusal),
}

/// A place in the queue. Dropping it gives it back.
pub(super) struct Waiting<T: Handle> {
    inner: Arc<Inner<T>>,
    key: AgentKey,
    ticket: Ticket,
    /// When the key's grace, or the wait for an absent key, is over: as far as that can be said.
    pub(super) end: Instant,
    /// Whether a key that is absent at its end is then as any other.
    pub(super) boot: bool,
    pub(super) answer: oneshot::Receiver<Answer<T>>,
}

impl<T: Handle> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.inner.with(|state, _| {
            state.registry.give_back(&self.key, self.ticket);
            // Its receiver is this one's, which nobody waits on any more: no waker runs under the lock.
            state.waiting.remove(&self.ticket)
        });
    }
}

impl<T: Handle> Inner<T> {
    pub(super) fn new(settings: Settings) -> Self {
        let policy = Arc::clone(&settings.policy);
        Self {
            max_hold: guarded(DEFAULT_HOLD, || policy.max_hold()),
            built: now(),
            epochs: AtomicU64::new(1),
            state: Mutex::new(State {
                registry: Registry::new(settings.limits),
                waiting: HashMap::new(),
                expiry: Expiry::Idle,
            }),
            rearm: Arc::new(Notify::new()),
            left: Notify::new(),
            events: Topic::default(),
            budget: Arc::default(),
            dialers: Arc::default(),
            settings,
        }
    }

    pub(super) const fn max_hold(&self) -> Duration {
        self.max_hold
    }

    pub(super) const fn dial_timeout(&self) -> Duration {
        self.settings.dial_timeout
    }

    pub(super) fn next_epoch(&self) -> Epoch {
        Epoch::new(self.epochs.fetch_add(1, Ordering::Relaxed))
    }

    /// The registry's state outlives a panic under the lock, which would be a fault of this crate's.
    pub(super) fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f` under the lock at the time of the lock, then carries out what the registry decided, and sees that
    /// sessions in grace do not hold too much.
    pub(super) fn with<R>(self: &Arc<Self>, f: impl FnOnce(&mut State<T>, Instant) -> R) -> R {
        let result = self.run(f);
        while self.budget.used() > self.settings.grace_memory && self.run(|state, _| state.registry.evict()) {}
        result
    }

    fn run<R>(self: &Arc<Self>, f: impl FnOnce(&mut State<T>, Instant) -> R) -> R {
        let mut state = self.lock();
        let now = now();
        let before = state.registry.counts();
        let result = f(&mut state, now);
        let mut effects = Vec::new();
        for effect in state.registry.take_effects() {
            let sender = effect.ticket().and_then(|ticket| state.waiting.remove(&ticket));
            effects.push((effect, sender));
        }
        let counts = state.registry.counts();
        let next = state.registry.next_deadline();
        let arm = expiry::arm(&mut state.expiry, next);
        drop(state);

        arm.carry_out(self);
        record_counts(before, counts);
        if counts.leaving == 0 && before.leaving > 0 {
            self.left.notify_waiters();
        }
        for (effect, sender) in effects {
            self.carry_out(effect, sender);
        }
        result
    }

    /// Resolves when no session leaves any more.
    pub(super) async fn all_left(self: &Arc<Self>) {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            // Before the look, so that no word is lost in between; and a word may be about what left before the drain.
            left.as_mut().enable();
            if self.with(|state, _| state.registry.counts().leaving) == 0 {
                return;
            }
            left.await;
        }
    }

    /// A tunnel for a dial, a place in the queue, or a refusal. It waits for `most` at the most; zero: not at all.
    pub(super) fn ask(self: &Arc<Self>, key: &AgentKey, not_before: Epoch, most: Option<Duration>) -> Asked<T> {
        let (found, now) = self.with(|state, now| (state.registry.find(key, not_before, now), now));
        let (absent, wake, boot) = match found {
            Found::Ready(epoch, tunnel) => return Asked::Ready(epoch, tunnel),
            Found::Held => (Absence::Refuse, None, false),
            Found::Absent => self.absent(key, most, now),
        };
        let limit = guarded(DEFAULT_WAITING, || self.settings.policy.waiting_limit(key));
        let ask = Ask { not_before, limit, absent, unreported: self.settings.dial_timeout, most };
        let mut wakes = None;
        let asked = self.with(|state, now| {
            let (ticket, end) = match state.registry.dial(key, ask, now) {
                DialStep::Ready(epoch, tunnel) => return Asked::Ready(epoch, tunnel),
                DialStep::Refused(refusal) => return Asked::Refused(refusal),
                DialStep::Wait(ticket, end) => (ticket, end),
                DialStep::Wake(ticket, until) => {
                    wakes = Some((ticket, until));
                    (ticket, Some(until))
                }
            };
            let (sender, answer) = oneshot::channel();
            state.waiting.insert(ticket, sender);
            let end = end.or_else(|| now.checked_add(self.max_hold)).unwrap_or(now);
            Asked::Wait(Waiting { inner: Arc::clone(self), key: key.clone(), ticket, end, boot, answer })
        });
        if matches!(asked, Asked::Wait(_)) {
            metrics::record_dial_waited();
        }
        if let (Some(wake), Some((ticket, until))) = (wake, wakes) {
            wake.begin(self, key.clone(), ticket, until);
        }
        asked
    }

    /// What is done about an absent key, by what, and whether that is for the boot grace only. Who does not wait at all
    /// starts nothing.
    fn absent(&self, key: &AgentKey, most: Option<Duration>, now: Instant) -> (Absence, Option<Wake>, bool) {
        let booted_for = now.saturating_duration_since(self.built);
        let boot_left = self.settings.boot_grace.saturating_sub(booted_for);
        if most.is_some_and(|most| most.is_zero()) {
            return (Absence::Refuse, None, false);
        }
        if !boot_left.is_zero() {
            return (Absence::Wait(boot_left), None, true);
        }
        match guarded(Absent::Refuse, || self.settings.policy.absent(key)) {
            Absent::Refuse => (Absence::Refuse, None, false),
            Absent::Wait(wait) => (Absence::Wait(wait), None, false),
            Absent::Wake(wake) => (Absence::Wake(wake.time()), Some(wake), false),
        }
    }
}

/// What is still in grace when the last handle goes is in no gauge any more.
impl<T: Handle> Drop for Inner<T> {
    fn drop(&mut self) {
        let counts = self.lock().registry.counts();
        record_counts(counts, Counts::default());
        self.rearm.notify_one();
    }
}

impl<T: Handle> fmt::Debug for Inner<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("counts", &self.lock().registry.counts()).finish_non_exhaustive()
    }
}

/// On the runtime's clock.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What a callback of the user's says; `default`, where it panicked.
pub(super) fn guarded<R>(default: R, callback: impl FnOnce() -> R) -> R {
    callback::call(callback).unwrap_or_else(|_| {
        tracing::error!("a policy or an observer panicked");
        default
    })
}

/// Gauges move by differences, outside the lock: differences may overtake each other, values may not.
fn record_counts(before: Counts, after: Counts) {
    let change = |before: usize, after: usize| after as i64 - before as i64;
    if before.connected != after.connected {
        metrics::record_active_connections(change(before.connected, after.connected));
    }
    if before.grace != after.grace {
        metrics::record_grace_entries(change(before.grace, after.grace));
    }
    if before.waiting != after.waiting {
        metrics::record_pending_dials(change(before.waiting, after.waiting));
    }
}

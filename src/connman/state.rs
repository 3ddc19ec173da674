//! One lock over the registry: what it decides is carried out after unlocking, on a clock of the runtime's.
//!
//! No code of the user's, no waker and no drop of a tunnel runs under the lock. Policies are asked before it is taken,
//! on a snapshot, and what they decide is applied only if the key still has the epoch that they saw.

use std::{
    collections::HashMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot};

use crate::{
    connman::{
        event::{Observer, RegisterRefusal, TunnelEvent},
        expiry,
        handle::Handle,
        policy::{
            Absent, DEFAULT_HOLD, DEFAULT_WAITING, Displace, Grace, GracePolicy, LinkLoss, LossCause, Registration,
        },
        registry::{
            self, Ask, Binding, Claim, Conflict, Counts, DialStep, Effect, Found, Incumbent, Limits, Link, Refusal,
            Registry, Resume, Ticket,
        },
    },
    frame::{CloseCode, SessionId},
    key::{AgentKey, Epoch},
    metrics,
    mux::{BindError, Budget, PeerDrain},
    proto::SessionEnd,
};

/// How often a registration looks again at a key that changes under its eyes.
const REGISTER_TRIES: u32 = 16;

/// The most that agents spread their new links over when this side drains: thousands of handshakes a second are taken
/// easily by whoever takes over.
const MAX_JITTER: Duration = Duration::from_secs(5);

/// The longest drain that an agent is granted, whatever it announces: an hour, for the longest download.
const MAX_AGENT_DRAIN: Duration = Duration::from_secs(3600);

/// How much longer than it announced an agent may take to end its session, which it does itself.
const AGENT_DRAIN_MARGIN: Duration = Duration::from_secs(5);

/// What a manager is built with.
pub(super) struct Settings {
    pub(super) policy: Arc<dyn GracePolicy>,
    pub(super) observers: Vec<Arc<dyn Observer>>,
    pub(super) dial_timeout: Duration,
    pub(super) limits: Limits,
    /// Bytes that sessions in grace may hold together.
    pub(super) grace_memory: usize,
}

/// What every clone of a manager, every lease and every dial shares.
pub(crate) struct Inner<T: Handle> {
    settings: Settings,
    max_hold: Duration,
    epochs: AtomicU64,
    state: Mutex<State<T>>,
    /// Tells the expiry task that its deadline is no longer the nearest.
    pub(super) rearm: Arc<Notify>,
    /// Tells that no session leaves any more.
    pub(super) left: Notify,
    /// What sessions without a link hold.
    pub(super) budget: Arc<Budget>,
}

/// What a HELLO asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    /// The session to go on with; zero: a new one.
    pub(crate) session: SessionId,
    /// Which attempt this is.
    pub(crate) attempt: u64,
    /// How many counted messages of that session the agent has.
    pub(crate) has: u64,
}

/// A link that is bound to a session, under a key.
#[derive(Debug)]
pub(super) struct Attached<T: Handle> {
    pub(super) session: SessionId,
    pub(super) tunnel: T,
    pub(super) link: T::Link,
    pub(super) resumed: bool,
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
            epochs: AtomicU64::new(1),
            state: Mutex::new(State {
                registry: Registry::new(settings.limits),
                waiting: HashMap::new(),
                expiry: Expiry::Idle,
            }),
            rearm: Arc::new(Notify::new()),
            left: Notify::new(),
            budget: Arc::default(),
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
        let now = tokio::time::Instant::now().into_std();
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

    fn carry_out(&self, effect: Effect<T>, sender: Option<oneshot::Sender<Answer<T>>>) {
        let answer = |answer| {
            if let Some(sender) = sender {
                // A dial that was dropped just now leaves its answer behind.
                let _ = sender.send(answer);
            }
        };
        match effect {
            Effect::Release { serial, tunnel, .. } => answer(Ok((serial, tunnel))),
            Effect::Refuse { refusal, .. } => answer(Err(refusal)),
            Effect::Connected { registration } => self.tell(&TunnelEvent::Connected { registration }),
            Effect::Reconnected { registration, after } => {
                metrics::record_reconnected();
                self.tell(&TunnelEvent::Reconnected { registration, after });
            }
            Effect::Resumed { registration, after } => {
                match after {
                    Some(after) => {
                        metrics::record_reconnected();
                        metrics::record_resume("ok");
                        metrics::record_pause(after);
                    }
                    None => metrics::record_resume("fenced"),
                }
                self.tell(&TunnelEvent::Resumed { registration, after });
            }
            Effect::Displaced { old, tunnel, by, code, drain } => {
                let same_instance = old.instance == by.instance;
                if !same_instance {
                    metrics::record_key_conflict("replaced");
                }
                let reason = if same_instance { "the agent began anew" } else { "another agent has taken the key" };
                if drain.is_zero() {
                    tunnel.close(code, reason, SessionEnd::Replaced);
                } else {
                    tunnel.drain(code, drain, Duration::ZERO, reason);
                }
                self.tell_replaced(&old, &by);
            }
            Effect::Outlived { old, tunnel, by } => {
                if old.instance != by.instance {
                    metrics::record_key_conflict("replaced");
                }
                tunnel.end(SessionEnd::Replaced);
                self.tell_replaced(&old, &by);
            }
            Effect::Lost { registration, tunnel, cause, hold } => {
                // The key is absent by now: a dial that meets the end of this session finds it so.
                if let Some(tunnel) = tunnel {
                    tunnel.end(SessionEnd::Lost);
                }
                self.tell_lost(&registration, cause, hold);
            }
            Effect::Drained { registration } => {
                let (key, epoch) = (registration.key.clone(), registration.epoch);
                self.tell(&TunnelEvent::Draining { key, epoch });
            }
            Effect::Draining { registration, tunnel, code, drain } => {
                tunnel.drain(code, drain, (drain / 2).min(MAX_JITTER), "the server goes down");
                let (key, epoch) = (registration.key.clone(), registration.epoch);
                self.tell(&TunnelEvent::Draining { key, epoch });
            }
            Effect::Evicted { registration, tunnel } => {
                metrics::record_budget_eviction();
                tracing::warn!(key = %registration.key, "sessions in grace hold too much: the oldest is given up");
                tunnel.end(SessionEnd::Lost);
            }
            Effect::Cut { tunnel, code } => tunnel.close(code, "the time to finish is over", end_of(code)),
            Effect::Closed { registration, tunnel, code, told } => {
                tunnel.close(code, "", end_of(code));
                if told {
                    self.tell_lost(&registration, LossCause::Local(code), None);
                }
            }
            Effect::Expired { registration, tunnel, in_time } => {
                if in_time {
                    metrics::record_reconnect_timeout();
                }
                if let Some(tunnel) = tunnel {
                    tunnel.end(SessionEnd::Lost);
                }
                let (key, epoch) = (registration.key.clone(), registration.epoch);
                self.tell(&TunnelEvent::Expired { key, epoch });
            }
        }
    }

    fn tell_replaced(&self, old: &Registration, by: &Registration) {
        let (key, epoch, same_instance) = (old.key.clone(), old.epoch, old.instance == by.instance);
        self.tell(&TunnelEvent::Replaced { key, epoch, by: by.epoch, same_instance });
    }

    fn tell_lost(&self, registration: &Registration, cause: LossCause, grace: Option<Duration>) {
        self.tell(&TunnelEvent::Lost { key: registration.key.clone(), epoch: registration.epoch, cause, grace });
    }

    fn tell(&self, event: &TunnelEvent) {
        tracing::info!(key = %event.key(), epoch = %event.epoch(), "tunnel {}", event.name());
        for observer in &self.settings.observers {
            guarded((), || observer.on_event(event));
        }
    }

    /// Binds a link to the session that its HELLO names, or to a new one, which `make` makes and binds. A refused link
    /// is closed by the caller.
    pub(super) fn attach(
        self: &Arc<Self>,
        registration: Registration,
        offer: Offer,
        make: impl FnOnce() -> (SessionId, T, T::Link),
    ) -> Result<Attached<T>, RegisterRefusal> {
        let registration = Arc::new(registration);
        self.try_attach(&registration, offer, make).inspect_err(|why| {
            match why {
                RegisterRefusal::Foreign => metrics::record_key_conflict("denied"),
                RegisterRefusal::InUse => metrics::record_key_conflict("rejected"),
                RegisterRefusal::Overloaded => metrics::record_overload("tunnels"),
                RegisterRefusal::Stale => metrics::record_resume("stale"),
                RegisterRefusal::Identity => metrics::record_resume("identity"),
                RegisterRefusal::Mismatch => metrics::record_resume("mismatch"),
                RegisterRefusal::Fruitless => metrics::record_resume("rate"),
                RegisterRefusal::ShuttingDown => {}
            }
            let (key, epoch) = (registration.key.clone(), registration.epoch);
            self.tell(&TunnelEvent::Refused { key, epoch, why: *why });
        })
    }

    fn try_attach(
        self: &Arc<Self>,
        new: &Arc<Registration>,
        offer: Offer,
        make: impl FnOnce() -> (SessionId, T, T::Link),
    ) -> Result<Attached<T>, RegisterRefusal> {
        let claim = Claim { registration: new, session: offer.session, attempt: offer.attempt };
        let mut make = Some(make);
        let mut made = None;
        for _ in 0..REGISTER_TRIES {
            let resume = self.with(|state, now| {
                state.registry.resume(&claim, now, |tunnel| {
                    let heard = tunnel.heard();
                    let link = tunnel.bind(new.epoch, offer.has);
                    let bound = match link.value() {
                        Ok(_) => registry::Bound::Yes,
                        Err(BindError::Ended) => registry::Bound::Over,
                        Err(BindError::Stale) => registry::Bound::Refused(CloseCode::STALE),
                        Err(BindError::Violation(violation)) => registry::Bound::Refused(violation.code()),
                    };
                    Binding { bound, heard, link }
                })
            });
            // Whom the binding concerns is woken here, outside the lock.
            let old = match resume {
                Resume::Bound(tunnel, link) => match link.wake() {
                    Ok(link) => return Ok(Attached { session: offer.session, tunnel, link, resumed: true }),
                    Err(_) => return Err(RegisterRefusal::Stale), // it was bound, so this is never taken
                },
                Resume::Refused(code, link) => {
                    drop(link.map(|link| link.wake()));
                    return Err(refusal(code));
                }
                Resume::Fresh(old, link) => {
                    drop(link.map(|link| link.wake()));
                    old
                }
            };
            if let Some(old) = &old {
                self.judge(old, new)?;
            }
            let seen = old.map(|old| old.registration.epoch);
            let heard = self.spoken(&new.key, seen);
            let (session, tunnel, link) = match made.take().or_else(|| make.take().map(|make| make())) {
                Some(made) => made,
                None => return Err(RegisterRefusal::Overloaded),
            };
            let registered = self.with(|state, now| {
                if let Some(epoch) = heard {
                    state.registry.heard(&new.key, epoch);
                }
                state.registry.register(new, session, tunnel.clone(), seen, now)
            });
            match registered {
                Ok(()) => {
                    if !offer.session.is_new() {
                        metrics::record_resume("unknown");
                    }
                    return Ok(Attached { session, tunnel, link, resumed: false });
                }
                Err((Conflict::Changed, _)) => made = Some((session, tunnel, link)),
                Err((Conflict::Overloaded, _)) => return Err(RegisterRefusal::Overloaded),
                Err((Conflict::ShuttingDown, _)) => return Err(RegisterRefusal::ShuttingDown),
            }
        }
        Err(RegisterRefusal::Overloaded)
    }

    /// The epoch that was seen, if its agent has spoken on its link.
    fn spoken(self: &Arc<Self>, key: &AgentKey, seen: Option<Epoch>) -> Option<Epoch> {
        let epoch = seen?;
        let link = self.with(|state, _| state.registry.link(key, epoch))?;
        link.tunnel.heard().then_some(epoch)
    }

    /// Whether a newcomer may take the key of an incumbent.
    fn judge(&self, old: &Incumbent, new: &Registration) -> Result<(), RegisterRefusal> {
        let was = &*old.registration;
        if new.epoch <= was.epoch {
            return Err(RegisterRefusal::Stale);
        }
        if new.principal != was.principal {
            return Err(RegisterRefusal::Foreign);
        }
        if !old.connected || new.instance == was.instance {
            return Ok(());
        }
        // Of a policy that fails, nobody's working tunnel is the victim.
        match guarded(Displace::Reject, || self.settings.policy.displace(was, new)) {
            Displace::Replace => Ok(()),
            Displace::Reject => Err(RegisterRefusal::InUse),
        }
    }

    /// The link of this epoch was lost. A stale report does nothing.
    pub(super) fn lost(self: &Arc<Self>, key: &AgentKey, epoch: Epoch, cause: LossCause) {
        // The grace counts from here, however long the policy thinks about it.
        let (link, at) = self.with(|state, now| (state.registry.link(key, epoch), now));
        let Some(link) = link else { return };
        let (heard, over) = (link.tunnel.heard(), link.tunnel.ended().is_some());
        // One that leaves has its time, and no grace.
        let grace = link.since.map_or(Grace::Drop, |since| self.grace(key, cause, &link, at, since));
        self.with(|state, now| {
            if heard {
                state.registry.heard(key, epoch);
            }
            state.registry.link_lost(key, epoch, cause, grace, over, (at, now))
        });
    }

    /// The agent drains the session of the link of this epoch.
    pub(super) fn drained(self: &Arc<Self>, key: &AgentKey, epoch: Epoch, drain: PeerDrain) {
        let (link, at) = self.with(|state, now| (state.registry.link(key, epoch), now));
        let Some((link, since)) = link.and_then(|link| link.since.map(|since| (link, since))) else { return };
        let grace = self.grace(key, LossCause::Drained, &link, at, since);
        let drain = drain.deadline.min(MAX_AGENT_DRAIN) + AGENT_DRAIN_MARGIN;
        self.with(|state, now| state.registry.drained_by_agent(key, epoch, drain, grace, now));
    }

    /// What the policy gives for a loss at `at`.
    fn grace(&self, key: &AgentKey, cause: LossCause, link: &Link<T>, at: Instant, since: Instant) -> Grace {
        let loss = LinkLoss { key, cause, up_for: at.saturating_duration_since(since), losses: link.losses };
        match guarded(Grace::Hold(DEFAULT_HOLD), || self.settings.policy.grace(&loss)) {
            Grace::Hold(hold) => Grace::Hold(hold.min(self.max_hold)),
            Grace::Drop => Grace::Drop,
        }
    }

    /// A tunnel for a dial, a place in the queue, or a refusal.
    pub(super) fn ask(self: &Arc<Self>, key: &AgentKey, not_before: Epoch) -> Asked<T> {
        let policy = &self.settings.policy;
        let absent = match self.with(|state, now| state.registry.find(key, not_before, now)) {
            Found::Ready(epoch, tunnel) => return Asked::Ready(epoch, tunnel),
            Found::Held => None,
            Found::Absent => match guarded(Absent::Refuse, || policy.absent(key)) {
                Absent::Refuse => None,
                Absent::Wait(wait) => Some(wait),
            },
        };
        let limit = guarded(DEFAULT_WAITING, || policy.waiting_limit(key));
        let ask = Ask { not_before, limit, absent, unreported: self.settings.dial_timeout };
        let asked = self.with(|state, now| match state.registry.dial(key, ask, now) {
            DialStep::Ready(epoch, tunnel) => Asked::Ready(epoch, tunnel),
            DialStep::Refused(refusal) => Asked::Refused(refusal),
            DialStep::Wait(ticket, end) => {
                let (sender, answer) = oneshot::channel();
                state.waiting.insert(ticket, sender);
                let end = end.or_else(|| now.checked_add(self.max_hold)).unwrap_or(now);
                Asked::Wait(Waiting { inner: Arc::clone(self), key: key.clone(), ticket, end, answer })
            }
        });
        if matches!(asked, Asked::Wait(_)) {
            metrics::record_dial_waited();
        }
        asked
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

/// How a session ends that is closed with this code.
fn end_of(code: CloseCode) -> SessionEnd {
    match code {
        CloseCode::REPLACED | CloseCode::STALE => SessionEnd::Replaced,
        CloseCode::CREDENTIALS => SessionEnd::Revoked,
        _ => SessionEnd::Shutdown,
    }
}

/// Why a link is refused that is closed with this code.
fn refusal(code: CloseCode) -> RegisterRefusal {
    match code {
        CloseCode::FOREIGN => RegisterRefusal::Identity,
        CloseCode::STALE => RegisterRefusal::Stale,
        CloseCode::FLOOD => RegisterRefusal::Fruitless,
        CloseCode::DRAINED => RegisterRefusal::ShuttingDown,
        _ => RegisterRefusal::Mismatch,
    }
}

/// Runs a callback of the user's. One that panics is counted, and `default` stands in its place.
fn guarded<R>(default: R, callback: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(callback)).unwrap_or_else(|_| {
        metrics::record_callback_failure();
        tracing::error!("a policy or an observer panicked");
        default
    })
}

//! Who is connected, who is in grace, who waits: a machine over keys that is told the time.
//!
//! Pure: no runtime, no clock, no lock. What must happen outside (a waiting dial is released, a tunnel is to be
//! closed, an observer is to be told) is collected as [`Effect`]s, in order, and taken by the owner after each call.
//! Every call first lets expire what is due, so that a grace is exact even when nobody called at its end.
//!
//! A key that is neither connected, nor in grace, nor waited for has no slot. For a while it is remembered that it was
//! there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    connman::policy::{LossCause, Registration},
    frame::{CloseCode, SessionId},
    key::{AgentKey, Epoch},
};

mod attach;
mod gone;
mod leave;
mod values;
mod wait;

use gone::Departures;

pub(super) use gone::Departure;
pub(super) use values::{
    Absence, Ask, Binding, Bound, Claim, Conflict, Counts, DialStep, Effect, Entry, Found, Incumbent, Limits, Link,
    Refusal, Resume, Ticket,
};
use wait::{Waiter, Waking};

/// Waits are cut to this, far beyond any use, so that no sum of times can overflow.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The keys, and the dials that wait for them.
#[derive(Debug)]
pub(super) struct Registry<T> {
    slots: HashMap<AgentKey, Slot<T>>,
    /// Whose each session is that is kept.
    sessions: HashMap<SessionId, AgentKey>,
    due: BTreeSet<(Instant, Due)>,
    next_ticket: u64,
    gone: Departures,
    limits: Limits,
    counts: Counts,
    /// Nothing new is taken, since this side goes down with this code; what is there finishes.
    draining: Option<CloseCode>,
    closed: bool,
    effects: Vec<Effect<T>>,
}

#[derive(Debug)]
struct Slot<T> {
    state: State<T>,
    /// Sessions that open nothing new and finish what runs, oldest first. They are nobody's incumbents.
    leaving: Vec<Leaving<T>>,
    waiters: BTreeMap<Ticket, Waiter>,
    /// The start of its agent that is under way, or was made not long ago.
    waking: Option<Waking>,
    losses: u32,
    reconnects: u32,
    last_cause: Option<LossCause>,
}

/// ```text
///            register                link lost, Hold
///  Absent ─────────────► Connected ───────────────────► Grace
///    ▲                    │  ▲  ▲                        │ │
///    │  link lost, Drop   │  └──┘ register (displaces)   │ │
///    ├────────────────────┘  ▲    resume (supersedes)    │ │
///    │                       └───── register, resume ────┘ │
///    └──────────────────────────────────────── expired ────┘
/// ```
/// From `Connected` a session may also leave: the key is then in grace without it, or connected with the next one.
#[derive(Debug)]
enum State<T> {
    Connected {
        kept: Kept<T>,
        since: Instant,
        /// The end of the grace that this link, or those before it, broke off without a word from the agent.
        owed: Option<Instant>,
    },
    Grace {
        registration: Arc<Registration>,
        /// The session that waits for a link; `None`: it leaves, and the key waits for the next one.
        kept: Option<Kept<T>>,
        since: Instant,
        until: Instant,
    },
    /// Held in memory only while dials wait, while sessions leave, or while its agent is being started.
    Absent,
}

/// A session that is kept, with or without a link.
#[derive(Debug)]
struct Kept<T> {
    /// The epoch of its first link, which names it while its links change.
    serial: Epoch,
    /// Of its last link.
    registration: Arc<Registration>,
    tunnel: T,
    session: SessionId,
    /// The attempt with which it was last attached.
    attempt: u64,
}

/// A session that finishes what runs.
#[derive(Debug)]
struct Leaving<T> {
    kept: Kept<T>,
    up: bool,
    /// When it is cut off: the end of its drain, or of its hold, if it has no link and that comes first.
    until: Instant,
    /// The end of its drain.
    deadline: Instant,
    /// The end of its hold, as long as its agent has not spoken since.
    owed: Option<Instant>,
    /// With which code.
    code: CloseCode,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Grace(AgentKey),
    Leaving(AgentKey, Epoch),
    Wait(AgentKey, Ticket),
    Wake(AgentKey),
}

impl<T: Clone> Registry<T> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            slots: HashMap::new(),
            sessions: HashMap::new(),
            due: BTreeSet::new(),
            next_ticket: 0,
            gone: Departures::default(),
            limits,
            counts: Counts::default(),
            draining: None,
            closed: false,
            effects: Vec::new(),
        }
    }

    /// What is to be done outside, in order.
    pub(super) fn take_effects(&mut self) -> Vec<Effect<T>> {
        std::mem::take(&mut self.effects)
    }

    /// Whether new sessions are registered, as far as it does not go by keys.
    pub(super) const fn is_open(&self) -> bool {
        !self.closed && self.draining.is_none()
    }

    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The serial of the session that a connected key has.
    #[cfg(feature = "proxy")]
    pub(super) fn serial(&mut self, key: &AgentKey, now: Instant) -> Option<Epoch> {
        self.expire(now);
        match &self.slots.get(key)?.state {
            State::Connected { kept, .. } => Some(kept.serial),
            State::Grace { .. } | State::Absent => None,
        }
    }

    /// Ends what has its end at `now` or before.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            match self.due.pop_first() {
                Some((at, Due::Grace(key))) => self.end_grace(&key, at),
                Some((_, Due::Leaving(key, serial))) => self.cut(&key, serial),
                Some((_, Due::Wait(key, ticket))) => self.end_wait(&key, ticket),
                Some((_, Due::Wake(key))) => self.end_wake(&key),
                None => {}
            }
        }
        self.gone.expire(now);
    }

    fn end_grace(&mut self, key: &AgentKey, at: Instant) {
        let ended = self.draining;
        let refusal = if ended.is_some() { Refusal::ShuttingDown } else { Refusal::ReconnectTimeout };
        let drained = self.was_drained(key);
        if let Some(State::Grace { registration, kept, .. }) = self.vacate(key, &refusal, at) {
            let tunnel = kept.map(|kept| kept.tunnel);
            self.effects.push(Effect::Expired { registration, tunnel, ended, drained });
        }
    }

    /// Whether the key's agent went in order, last.
    fn was_drained(&self, key: &AgentKey) -> bool {
        self.slots.get(key).is_some_and(|slot| slot.last_cause == Some(LossCause::Drained))
    }

    /// Makes a key absent, for its last cause, and refuses who waits for it. Sessions that leave go on leaving.
    fn vacate(&mut self, key: &AgentKey, refusal: &Refusal, at: Instant) -> Option<State<T>> {
        self.remember(key, at);
        self.refuse_waiters(key, refusal);
        let slot = self.slots.get_mut(key)?;
        let state = std::mem::replace(&mut slot.state, State::Absent);
        (slot.losses, slot.reconnects, slot.last_cause) = (0, 0, None);
        self.forget(key, &state);
        self.prune(key);
        Some(state)
    }

    /// What is counted and indexed of a state that a key has no longer. A session that leaves is indexed all the same.
    fn forget(&mut self, key: &AgentKey, state: &State<T>) {
        let kept = match state {
            State::Connected { kept, .. } => {
                self.counts.connected -= 1;
                Some(kept)
            }
            State::Grace { kept, until, .. } => {
                self.counts.grace -= 1;
                self.due.remove(&(*until, Due::Grace(key.clone())));
                kept.as_ref()
            }
            State::Absent => None,
        };
        if let Some(kept) = kept {
            self.sessions.remove(&kept.session);
        }
    }

    /// Takes a key out of memory that is absent, and for which there is nothing to remember.
    fn prune(&mut self, key: &AgentKey) {
        if self.slots.get(key).is_some_and(Slot::is_idle) {
            self.slots.remove(key);
        }
    }

    /// Every session that is kept, in no order.
    pub(super) fn tunnels(&mut self, now: Instant) -> Vec<T> {
        self.expire(now);
        let all = self.slots.values().flat_map(|slot| {
            let current = slot.entry().and_then(|entry| entry.tunnel);
            current.into_iter().chain(slot.leaving.iter().map(|leaving| leaving.kept.tunnel.clone()))
        });
        all.collect()
    }

    /// Every key that is connected or in grace, in no order.
    pub(super) fn entries(&mut self, now: Instant) -> Vec<Entry<T>> {
        self.expire(now);
        self.slots.values().filter_map(Slot::entry).collect()
    }
}

impl<T: Clone> Slot<T> {
    fn absent() -> Self {
        Self {
            state: State::Absent,
            leaving: Vec::new(),
            waiters: BTreeMap::new(),
            waking: None,
            losses: 0,
            reconnects: 0,
            last_cause: None,
        }
    }

    fn is_idle(&self) -> bool {
        let empty = self.waiters.is_empty() && self.leaving.is_empty() && self.waking.is_none();
        empty && matches!(self.state, State::Absent)
    }

    fn entry(&self) -> Option<Entry<T>> {
        let (registration, kept, since, until) = match &self.state {
            State::Connected { kept, since, .. } => (&kept.registration, Some(kept), *since, None),
            State::Grace { registration, kept, since, until } => (registration, kept.as_ref(), *since, Some(*until)),
            State::Absent => return None,
        };
        Some(Entry {
            registration: Arc::clone(registration),
            tunnel: kept.map(|kept| kept.tunnel.clone()),
            leaving: self.leaving.iter().map(|leaving| leaving.kept.tunnel.clone()).collect(),
            since,
            until,
            waiting: self.waiters.len(),
            reconnects: self.reconnects,
            last_cause: self.last_cause,
        })
    }
}

/// A time after another. Cannot overflow within the life of a process.
pub(super) fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait.min(A_YEAR)).unwrap_or(now)
}

#[cfg(test)]
mod tests;

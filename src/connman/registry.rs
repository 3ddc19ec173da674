//! Who is connected, who is in grace, who waits: a machine over keys that is told the time.
//!
//! Pure: no runtime, no clock, no lock. What must happen outside (a waiting dial is released, a tunnel is to be
//! closed, an observer is to be told) is collected as [`Effect`]s, in order, and taken by the owner after each call.
//! Every call first lets expire what is due, so that a grace is exact even when nobody called at its end.
//!
//! A key that is neither connected, nor in grace, nor waited for is not in memory.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    connman::policy::{Grace, LossCause, Registration},
    frame::CloseCode,
    key::{AgentKey, Epoch},
};

mod values;

pub(super) use values::{Ask, Conflict, Counts, DialStep, Effect, Entry, Found, Incumbent, Limits, Refusal, Ticket};

/// Waits are cut to this, far beyond any use, so that no sum of times can overflow.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The keys, and the dials that wait for them.
#[derive(Debug)]
pub(super) struct Registry<T> {
    slots: HashMap<AgentKey, Slot<T>>,
    due: BTreeSet<(Instant, Due)>,
    next_ticket: u64,
    limits: Limits,
    counts: Counts,
    closed: bool,
    effects: Vec<Effect<T>>,
}

#[derive(Debug)]
struct Slot<T> {
    state: State<T>,
    /// Each with the end of its own wait, if that is not the key's grace.
    waiters: BTreeMap<Ticket, Option<Instant>>,
    losses: u32,
    reconnects: u32,
    last_cause: Option<LossCause>,
}

/// ```text
///            register                link lost, Hold
///  Absent ─────────────► Connected ───────────────────► Grace
///    ▲                    │  ▲  ▲                        │ │
///    │  link lost, Drop   │  └──┘ register (displaces)   │ │
///    ├────────────────────┘  ▲                           │ │
///    │                       └──────────── register ─────┘ │
///    └──────────────────────────────────────── expired ────┘
/// ```
#[derive(Debug)]
enum State<T> {
    Connected {
        registration: Arc<Registration>,
        tunnel: T,
        since: Instant,
        /// The end of the grace that this link, or those before it, broke off without a word from the agent.
        owed: Option<Instant>,
    },
    Grace {
        registration: Arc<Registration>,
        since: Instant,
        until: Instant,
    },
    /// Held in memory only while dials wait.
    Absent,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Grace(AgentKey),
    Wait(AgentKey, Ticket),
}

impl<T: Clone> Registry<T> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            slots: HashMap::new(),
            due: BTreeSet::new(),
            next_ticket: 0,
            limits,
            counts: Counts::default(),
            closed: false,
            effects: Vec::new(),
        }
    }

    /// What is to be done outside, in order.
    pub(super) fn take_effects(&mut self) -> Vec<Effect<T>> {
        std::mem::take(&mut self.effects)
    }

    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Who has the key.
    pub(super) fn incumbent(&mut self, key: &AgentKey, now: Instant) -> Option<Incumbent> {
        self.expire(now);
        match &self.slots.get(key)?.state {
            State::Connected { registration, .. } => {
                Some(Incumbent { registration: Arc::clone(registration), connected: true })
            }
            State::Grace { registration, .. } => {
                Some(Incumbent { registration: Arc::clone(registration), connected: false })
            }
            State::Absent => None,
        }
    }

    /// Makes `tunnel` the key's current one, if the epoch of the incumbent is still `seen`. On a conflict the tunnel
    /// comes back, so that it is not dropped under the caller's lock.
    pub(super) fn register(
        &mut self,
        registration: &Arc<Registration>,
        tunnel: T,
        seen: Option<Epoch>,
        now: Instant,
    ) -> Result<(), (Conflict, T)> {
        let incumbent = self.incumbent(&registration.key, now);
        if self.closed {
            return Err((Conflict::ShuttingDown, tunnel));
        }
        if incumbent.as_ref().map(|old| old.registration.epoch) != seen {
            return Err((Conflict::Changed, tunnel));
        }
        if incumbent.is_none() && self.counts.connected + self.counts.grace >= self.limits.tunnels {
            return Err((Conflict::Overloaded, tunnel));
        }
        let release = |ticket| Effect::Release { ticket, epoch: registration.epoch, tunnel: tunnel.clone() };
        let released: Vec<_> = self.take_waiters(&registration.key).into_iter().map(release).collect();
        let slot = self.slots.entry(registration.key.clone()).or_insert_with(Slot::absent);
        let owed = match &slot.state {
            State::Connected { owed, .. } => *owed,
            State::Grace { until, .. } => Some(*until),
            State::Absent => None,
        };
        let next = State::Connected { registration: Arc::clone(registration), tunnel, since: now, owed };
        match std::mem::replace(&mut slot.state, next) {
            State::Connected { registration: old, tunnel, .. } => {
                slot.reconnects = slot.reconnects.saturating_add(1);
                self.effects.push(Effect::Displaced { old, tunnel, by: Arc::clone(registration) });
                self.effects.push(Effect::Connected { registration: Arc::clone(registration) });
            }
            State::Grace { since, until, .. } => {
                slot.reconnects = slot.reconnects.saturating_add(1);
                self.counts.grace -= 1;
                self.counts.connected += 1;
                self.due.remove(&(until, Due::Grace(registration.key.clone())));
                let after = now.saturating_duration_since(since);
                self.effects.push(Effect::Reconnected { registration: Arc::clone(registration), after });
            }
            State::Absent => {
                self.counts.connected += 1;
                self.effects.push(Effect::Connected { registration: Arc::clone(registration) });
            }
        }
        self.effects.extend(released);
        Ok(())
    }

    /// The link of this epoch: its tunnel, since when it is up, and how many losses came before. `None`: it is not the
    /// key's current one, and what it reports is stale.
    pub(super) fn link(&self, key: &AgentKey, epoch: Epoch) -> Option<(T, Instant, u32)> {
        let slot = self.slots.get(key)?;
        match &slot.state {
            State::Connected { registration, since, tunnel, .. } if registration.epoch == epoch => {
                Some((tunnel.clone(), *since, slot.losses))
            }
            _ => None,
        }
    }

    /// The agent has spoken on the link of this epoch: the grace before it is over for good.
    pub(super) fn heard(&mut self, key: &AgentKey, epoch: Epoch) {
        if let Some(Slot { state: State::Connected { registration, owed, .. }, .. }) = self.slots.get_mut(key)
            && registration.epoch == epoch
        {
            *owed = None;
        }
    }

    /// The link of this epoch was lost at `at`. False: the report is stale, and nothing changed. If a grace came before
    /// it and its agent was not [heard](Self::heard), that grace goes on, without what `grace` would add.
    pub(super) fn link_lost(
        &mut self,
        key: &AgentKey,
        epoch: Epoch,
        cause: LossCause,
        grace: Grace,
        at: Instant,
        now: Instant,
    ) -> bool {
        self.expire(now);
        if self.link(key, epoch).is_none() {
            return false;
        }
        match grace {
            Grace::Drop => self.lose_for_good(key, cause),
            Grace::Hold(hold) => self.hold(key, cause, at, hold),
        }
        self.expire(now);
        true
    }

    fn hold(&mut self, key: &AgentKey, cause: LossCause, at: Instant, hold: Duration) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let State::Connected { registration, owed, .. } = &slot.state else { return };
        // Links on which nobody speaks must not prolong a grace, however many there are.
        let hold = owed.map_or(hold, |until| until.saturating_duration_since(at));
        let until = owed.unwrap_or_else(|| after(at, hold));
        let next = State::Grace { registration: Arc::clone(registration), since: at, until };
        slot.losses = slot.losses.saturating_add(1);
        slot.last_cause = Some(cause);
        // Who waited for the report of this loss now waits for the grace.
        for (ticket, own) in &mut slot.waiters {
            if let Some(own) = own.take() {
                self.due.remove(&(own, Due::Wait(key.clone(), *ticket)));
            }
        }
        if let State::Connected { registration, tunnel, .. } = std::mem::replace(&mut slot.state, next) {
            self.effects.push(Effect::Lost { registration, tunnel, cause, hold: Some(hold) });
        }
        self.counts.connected -= 1;
        self.counts.grace += 1;
        self.due.insert((until, Due::Grace(key.clone())));
    }

    fn lose_for_good(&mut self, key: &AgentKey, cause: LossCause) {
        if let Some(State::Connected { registration, tunnel, .. }) = self.vacate(key, Refusal::NoConnection) {
            self.effects.push(Effect::Lost { registration, tunnel, cause, hold: None });
        }
    }

    /// Makes a key absent, whatever it is: its tunnel is closed with `code`, who waits is refused. False: it was
    /// absent.
    pub(super) fn close(&mut self, key: &AgentKey, code: CloseCode, refusal: Refusal, now: Instant) -> bool {
        self.expire(now);
        match self.vacate(key, refusal) {
            Some(State::Connected { registration, tunnel, .. }) => {
                self.effects.push(Effect::Closed { registration, tunnel, code });
                true
            }
            Some(State::Grace { registration, .. }) => {
                self.effects.push(Effect::Expired { registration, in_time: false });
                true
            }
            Some(State::Absent) | None => false,
        }
    }

    /// Closes every tunnel with `code`, and refuses everything from now on.
    pub(super) fn shut_down(&mut self, code: CloseCode, now: Instant) {
        self.closed = true;
        let keys: Vec<AgentKey> = self.slots.keys().cloned().collect();
        for key in keys {
            self.close(&key, code, Refusal::ShuttingDown, now);
        }
    }

    /// What a dial would find.
    pub(super) fn find(&mut self, key: &AgentKey, not_before: Epoch, now: Instant) -> Found<T> {
        self.expire(now);
        match self.slots.get(key).map(|slot| &slot.state) {
            Some(State::Connected { registration, tunnel, .. }) if registration.epoch >= not_before => {
                Found::Ready(registration.epoch, tunnel.clone())
            }
            Some(State::Connected { .. } | State::Grace { .. }) => Found::Held,
            Some(State::Absent) | None => Found::Absent,
        }
    }

    /// A tunnel for a dial, a place in the queue, or a refusal.
    pub(super) fn dial(&mut self, key: &AgentKey, ask: Ask, now: Instant) -> DialStep<T> {
        self.expire(now);
        if self.closed {
            return DialStep::Refused(Refusal::ShuttingDown);
        }
        let (own, end) = match self.slots.get(key).map(|slot| &slot.state) {
            Some(State::Connected { registration, tunnel, .. }) if registration.epoch >= ask.not_before => {
                return DialStep::Ready(registration.epoch, tunnel.clone());
            }
            Some(State::Connected { .. }) => (Some(after(now, ask.unreported)), None),
            Some(State::Grace { until, .. }) => (None, Some(*until)),
            Some(State::Absent) | None => match ask.absent.map(|wait| after(now, wait)) {
                Some(end) => (Some(end), Some(end)),
                None => return DialStep::Refused(Refusal::NoConnection),
            },
        };
        let waiting = self.slots.get(key).map_or(0, |slot| slot.waiters.len());
        if waiting >= ask.limit || self.counts.waiting >= self.limits.waiting {
            return DialStep::Refused(Refusal::TooManyPending);
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.slots.entry(key.clone()).or_insert_with(Slot::absent).waiters.insert(ticket, own);
        self.counts.waiting += 1;
        self.counts.waiting_keys += usize::from(waiting == 0);
        if let Some(own) = own {
            self.due.insert((own, Due::Wait(key.clone(), ticket)));
        }
        DialStep::Wait(ticket, end)
    }

    /// A waiting dial is given up. Nothing happens if the ticket was answered already.
    pub(super) fn give_back(&mut self, key: &AgentKey, ticket: Ticket) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let Some(own) = slot.waiters.remove(&ticket) else { return };
        self.counts.waiting -= 1;
        self.counts.waiting_keys -= usize::from(slot.waiters.is_empty());
        if slot.waiters.is_empty() && matches!(slot.state, State::Absent) {
            self.slots.remove(key);
        }
        if let Some(own) = own {
            self.due.remove(&(own, Due::Wait(key.clone(), ticket)));
        }
    }

    /// Ends what has its end at `now` or before.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            match self.due.pop_first() {
                Some((_, Due::Grace(key))) => {
                    if let Some(State::Grace { registration, .. }) = self.vacate(&key, Refusal::ReconnectTimeout) {
                        self.effects.push(Effect::Expired { registration, in_time: true });
                    }
                }
                Some((_, Due::Wait(key, ticket))) => self.end_wait(&key, ticket),
                None => {}
            }
        }
    }

    fn end_wait(&mut self, key: &AgentKey, ticket: Ticket) {
        let absent = self.slots.get(key).is_some_and(|slot| matches!(slot.state, State::Absent));
        let refusal = if absent { Refusal::NoConnection } else { Refusal::Unreported };
        self.give_back(key, ticket);
        self.effects.push(Effect::Refuse { ticket, refusal });
    }

    /// Takes a key out of memory, and refuses who waits for it.
    fn vacate(&mut self, key: &AgentKey, refusal: Refusal) -> Option<State<T>> {
        for ticket in self.take_waiters(key) {
            self.effects.push(Effect::Refuse { ticket, refusal });
        }
        let slot = self.slots.remove(key)?;
        match &slot.state {
            State::Connected { .. } => self.counts.connected -= 1,
            State::Grace { until, .. } => {
                self.counts.grace -= 1;
                self.due.remove(&(*until, Due::Grace(key.clone())));
            }
            State::Absent => {}
        }
        Some(slot.state)
    }

    /// Empties a key's queue, oldest first.
    fn take_waiters(&mut self, key: &AgentKey) -> Vec<Ticket> {
        let Some(slot) = self.slots.get_mut(key) else { return Vec::new() };
        let waiters = std::mem::take(&mut slot.waiters);
        self.counts.waiting -= waiters.len();
        self.counts.waiting_keys -= usize::from(!waiters.is_empty());
        for (ticket, own) in &waiters {
            if let Some(own) = own {
                self.due.remove(&(*own, Due::Wait(key.clone(), *ticket)));
            }
        }
        waiters.into_keys().collect()
    }

    /// Every key that is connected or in grace, in no order.
    pub(super) fn entries(&mut self, now: Instant) -> Vec<Entry<T>> {
        self.expire(now);
        self.slots.values().filter_map(Slot::entry).collect()
    }
}

impl<T: Clone> Slot<T> {
    fn absent() -> Self {
        Self { state: State::Absent, waiters: BTreeMap::new(), losses: 0, reconnects: 0, last_cause: None }
    }

    fn entry(&self) -> Option<Entry<T>> {
        let (registration, tunnel, since, until) = match &self.state {
            State::Connected { registration, tunnel, since, .. } => (registration, Some(tunnel.clone()), *since, None),
            State::Grace { registration, since, until } => (registration, None, *since, Some(*until)),
            State::Absent => return None,
        };
        Some(Entry {
            registration: Arc::clone(registration),
            tunnel,
            since,
            until,
            reconnects: self.reconnects,
            last_cause: self.last_cause,
        })
    }
}

/// A time after another. Cannot overflow within the life of a process.
fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait.min(A_YEAR)).unwrap_or(now)
}

#[cfg(test)]
mod tests;

//! How dials wait: for a key in grace, for one whose loss is not reported yet, for an absent one, for its start.
//!
//! Pure: no runtime, no clock.

use std::time::Instant;

use super::{Absence, Ask, DialStep, Due, Effect, Found, Refusal, Registry, Slot, State, Ticket, after};
use crate::key::{AgentKey, Epoch};

/// A dial that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    /// The end of its wait as the key is now, if that is not the key's own.
    own: Option<Instant>,
    /// The end of its wait, whatever the key is.
    last: Option<Instant>,
}

/// The start of an absent key's agent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waking {
    /// The dial that asked for it, which names it.
    by: Ticket,
    /// When it is over, also for those who wait.
    until: Instant,
    /// Whether it still runs: if not, its agent is on the way.
    running: bool,
}

impl Waiter {
    fn due(&self) -> Option<Instant> {
        self.own.into_iter().chain(self.last).min()
    }
}

impl<T: Clone> Registry<T> {
    /// What a dial would find.
    pub(in crate::connman) fn find(&mut self, key: &AgentKey, not_before: Epoch, now: Instant) -> Found<T> {
        self.expire(now);
        match self.slots.get(key).map(|slot| &slot.state) {
            Some(State::Connected { kept, .. }) if kept.serial >= not_before => {
                Found::Ready(kept.serial, kept.tunnel.clone())
            }
            Some(State::Connected { .. } | State::Grace { .. }) => Found::Held,
            Some(State::Absent) | None => Found::Absent,
        }
    }

    /// A tunnel for a dial, a place in the queue, or a refusal.
    pub(in crate::connman) fn dial(&mut self, key: &AgentKey, ask: Ask, now: Instant) -> DialStep<T> {
        self.expire(now);
        if self.closed {
            return DialStep::Refused(Refusal::ShuttingDown);
        }
        let slot = self.slots.get(key);
        let mut wakes = None;
        // The end of a wait of its own, the end of all waits for the key, and what is said at either.
        let (own, end, refusal) = match slot.map(|slot| &slot.state) {
            Some(State::Connected { kept, .. }) if kept.serial >= ask.not_before => {
                return DialStep::Ready(kept.serial, kept.tunnel.clone());
            }
            Some(State::Connected { .. }) => (Some(after(now, ask.unreported)), None, Refusal::ReconnectTimeout),
            Some(State::Grace { until, .. }) => (None, Some(*until), Refusal::ReconnectTimeout),
            Some(State::Absent) | None if self.draining.is_some() => return DialStep::Refused(Refusal::ShuttingDown),
            Some(State::Absent) | None => match (ask.absent, slot.and_then(|slot| slot.waking)) {
                (Absence::Refuse, _) => return DialStep::Refused(self.explained(key, Refusal::NoConnection)),
                (Absence::Wait(wait), _) => {
                    let end = Some(after(now, wait));
                    (end, end, Refusal::NoConnection)
                }
                (Absence::Wake(_), Some(waking)) => (None, Some(waking.until), Refusal::NoConnection),
                (Absence::Wake(within), None) => {
                    wakes = Some(after(now, within));
                    (None, wakes, Refusal::NoConnection)
                }
            },
        };
        let waiting = slot.map_or(0, |slot| slot.waiters.len());
        if ask.most.is_some_and(|most| most.is_zero()) {
            return DialStep::Refused(self.explained(key, refusal));
        }
        let full = waiting >= ask.limit || self.counts.waiting >= self.limits.waiting;
        if full || (wakes.is_some() && self.counts.waking >= self.limits.waiting) {
            return DialStep::Refused(Refusal::TooManyPending);
        }
        let last = ask.most.map(|most| after(now, most));
        let ticket = self.enqueue(key, Waiter { own, last });
        match wakes {
            Some(until) => {
                self.begin_wake(key, ticket, until);
                DialStep::Wake(ticket, until)
            }
            None => DialStep::Wait(ticket, end),
        }
    }

    fn enqueue(&mut self, key: &AgentKey, waiter: Waiter) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let slot = self.slots.entry(key.clone()).or_insert_with(Slot::absent);
        self.counts.waiting += 1;
        self.counts.waiting_keys += usize::from(slot.waiters.is_empty());
        slot.waiters.insert(ticket, waiter);
        if let Some(due) = waiter.due() {
            self.due.insert((due, Due::Wait(key.clone(), ticket)));
        }
        ticket
    }

    /// A waiting dial is given up. Nothing happens if the ticket was answered already.
    pub(in crate::connman) fn give_back(&mut self, key: &AgentKey, ticket: Ticket) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let Some(waiter) = slot.waiters.remove(&ticket) else { return };
        self.counts.waiting -= 1;
        self.counts.waiting_keys -= usize::from(slot.waiters.is_empty());
        if let Some(due) = waiter.due() {
            self.due.remove(&(due, Due::Wait(key.clone(), ticket)));
        }
        self.prune(key);
    }

    pub(super) fn end_wait(&mut self, key: &AgentKey, ticket: Ticket) {
        let Some(slot) = self.slots.get(key) else { return };
        let refusal = match &slot.state {
            State::Absent => Refusal::NoConnection,
            State::Grace { .. } => Refusal::ReconnectTimeout,
            State::Connected { .. } => Refusal::Unreported,
        };
        self.give_back(key, ticket);
        let refusal = self.explained(key, refusal);
        self.effects.push(Effect::Refuse { ticket, refusal });
    }

    /// Who waited for the report of a loss now waits for the grace.
    pub(super) fn wait_for_grace(&mut self, key: &AgentKey) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        for (ticket, waiter) in &mut slot.waiters {
            let before = waiter.due();
            waiter.own = None;
            let due = waiter.due();
            if due != before {
                self.due.extend(due.map(|due| (due, Due::Wait(key.clone(), *ticket))));
                before.map(|before| self.due.remove(&(before, Due::Wait(key.clone(), *ticket))));
            }
        }
    }

    /// Empties a key's queue, oldest first.
    pub(super) fn take_waiters(&mut self, key: &AgentKey) -> Vec<Ticket> {
        let Some(slot) = self.slots.get_mut(key) else { return Vec::new() };
        let waiters = std::mem::take(&mut slot.waiters);
        self.counts.waiting -= waiters.len();
        self.counts.waiting_keys -= usize::from(!waiters.is_empty());
        for (ticket, waiter) in &waiters {
            if let Some(due) = waiter.due() {
                self.due.remove(&(due, Due::Wait(key.clone(), *ticket)));
            }
        }
        waiters.into_keys().collect()
    }

    pub(super) fn refuse_waiters(&mut self, key: &AgentKey, refusal: &Refusal) {
        let refusal = self.explained(key, refusal.clone());
        for ticket in self.take_waiters(key) {
            self.effects.push(Effect::Refuse { ticket, refusal: refusal.clone() });
        }
    }

    fn begin_wake(&mut self, key: &AgentKey, by: Ticket, until: Instant) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.waking = Some(Waking { by, until, running: true });
            self.counts.waking += 1;
            self.due.insert((until, Due::Wake(key.clone())));
        }
    }

    /// The start that this dial asked for has ended. If it failed, who waits is told; if not, who waits goes on to do so
    /// until its time is over.
    pub(in crate::connman) fn woken(&mut self, key: &AgentKey, by: Ticket, outcome: Result<(), Refusal>, now: Instant) {
        self.expire(now);
        let Some(slot) = self.slots.get_mut(key) else { return };
        let absent = matches!(slot.state, State::Absent);
        let Some(waking) = slot.waking.as_mut().filter(|waking| waking.by == by) else { return };
        waking.running = false;
        match outcome {
            Ok(()) if absent => {}
            Ok(()) => self.forget_wake(key),
            Err(refusal) => self.fail_wake(key, &refusal),
        }
    }

    /// The time of a start is over.
    pub(super) fn end_wake(&mut self, key: &AgentKey) {
        let waking = self.slots.get(key).and_then(|slot| slot.waking);
        let hung = waking.is_some_and(|waking| waking.running);
        self.fail_wake(key, if hung { &Refusal::Fault } else { &Refusal::NoConnection });
    }

    fn fail_wake(&mut self, key: &AgentKey, refusal: &Refusal) {
        self.forget_wake(key);
        // An agent that has come meanwhile, by whatever, is waited for in its own way.
        if self.slots.get(key).is_some_and(|slot| matches!(slot.state, State::Absent)) {
            self.refuse_waiters(key, refusal);
        }
        self.prune(key);
    }

    /// An agent has the key, for which nobody needs to wait any more; a start that still runs is the key's only one.
    pub(super) fn on_arrival(&mut self, key: &AgentKey) {
        if self.slots.get(key).and_then(|slot| slot.waking).is_some_and(|waking| !waking.running) {
            self.forget_wake(key);
        }
    }

    pub(super) fn forget_wake(&mut self, key: &AgentKey) {
        if let Some(waking) = self.slots.get_mut(key).and_then(|slot| slot.waking.take()) {
            self.counts.waking -= 1;
            self.due.remove(&(waking.until, Due::Wake(key.clone())));
        }
    }
}

//! How links come: an agent takes a key with a new session, or goes on with the one that it has.
//!
//! Pure: no runtime, no clock.

use std::{mem, sync::Arc, time::Instant};

use super::{Binding, Bound, Claim, Conflict, Due, Effect, Incumbent, Kept, Registry, Resume, Slot, State};
use crate::{
    connman::policy::Registration,
    frame::{CloseCode, SessionId},
    key::{AgentKey, Epoch},
    proto::{Judgement, Known, judge_attach},
};

impl<T: Clone> Registry<T> {
    /// Who has the key.
    pub(in crate::connman) fn incumbent(&mut self, key: &AgentKey, now: Instant) -> Option<Incumbent> {
        self.expire(now);
        match &self.slots.get(key)?.state {
            State::Connected { kept, .. } => {
                Some(Incumbent { registration: Arc::clone(&kept.registration), connected: true })
            }
            State::Grace { registration, .. } => {
                Some(Incumbent { registration: Arc::clone(registration), connected: false })
            }
            State::Absent => None,
        }
    }

    /// Whether a session of this key has a place, or finds one.
    pub(in crate::connman) fn has_room(&mut self, key: &AgentKey, now: Instant) -> bool {
        let leaves = self.slots.get(key).is_some_and(|slot| !slot.leaving.is_empty());
        leaves || self.incumbent(key, now).is_some() || self.tunnels_left() > 0
    }

    fn tunnels_left(&self) -> usize {
        self.limits.tunnels.saturating_sub(self.counts.connected + self.counts.grace)
    }

    /// Judges the HELLO of a link, in the order that the protocol asks for, and if it names a session that may go on,
    /// binds the link to it by `bind`: all in this one step, which expiry is part of.
    pub(in crate::connman) fn resume<L>(
        &mut self,
        claim: &Claim<'_>,
        now: Instant,
        bind: impl FnOnce(&T) -> Binding<L>,
    ) -> Resume<T, L> {
        self.expire(now);
        if self.closed {
            return Resume::Refused(CloseCode::DRAINED, None);
        }
        let new = claim.registration;
        let is_newest = self.slots.get(&new.key).and_then(Slot::newest).is_none_or(|newest| newest < new.epoch);
        let owner = self.sessions.get(&claim.session).cloned();
        let kept = owner.as_ref().and_then(|owner| self.slots.get(owner)?.kept(claim.session));
        let known = kept.map(|kept| Known {
            same_maker: kept.registration.key == new.key && kept.registration.principal == new.principal,
            attempt: kept.attempt,
        });
        match judge_attach(claim.attempt, is_newest, known) {
            Judgement::Refuse(code) => return Resume::Refused(code, None),
            Judgement::Fresh => return Resume::Fresh(self.incumbent(&new.key, now), None),
            Judgement::Resume => {}
        }
        let Some(kept) = kept else { return Resume::Fresh(self.incumbent(&new.key, now), None) };
        let tunnel = kept.tunnel.clone();
        let Binding { bound, heard, link } = bind(&tunnel);
        match bound {
            Bound::Refused(code) => Resume::Refused(code, Some(link)),
            Bound::Over => Resume::Fresh(self.incumbent(&new.key, now), Some(link)),
            Bound::Yes => {
                self.on_resumed(claim, heard, now);
                Resume::Bound(tunnel, link)
            }
        }
    }

    /// The session of this claim has its link. `heard`: the agent had spoken on the one before.
    fn on_resumed(&mut self, claim: &Claim<'_>, heard: bool, now: Instant) {
        let new = claim.registration;
        let Some(slot) = self.slots.get_mut(&new.key) else { return };
        if let Some(leaving) = slot.leaving.iter_mut().find(|leaving| leaving.kept.session == claim.session) {
            leaving.owed = leaving.owed.filter(|_| !(leaving.up && heard));
            leaving.up = true;
            leaving.kept.renew(claim);
            let (serial, until) = (leaving.kept.serial, leaving.deadline);
            self.cut_at(&new.key, serial, until);
            return;
        }
        slot.reconnects = slot.reconnects.saturating_add(1);
        let (kept, owed, after) = match mem::replace(&mut slot.state, State::Absent) {
            State::Connected { kept, owed, .. } => (kept, owed.filter(|_| !heard), None),
            State::Grace { kept: Some(kept), since, until, .. } => {
                self.counts.grace -= 1;
                self.counts.connected += 1;
                self.due.remove(&(until, Due::Grace(new.key.clone())));
                (kept, Some(until), Some(now.saturating_duration_since(since)))
            }
            // Found by its session, so it keeps that one.
            other => {
                slot.state = other;
                return;
            }
        };
        let mut kept = kept;
        kept.renew(claim);
        let (serial, tunnel) = (kept.serial, kept.tunnel.clone());
        slot.state = State::Connected { kept, since: now, owed };
        self.effects.push(Effect::Resumed { registration: Arc::clone(new), after });
        self.release(&new.key, serial, &tunnel);
    }

    /// Makes `tunnel` the key's current one, with a new session, if the epoch of the incumbent is still `seen`. On a
    /// conflict the tunnel comes back, so that it is not dropped under the caller's lock.
    pub(in crate::connman) fn register(
        &mut self,
        registration: &Arc<Registration>,
        session: SessionId,
        tunnel: T,
        seen: Option<Epoch>,
        now: Instant,
    ) -> Result<(), (Conflict, T)> {
        if let Some(conflict) = self.conflict(registration, seen, now) {
            return Err((conflict, tunnel));
        }
        if !session.is_new() {
            self.sessions.insert(session, registration.key.clone());
        }
        self.gone.forget(&registration.key);
        let slot = self.slots.entry(registration.key.clone()).or_insert_with(Slot::absent);
        let owed = match &slot.state {
            State::Connected { owed, .. } => *owed,
            State::Grace { until, .. } => Some(*until),
            State::Absent => None,
        };
        let serial = registration.epoch;
        let kept = Kept { serial, registration: Arc::clone(registration), tunnel: tunnel.clone(), session, attempt: 0 };
        let old = mem::replace(&mut slot.state, State::Connected { kept, since: now, owed });
        self.counts.connected += 1;
        match old {
            State::Connected { kept, .. } => {
                slot.reconnects = slot.reconnects.saturating_add(1);
                self.counts.connected -= 1;
                self.displace(kept, registration, now);
                self.effects.push(Effect::Connected { registration: Arc::clone(registration) });
            }
            State::Grace { kept, since, until, .. } => {
                slot.reconnects = slot.reconnects.saturating_add(1);
                self.counts.grace -= 1;
                self.due.remove(&(until, Due::Grace(registration.key.clone())));
                if let Some(kept) = kept {
                    self.sessions.remove(&kept.session);
                    let (old, by) = (kept.registration, Arc::clone(registration));
                    self.effects.push(Effect::Outlived { old, tunnel: kept.tunnel, by });
                }
                let after = now.saturating_duration_since(since);
                self.effects.push(Effect::Reconnected { registration: Arc::clone(registration), after });
            }
            State::Absent => self.effects.push(Effect::Connected { registration: Arc::clone(registration) }),
        }
        self.on_arrival(&registration.key);
        self.release(&registration.key, serial, &tunnel);
        Ok(())
    }

    /// What is in the way of a registration that was decided on when the key's incumbent was `seen`.
    fn conflict(&mut self, new: &Registration, seen: Option<Epoch>, now: Instant) -> Option<Conflict> {
        let incumbent = self.incumbent(&new.key, now).map(|old| old.registration.epoch);
        let newest = self.slots.get(&new.key).and_then(Slot::newest);
        if !self.is_open() {
            Some(Conflict::ShuttingDown)
        } else if incumbent != seen || newest.is_some_and(|newest| newest >= new.epoch) {
            Some(Conflict::Changed)
        } else if incumbent.is_none() && self.tunnels_left() == 0 {
            Some(Conflict::Overloaded)
        } else {
            None
        }
    }

    /// Who waits for a key gets its tunnel.
    fn release(&mut self, key: &AgentKey, serial: Epoch, tunnel: &T) {
        for ticket in self.take_waiters(key) {
            self.effects.push(Effect::Release { ticket, serial, tunnel: tunnel.clone() });
        }
    }

    /// The agent has spoken on the link of this epoch: the grace before it is over for good.
    pub(in crate::connman) fn heard(&mut self, key: &AgentKey, epoch: Epoch) {
        if let Some(Slot { state: State::Connected { kept, owed, .. }, .. }) = self.slots.get_mut(key)
            && kept.registration.epoch == epoch
        {
            *owed = None;
        }
        let leaving = self.slots.get_mut(key).into_iter().flat_map(|slot| &mut slot.leaving);
        for leaving in leaving.filter(|leaving| leaving.is(epoch)) {
            leaving.owed = None;
        }
    }
}

impl<T> Slot<T> {
    /// The newest link that any session of the key has, or had last.
    fn newest(&self) -> Option<Epoch> {
        let current = match &self.state {
            State::Connected { kept, .. } => Some(kept.registration.epoch),
            State::Grace { registration, .. } => Some(registration.epoch),
            State::Absent => None,
        };
        self.leaving.iter().map(|leaving| leaving.kept.registration.epoch).chain(current).max()
    }

    /// The session of this id.
    fn kept(&self, session: SessionId) -> Option<&Kept<T>> {
        let current = match &self.state {
            State::Connected { kept, .. } | State::Grace { kept: Some(kept), .. } => Some(kept),
            State::Grace { kept: None, .. } | State::Absent => None,
        };
        current.into_iter().chain(self.leaving.iter().map(|leaving| &leaving.kept)).find(|kept| kept.session == session)
    }
}

impl<T> Kept<T> {
    fn renew(&mut self, claim: &Claim<'_>) {
        self.registration = Arc::clone(claim.registration);
        self.attempt = claim.attempt;
    }
}

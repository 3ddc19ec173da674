//! How links and sessions go: lost and held, lost for good, displaced, draining, cut off.
//!
//! Pure: no runtime, no clock.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Due, Effect, Kept, Leaving, Link, Refusal, Registry, State, after};
use crate::{
    connman::policy::{Grace, LossCause, Registration},
    frame::CloseCode,
    key::{AgentKey, Epoch},
};

/// Sessions of one key that may leave at once; the oldest is cut off for one more. An agent that moves on has one, and
/// another one for each server that went down while a long stream ran.
const MAX_LEAVING: usize = 4;

impl<T: Clone> Registry<T> {
    /// The link of this epoch. `None`: its session has a newer one, or none, and what it reports is stale.
    pub(in crate::connman) fn link(&self, key: &AgentKey, epoch: Epoch) -> Option<Link<T>> {
        let slot = self.slots.get(key)?;
        match &slot.state {
            State::Connected { kept, since, .. } if kept.registration.epoch == epoch => {
                Some(Link { tunnel: kept.tunnel.clone(), since: Some(*since), losses: slot.losses })
            }
            _ => {
                let leaving = slot.leaving.iter().find(|leaving| leaving.is(epoch))?;
                Some(Link { tunnel: leaving.kept.tunnel.clone(), since: None, losses: slot.losses })
            }
        }
    }

    /// The link of this epoch was lost at `at`. False: the report is stale, and nothing changed. If a grace came before
    /// it and its agent was not [heard](Self::heard), that grace goes on, without what `grace` would add. `over`: its
    /// session has ended.
    pub(in crate::connman) fn link_lost(
        &mut self,
        key: &AgentKey,
        epoch: Epoch,
        cause: LossCause,
        grace: Grace,
        over: bool,
        (at, now): (Instant, Instant),
    ) -> bool {
        self.expire(now);
        match self.link(key, epoch) {
            None => return false,
            Some(Link { since: None, .. }) => self.on_leaving_lost(key, epoch, grace, over, at),
            Some(_) => match grace {
                Grace::Drop => self.lose_for_good(key, cause, at),
                Grace::Hold(hold) => self.hold(key, cause, at, hold),
            },
        }
        self.expire(now);
        true
    }

    fn hold(&mut self, key: &AgentKey, cause: LossCause, at: Instant, hold: Duration) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let State::Connected { owed, .. } = &slot.state else { return };
        // Links on which nobody speaks must not prolong a grace, however many there are.
        let hold = owed.map_or(hold, |until| until.saturating_duration_since(at));
        let until = owed.unwrap_or_else(|| after(at, hold));
        slot.losses = slot.losses.saturating_add(1);
        slot.last_cause = Some(cause);
        if let Some(kept) = self.hold_place(key, at, until) {
            let registration = Arc::clone(&kept.registration);
            if let Some(slot) = self.slots.get_mut(key)
                && let State::Grace { kept: place, .. } = &mut slot.state
            {
                *place = Some(kept);
            }
            self.effects.push(Effect::Lost { registration, tunnel: None, cause, hold: Some(hold) });
        }
    }

    /// Takes a connected key's session out of its place, and has the key in grace from here on.
    fn hold_place(&mut self, key: &AgentKey, since: Instant, until: Instant) -> Option<Kept<T>> {
        let slot = self.slots.get_mut(key)?;
        let State::Connected { kept, .. } = mem::replace(&mut slot.state, State::Absent) else { return None };
        let registration = Arc::clone(&kept.registration);
        slot.state = State::Grace { registration, kept: None, since, until };
        self.wait_for_grace(key);
        self.counts.connected -= 1;
        self.counts.grace += 1;
        self.due.insert((until, Due::Grace(key.clone())));
        Some(kept)
    }

    fn set_last_cause(&mut self, key: &AgentKey, cause: LossCause) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.last_cause = Some(cause);
        }
    }

    fn lose_for_good(&mut self, key: &AgentKey, cause: LossCause, at: Instant) {
        self.set_last_cause(key, cause);
        if let Some(State::Connected { kept, .. }) = self.vacate(key, &Refusal::NoConnection, at) {
            let Kept { registration, tunnel, .. } = kept;
            self.effects.push(Effect::Lost { registration, tunnel: Some(tunnel), cause, hold: None });
        }
    }

    /// A link of a session that leaves is lost. It may come back within its hold, unless it was replaced.
    fn on_leaving_lost(&mut self, key: &AgentKey, epoch: Epoch, grace: Grace, over: bool, at: Instant) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let Some(leaving) = slot.leaving.iter_mut().find(|leaving| leaving.is(epoch)) else { return };
        leaving.up = false;
        let serial = leaving.kept.serial;
        match grace {
            Grace::Hold(hold) if !over && leaving.code != CloseCode::REPLACED => {
                let until = leaving.owed.unwrap_or_else(|| after(at, hold)).min(leaving.deadline);
                leaving.owed = Some(until);
                self.cut_at(key, serial, until);
            }
            _ => self.cut(key, serial),
        }
    }

    /// Has a session that leaves be cut off at another time.
    pub(super) fn cut_at(&mut self, key: &AgentKey, serial: Epoch, until: Instant) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let Some(leaving) = slot.leaving.iter_mut().find(|leaving| leaving.kept.serial == serial) else { return };
        let old = mem::replace(&mut leaving.until, until);
        self.due.remove(&(old, Due::Leaving(key.clone(), serial)));
        self.due.insert((until, Due::Leaving(key.clone(), serial)));
    }

    /// A connected key's session gives its place to the one of `by`.
    pub(super) fn displace(&mut self, kept: Kept<T>, by: &Arc<Registration>, now: Instant) {
        let drain = self.limits.drain;
        let (old, tunnel) = (Arc::clone(&kept.registration), kept.tunnel.clone());
        let code = if old.instance == by.instance { CloseCode::STALE } else { CloseCode::REPLACED };
        if drain.is_zero() {
            self.sessions.remove(&kept.session);
        } else {
            self.leave(kept, None, code, after(now, drain));
        }
        self.effects.push(Effect::Displaced { old, tunnel, by: Arc::clone(by), code, drain });
    }

    /// The agent drains the session of this epoch: it finishes what runs, for so long, and the key waits for the next
    /// one as `grace` says. False: it leaves already, or the report is stale.
    pub(in crate::connman) fn drained_by_agent(
        &mut self,
        key: &AgentKey,
        epoch: Epoch,
        drain: Duration,
        grace: Grace,
        now: Instant,
    ) -> bool {
        self.expire(now);
        if !matches!(self.link(key, epoch), Some(Link { since: Some(_), .. })) {
            return false;
        }
        let hold = if let Grace::Hold(hold) = grace { hold } else { Duration::ZERO };
        let Some(kept) = self.hold_place(key, now, after(now, hold)) else { return false };
        self.set_last_cause(key, LossCause::Drained);
        self.effects.push(Effect::Drained { registration: Arc::clone(&kept.registration) });
        self.leave(kept, None, CloseCode::DRAINED, after(now, drain));
        if matches!(grace, Grace::Drop) {
            self.vacate(key, &Refusal::NoConnection, now);
        }
        self.expire(now);
        true
    }

    /// Every session leaves, with this code, until then; nothing new is taken, and who waits waits in vain.
    pub(in crate::connman) fn drain(&mut self, code: CloseCode, until: Instant, now: Instant) {
        self.expire(now);
        self.draining = Some(code);
        let keys: Vec<AgentKey> = self.slots.keys().cloned().collect();
        for key in keys {
            let (kept, held) = match self.slots.get_mut(&key).map(|slot| &mut slot.state) {
                Some(State::Connected { .. }) => {
                    self.set_last_cause(&key, LossCause::Local(code));
                    (self.hold_place(&key, now, until), None)
                }
                Some(State::Grace { kept, until: old, .. }) => {
                    let kept = kept.take();
                    let old = mem::replace(old, until);
                    self.due.remove(&(old, Due::Grace(key.clone())));
                    self.due.insert((until, Due::Grace(key.clone())));
                    (kept, Some(old))
                }
                Some(State::Absent) | None => (None, None),
            };
            if let Some(kept) = kept {
                let (registration, tunnel) = (Arc::clone(&kept.registration), kept.tunnel.clone());
                self.leave(kept, held, code, until);
                self.effects.push(Effect::Draining {
                    registration,
                    tunnel,
                    code,
                    drain: until.saturating_duration_since(now),
                });
            }
        }
    }

    /// `held`: it has no link, and is held until then.
    fn leave(&mut self, kept: Kept<T>, held: Option<Instant>, code: CloseCode, deadline: Instant) {
        let key = kept.registration.key.clone();
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let serial = kept.serial;
        let oldest = slot.leaving.first().filter(|_| slot.leaving.len() >= MAX_LEAVING);
        let oldest = oldest.map(|oldest| oldest.kept.serial);
        let until = held.map_or(deadline, |held| held.min(deadline));
        slot.leaving.push(Leaving { kept, up: held.is_none(), until, deadline, owed: held, code });
        self.counts.leaving += 1;
        self.due.insert((until, Due::Leaving(key.clone(), serial)));
        if let Some(serial) = oldest {
            self.cut(&key, serial);
        }
    }

    /// Gives up the session without a link whose hold ends first; its key is waited for all the same. False: there is
    /// none.
    pub(in crate::connman) fn evict(&mut self) -> bool {
        let lost = self.due.iter().find_map(|(_, due)| {
            let Due::Leaving(key, serial) = due else { return None };
            let leaving = &self.slots.get(key)?.leaving;
            leaving.iter().any(|leaving| leaving.kept.serial == *serial && !leaving.up).then(|| (key.clone(), *serial))
        });
        if let Some((key, serial)) = lost
            && let Some(Leaving { kept: Kept { registration, tunnel, .. }, .. }) = self.take_leaving(&key, serial)
        {
            self.effects.push(Effect::Evicted { registration, tunnel });
            return true;
        }
        let Self { due, slots, sessions, effects, .. } = self;
        let kept = due.iter().find_map(|(_, due)| {
            let Due::Grace(key) = due else { return None };
            let State::Grace { kept, .. } = &mut slots.get_mut(key)?.state else { return None };
            kept.take()
        });
        let Some(Kept { registration, tunnel, session, .. }) = kept else { return false };
        sessions.remove(&session);
        effects.push(Effect::Evicted { registration, tunnel });
        true
    }

    /// A session that leaves has had its time.
    pub(super) fn cut(&mut self, key: &AgentKey, serial: Epoch) {
        if let Some(Leaving { kept, up, code, .. }) = self.take_leaving(key, serial) {
            let lost = !up && code != CloseCode::REPLACED;
            self.effects.push(Effect::Cut { tunnel: kept.tunnel, code, lost });
        }
    }

    fn take_leaving(&mut self, key: &AgentKey, serial: Epoch) -> Option<Leaving<T>> {
        let slot = self.slots.get_mut(key)?;
        let at = slot.leaving.iter().position(|leaving| leaving.kept.serial == serial)?;
        let leaving = slot.leaving.remove(at);
        self.counts.leaving -= 1;
        self.sessions.remove(&leaving.kept.session);
        self.due.remove(&(leaving.until, Due::Leaving(key.clone(), serial)));
        self.prune(key);
        Some(leaving)
    }

    /// Makes a key absent, whatever it is: its sessions are closed with `code`, who waits is refused. False: it was
    /// absent.
    pub(in crate::connman) fn close(
        &mut self,
        key: &AgentKey,
        code: CloseCode,
        refusal: &Refusal,
        now: Instant,
    ) -> bool {
        self.expire(now);
        let leaving: Vec<Epoch> =
            self.slots.get(key).into_iter().flat_map(|slot| &slot.leaving).map(|leaving| leaving.kept.serial).collect();
        for serial in &leaving {
            if let Some(Leaving { kept: Kept { registration, tunnel, .. }, .. }) = self.take_leaving(key, *serial) {
                self.effects.push(Effect::Closed { registration, tunnel, code, told: false });
            }
        }
        let drained = self.was_drained(key);
        self.set_last_cause(key, LossCause::Local(code));
        match self.vacate(key, refusal, now) {
            Some(State::Connected { kept: Kept { registration, tunnel, .. }, .. }) => {
                self.effects.push(Effect::Closed { registration, tunnel, code, told: true });
                true
            }
            Some(State::Grace { registration, kept, .. }) => {
                if let Some(Kept { registration, tunnel, .. }) = kept {
                    self.effects.push(Effect::Closed { registration, tunnel, code, told: false });
                }
                self.effects.push(Effect::Expired { registration, tunnel: None, ended: Some(code), drained });
                true
            }
            Some(State::Absent) | None => !leaving.is_empty(),
        }
    }

    /// Closes every tunnel with `code`, and refuses everything from now on.
    pub(in crate::connman) fn shut_down(&mut self, code: CloseCode, now: Instant) {
        self.closed = true;
        let keys: Vec<AgentKey> = self.slots.keys().cloned().collect();
        for key in keys {
            self.close(&key, code, &Refusal::ShuttingDown, now);
            self.forget_wake(&key);
            self.prune(&key);
        }
    }
}

impl<T> Leaving<T> {
    /// Whether its link is that of this epoch.
    pub(super) fn is(&self, epoch: Epoch) -> bool {
        self.up && self.kept.registration.epoch == epoch
    }
}

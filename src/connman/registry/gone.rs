//! Which keys are gone, since when and why: a memory that is bounded by count and by age.
//!
//! Pure: no runtime, no clock.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use super::{Refusal, Registry, State};
use crate::{connman::policy::LossCause, key::AgentKey};

/// Keys that are remembered: 2 MiB or so. The oldest goes for one more.
pub(super) const MAX_GONE: usize = 10_000;

/// For how long: who asks later learns nothing from how it was.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// Since when a key has had no link, and how its last one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::connman) struct Departure {
    pub(in crate::connman) since: Instant,
    pub(in crate::connman) cause: LossCause,
}

/// The keys that are gone.
#[derive(Debug, Default)]
pub(super) struct Departures {
    /// With when each became absent.
    by_key: HashMap<AgentKey, (Instant, Departure)>,
    by_time: BTreeSet<(Instant, AgentKey)>,
}

impl Departures {
    fn remember(&mut self, key: &AgentKey, departure: Departure, at: Instant) {
        self.forget(key);
        self.by_key.insert(key.clone(), (at, departure));
        self.by_time.insert((at, key.clone()));
        if self.by_key.len() > MAX_GONE {
            self.forget_oldest();
        }
    }

    pub(super) fn forget(&mut self, key: &AgentKey) {
        if let Some((at, _)) = self.by_key.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.by_time.pop_first() {
            self.by_key.remove(&key);
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while self.by_time.first().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= MAX_AGE) {
            self.forget_oldest();
        }
    }
}

impl<T: Clone> Registry<T> {
    /// Since when a key is gone, and why; `None`: it is not absent, or was not connected for as long as is remembered.
    pub(in crate::connman) fn gone(&mut self, key: &AgentKey, now: Instant) -> Option<Departure> {
        self.expire(now);
        self.departure(key)
    }

    fn departure(&self, key: &AgentKey) -> Option<Departure> {
        self.gone.by_key.get(key).map(|(_, departure)| *departure)
    }

    /// Remembers a key that becomes absent at `at`.
    pub(super) fn remember(&mut self, key: &AgentKey, at: Instant) {
        let Some(slot) = self.slots.get(key) else { return };
        let since = match &slot.state {
            State::Connected { .. } => at,
            State::Grace { since, .. } => *since,
            State::Absent => return,
        };
        if let Some(cause) = slot.last_cause {
            self.gone.remember(key, Departure { since, cause }, at);
        }
    }

    /// The refusal of a dial to a key, with what is known of the key if it is gone.
    pub(super) fn explained(&self, key: &AgentKey, refusal: Refusal) -> Refusal {
        match (refusal, self.departure(key)) {
            (Refusal::NoConnection, Some(departure)) => Refusal::Gone(departure),
            (Refusal::NotWoken(text, _), departure) => Refusal::NotWoken(text, departure),
            (refusal, _) => refusal,
        }
    }
}

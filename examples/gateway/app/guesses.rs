//! How often callers may show a wrong token: so often at once from one address, and then at a rate.
//!
//! Beyond that nothing from there is judged, so that a good guess is not told from a bad one. With the address of a
//! proxy for all callers one who guesses would shut out all of them: `--trusted-proxy` says which one tells addresses.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// As `RevDialLayer::max_auth_failures` has them for sandboxes.
const BURST: u32 = 50;
const EVERY: Duration = Duration::from_millis(200);

/// Addresses that are remembered at once.
const MAX_SOURCES: usize = 4096;

/// How often they are looked through for those to forget, when there is no room for another.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Default)]
pub(crate) struct Guesses(Arc<Mutex<Sources>>);

#[derive(Default)]
struct Sources {
    /// Each that was wrong lately, and when that is forgotten.
    forgotten_at: HashMap<IpAddr, Instant>,
    sweep_at: Option<Instant>,
}

impl Guesses {
    /// How long nothing from there is judged.
    pub(crate) fn wait(&self, caller: IpAddr, now: Instant) -> Option<Duration> {
        let forgotten_at = *self.lock().forgotten_at.get(&source(caller))?;
        let beyond = (forgotten_at + EVERY).saturating_duration_since(now).saturating_sub(EVERY * BURST);
        (!beyond.is_zero()).then_some(beyond)
    }

    /// It was a wrong one. Where there is no room it does not count: one who has that many addresses can try as often as
    /// with them, and others are not shut out.
    pub(crate) fn wrong(&self, caller: IpAddr, now: Instant) {
        let (source, mut sources) = (source(caller), self.lock());
        if sources.has_room(source, now) {
            let forgotten_at = sources.forgotten_at.entry(source).or_insert(now);
            *forgotten_at = now.max(*forgotten_at) + EVERY;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sources> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sources {
    /// Whether this one has a place, or can have one.
    fn has_room(&mut self, source: IpAddr, now: Instant) -> bool {
        if self.forgotten_at.contains_key(&source) || self.forgotten_at.len() < MAX_SOURCES {
            return true;
        }
        if self.sweep_at.is_none_or(|at| at <= now) {
            self.sweep_at = Some(now + SWEEP_EVERY);
            self.forgotten_at.retain(|_, forgotten_at| *forgotten_at > now);
        }
        self.forgotten_at.len() < MAX_SOURCES
    }
}

/// Who counts as one: an IPv4 address, or the 64 bits of IPv6 that a subscriber is given.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

//! How often callers may show a wrong token: so often at once from one address, and then at a rate.
//!
//! Beyond that nothing from there is judged, so that a good guess is not told from a bad one. With the address of a
//! proxy for all callers one who guesses would shut out all of them: `--trusted-proxy` says which one tells addresses.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// As `RevDialLayer::max_auth_failures` has them for sandboxes.
const BURST: u32 = 50;
const EVERY: Duration = Duration::from_millis(200);

/// Addresses that are remembered at once.
const MAX_SOURCES: usize = 4096;

/// Each source that was wrong lately, and when that is forgotten.
#[derive(Clone, Default)]
pub(crate) struct Guesses(Arc<Mutex<HashMap<IpAddr, Instant>>>);

impl Guesses {
    /// How long nothing from there is judged.
    pub(crate) fn wait(&self, caller: IpAddr, now: Instant) -> Option<Duration> {
        let forgotten_at = self.with(|sources| sources.get(&source(caller)).copied())?;
        let beyond = (forgotten_at + EVERY).saturating_duration_since(now).saturating_sub(EVERY * BURST);
        (!beyond.is_zero()).then_some(beyond)
    }

    /// It was a wrong one.
    pub(crate) fn wrong(&self, caller: IpAddr, now: Instant) {
        let source = source(caller);
        self.with(|sources| {
            if !sources.contains_key(&source) && sources.len() >= MAX_SOURCES {
                sources.retain(|_, forgotten_at| *forgotten_at > now);
            }
            // Those are left that came from everywhere at once: the one that did the least makes room.
            if !sources.contains_key(&source) && sources.len() >= MAX_SOURCES {
                let least = sources.iter().min_by_key(|(_, forgotten_at)| **forgotten_at).map(|(source, _)| *source);
                least.map(|least| sources.remove(&least));
            }
            let forgotten_at = sources.entry(source).or_insert(now);
            *forgotten_at = now.max(*forgotten_at) + EVERY;
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<IpAddr, Instant>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Who counts as one: an IPv4 address, or the 64 bits of IPv6 that a subscriber is given.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

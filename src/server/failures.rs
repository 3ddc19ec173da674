//! How many authentications may fail, and from where: a bucket of tokens for each source, bounded in all.
//!
//! Pure: no IO, no clock, no lock.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Sources that are told apart: at about 64 bytes each, 256 KiB. Only those count that failed lately.
const MAX_SOURCES: usize = 4096;

/// No source is shut out for longer after its last failure, however much it owes.
const MAX_DEBT: Duration = Duration::from_secs(3600);

/// The longest time after which one more may fail; by clocks a time for ever cannot be told.
const MAX_EVERY: Duration = Duration::from_secs(365 * 24 * 3600);

/// How often sources are looked through for those to forget, when there is no room for another.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Failed authentications, by the address that they came from.
///
/// A bucket of `burst` tokens is kept as the time at which it will be full again: each failure puts that off by `every`,
/// also where none is left, since any number may have been judged side by side: those are owed.
#[derive(Debug)]
pub(crate) struct Failures {
    burst: u32,
    every: Duration,
    sources: HashMap<IpAddr, Instant>,
    /// Those of unknown address, and those for which there is no room.
    others: Option<Instant>,
    sweep_at: Option<Instant>,
}

impl Failures {
    /// So many at once from one source, at least one, and then one more in each `every`.
    pub(crate) fn new(burst: u32, every: Duration) -> Self {
        Self { burst: burst.max(1), every: every.min(MAX_EVERY), sources: HashMap::new(), others: None, sweep_at: None }
    }

    /// For how long nothing is listened to from this address, since too much failed from there. Of an address that is
    /// not known everything is: it may be anybody's.
    pub(crate) fn wait(&self, address: Option<IpAddr>, now: Instant) -> Option<Duration> {
        self.wait_for(*self.sources.get(&source(address?))?, now)
    }

    /// An authentication failed. `Some`: it was one too many, and the next is in order after so long.
    pub(crate) fn record(&mut self, address: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let source = address.map(source).filter(|source| self.has_room(*source, now));
        let full_at = source.map_or(self.others, |source| self.sources.get(&source).copied()).unwrap_or(now);
        let wait = self.wait_for(full_at, now);
        // Of those who share a bucket none is shut out by it, so that it owes nothing.
        let may_owe = source.is_some() && wait.is_none_or(|wait| wait < MAX_DEBT);
        if wait.is_none() || may_owe {
            let later = full_at.max(now).checked_add(self.every).unwrap_or(full_at);
            match source {
                Some(source) => drop(self.sources.insert(source, later)),
                None => self.others = Some(later),
            }
        }
        wait
    }

    /// Until a bucket has a token that will be full then.
    fn wait_for(&self, full_at: Instant, now: Instant) -> Option<Duration> {
        let missing = full_at.saturating_duration_since(now).saturating_add(self.every);
        missing.checked_sub(self.every.saturating_mul(self.burst)).filter(|wait| !wait.is_zero())
    }

    /// Whether this source has a place, or can have one. Full buckets need none.
    fn has_room(&mut self, source: IpAddr, now: Instant) -> bool {
        if self.sources.contains_key(&source) || self.sources.len() < MAX_SOURCES {
            return true;
        }
        if self.sweep_at.is_none_or(|at| at <= now) {
            self.sweep_at = now.checked_add(SWEEP_EVERY);
            self.sources.retain(|_, full_at| *full_at > now);
        }
        self.sources.len() < MAX_SOURCES
    }
}

/// Who counts as one: an IPv4 address, or the 64 bits of IPv6 that a subscriber is given.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(200);

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn fail(failures: &mut Failures, address: Option<IpAddr>, times: u32, now: Instant) {
        for nth in 0..times {
            assert_eq!(failures.record(address, now), None, "the {nth}th");
        }
    }

    #[test]
    fn a_source_fails_so_often_at_once_and_then_at_the_rate() {
        let (mut failures, start) = (Failures::new(3, EVERY), Instant::now());
        let here = address("192.0.2.1");
        assert_eq!(failures.wait(here, start), None);
        fail(&mut failures, here, 3, start);
        assert_eq!(failures.wait(here, start), Some(EVERY));
        let soon = start + EVERY / 4;
        assert_eq!(failures.wait(here, soon), Some(EVERY * 3 / 4));
        fail(&mut failures, here, 1, start + EVERY);
        assert_eq!(failures.wait(here, start + EVERY), Some(EVERY));
        // Whole again, and not more than that.
        let late = start + EVERY * 100;
        fail(&mut failures, here, 3, late);
        assert_eq!(failures.wait(here, late), Some(EVERY));
    }

    #[test]
    fn what_fails_side_by_side_beyond_the_burst_is_owed_up_to_an_hour() {
        let (mut failures, now) = (Failures::new(2, EVERY), Instant::now());
        let here = address("192.0.2.1");
        fail(&mut failures, here, 2, now);
        for nth in 1..=10 {
            assert_eq!(failures.record(here, now), Some(EVERY * nth));
        }
        assert_eq!(failures.wait(here, now), Some(EVERY * 11));
        assert_eq!(failures.wait(here, now + EVERY * 10), Some(EVERY));
        assert_eq!(failures.wait(here, now + EVERY * 11), None);
        (0..100_000).for_each(|_| assert!(failures.record(here, now).is_some()));
        assert!(failures.wait(here, now).is_some_and(|wait| wait >= MAX_DEBT && wait <= MAX_DEBT + EVERY));
        assert_eq!(failures.record(None, now), None);
        (0..100_000).for_each(|_| assert!(failures.record(None, now).is_none_or(|wait| wait == EVERY)));
        assert_eq!(failures.record(None, now), Some(EVERY), "those who share a bucket owe nothing");
    }

    #[test]
    fn what_others_do_is_nothing_to_a_source() {
        let (mut failures, now) = (Failures::new(2, EVERY), Instant::now());
        for others in [address("192.0.2.1"), address("2001:db8::1"), None] {
            fail(&mut failures, others, 2, now);
            assert_eq!(failures.record(others, now), Some(EVERY));
        }
        assert_eq!(failures.wait(address("192.0.2.2"), now), None);
        assert_eq!(failures.wait(address("2001:db8:0:1::1"), now), None);
        assert_eq!(failures.wait(None, now), None, "it may be anybody");
    }

    #[test]
    fn an_address_is_one_source_however_it_is_written() {
        let (mut failures, now) = (Failures::new(1, EVERY), Instant::now());
        fail(&mut failures, address("::ffff:192.0.2.1"), 1, now);
        assert!(failures.wait(address("192.0.2.1"), now).is_some());
        fail(&mut failures, address("2001:db8::1"), 1, now);
        assert!(failures.wait(address("2001:db8::ffff:1"), now).is_some());
    }

    #[test]
    fn memory_is_bounded_and_who_finds_no_place_shares_one() {
        let (mut failures, now) = (Failures::new(1, EVERY), Instant::now());
        let nth = |n: usize| Some(IpAddr::V6(Ipv6Addr::from_bits((n as u128) << 64)));
        for n in 0..MAX_SOURCES {
            fail(&mut failures, nth(n), 1, now);
        }
        let newcomer = nth(MAX_SOURCES);
        fail(&mut failures, newcomer, 1, now);
        assert_eq!(failures.sources.len(), MAX_SOURCES);
        assert!(failures.record(newcomer, now).is_some() && failures.record(None, now).is_some());
        assert_eq!(failures.wait(newcomer, now), None, "but it is listened to");
        // A second later all of them are forgotten.
        fail(&mut failures, newcomer, 1, now + SWEEP_EVERY);
        assert_eq!(failures.sources.len(), 1);
    }

    #[test]
    fn extreme_settings_neither_overflow_nor_refuse_the_first() {
        for (burst, every) in [(0, EVERY), (u32::MAX, Duration::MAX), (1, Duration::ZERO), (u32::MAX, EVERY)] {
            let (mut failures, now) = (Failures::new(burst, every), Instant::now());
            fail(&mut failures, address("192.0.2.1"), 1, now);
            failures.record(address("192.0.2.1"), now);
            failures.wait(address("192.0.2.1"), now);
        }
    }
}

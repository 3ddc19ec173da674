//! How many authentications may fail, and from where: a bucket of tokens for each source, bounded in all.
//!
//! Pure: no IO, no clock, no lock.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

/// Sources that are told apart: at about 160 bytes each, 640 KiB. Only those count that failed lately, or are judged now.
const MAX_SOURCES: usize = 4096;

/// How often sources are looked through for those to forget, when there is no room for another.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The longest time after which one more may fail; by clocks a time for ever cannot be told.
const MAX_EVERY: Duration = Duration::from_secs(365 * 24 * 3600);

/// Failed authentications, by the address that they came from.
///
/// A request holds a token while it is judged, which it loses if it fails: so no more can fail than there are tokens,
/// however many come at once. `W` is what others from its address wait on meanwhile.
#[derive(Debug)]
pub(crate) struct Failures<W> {
    limit: Limit,
    sources: HashMap<IpAddr, Source<W>>,
    /// Those of unknown address, and those for which there is no room: when their bucket is full again.
    others: Option<Instant>,
    sweep_at: Option<Instant>,
}

/// What becomes of a request that is to be judged.
#[derive(Debug)]
pub(crate) enum Admission<W> {
    /// It holds a token of this source, until [`Failures::end`].
    Judged(IpAddr),
    /// It holds none, since it may be anybody's. If it fails that is for [`Failures::record`].
    Unheld,
    /// All tokens that are left are held by others.
    Waits(Arc<W>),
    /// Too much has failed, and something may fail again after so long.
    Refused(Duration),
}

impl<W: Default> Failures<W> {
    /// So many at once from one source, at least one, and then one more in each `every`.
    pub(crate) fn new(burst: u32, every: Duration) -> Self {
        let limit = Limit { burst: burst.max(1), every: every.min(MAX_EVERY) };
        Self { limit, sources: HashMap::new(), others: None, sweep_at: None }
    }

    /// For how long nothing is listened to from this address, since too much failed from there. Of an address that is
    /// not known everything is: it may be anybody's.
    pub(crate) fn wait(&self, address: Option<IpAddr>, now: Instant) -> Option<Duration> {
        self.limit.wait(self.sources.get(&source(address?))?.full_at, 0, now)
    }

    /// A request is to be judged.
    pub(crate) fn begin(&mut self, address: Option<IpAddr>, now: Instant) -> Admission<W> {
        let Some(from) = address.map(source).filter(|from| self.has_room(*from, now)) else { return Admission::Unheld };
        let found = self.sources.entry(from).or_insert_with(|| Source::new(now));
        if let Some(wait) = self.limit.wait(found.full_at, 0, now) {
            return Admission::Refused(wait);
        }
        if self.limit.wait(found.full_at, found.held, now).is_some() {
            return Admission::Waits(Arc::clone(&found.turn));
        }
        found.held = found.held.saturating_add(1);
        Admission::Judged(from)
    }

    /// A request of this source has been judged. `Some`: others wait for that.
    pub(crate) fn end(&mut self, from: IpAddr, has_failed: bool, now: Instant) -> Option<Arc<W>> {
        let found = self.sources.get_mut(&from)?;
        found.held = found.held.saturating_sub(1);
        if has_failed {
            found.full_at = self.limit.spend(found.full_at, now);
        }
        if found.is_waited_for() {
            return Some(Arc::clone(&found.turn));
        }
        if found.is_idle(now) {
            self.sources.remove(&from);
        }
        None
    }

    /// An authentication failed that held no token. `Some`: it was one too many, and the next is in order after so long.
    pub(crate) fn record(&mut self, address: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let from = address.map(source).filter(|from| self.has_room(*from, now));
        let full_at = match from {
            Some(from) => &mut self.sources.entry(from).or_insert_with(|| Source::new(now)).full_at,
            None => self.others.get_or_insert(now),
        };
        let wait = self.limit.wait(*full_at, 0, now);
        if wait.is_none() {
            *full_at = self.limit.spend(*full_at, now);
        }
        wait
    }

    /// Whether this source has a place, or can have one. Full buckets need none.
    fn has_room(&mut self, from: IpAddr, now: Instant) -> bool {
        if self.sources.contains_key(&from) || self.sources.len() < MAX_SOURCES {
            return true;
        }
        if self.sweep_at.is_none_or(|at| at <= now) {
            self.sweep_at = now.checked_add(SWEEP_EVERY);
            self.sources.retain(|_, source| !source.is_idle(now));
        }
        self.sources.len() < MAX_SOURCES
    }
}

/// The size of a bucket, and how fast it fills. What is in one is told by the time at which it will be full.
#[derive(Debug, Clone, Copy)]
struct Limit {
    burst: u32,
    every: Duration,
}

impl Limit {
    /// Until this bucket has a token beside those that are held.
    fn wait(self, full_at: Instant, held: u32, now: Instant) -> Option<Duration> {
        let taken = self.every.saturating_mul(held.saturating_add(1));
        let missing = full_at.saturating_duration_since(now).saturating_add(taken);
        missing.checked_sub(self.every.saturating_mul(self.burst)).filter(|wait| !wait.is_zero())
    }

    /// When this bucket will be full, now that a token is spent.
    fn spend(self, full_at: Instant, now: Instant) -> Instant {
        full_at.max(now).checked_add(self.every).unwrap_or(full_at)
    }
}

/// The bucket of one source.
#[derive(Debug)]
struct Source<W> {
    full_at: Instant,
    /// Tokens of requests that are being judged.
    held: u32,
    /// Whoever waits has a clone.
    turn: Arc<W>,
}

impl<W: Default> Source<W> {
    fn new(now: Instant) -> Self {
        Self { full_at: now, held: 0, turn: Arc::default() }
    }

    fn is_waited_for(&self) -> bool {
        Arc::strong_count(&self.turn) > 1
    }

    /// Whether it is as one of whom nothing is known.
    fn is_idle(&self, now: Instant) -> bool {
        self.full_at <= now && self.held == 0 && !self.is_waited_for()
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

    fn fail(failures: &mut Failures<()>, address: Option<IpAddr>, times: u32, now: Instant) {
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
        assert_eq!(failures.record(here, start), Some(EVERY), "which does not count");
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
        let (mut failures, now) = (Failures::new(1, Duration::MAX), Instant::now());
        fail(&mut failures, address("192.0.2.1"), 1, now);
        assert!(failures.wait(address("192.0.2.1"), now + Duration::from_secs(3600)).is_some());
    }

    /// The source of a request that has to be judged.
    fn judged(failures: &mut Failures<()>, now: Instant) -> IpAddr {
        match failures.begin(address("192.0.2.1"), now) {
            Admission::Judged(from) => from,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_more_are_judged_at_once_than_may_fail() {
        let (mut failures, now) = (Failures::new(3, EVERY), Instant::now());
        let from = judged(&mut failures, now);
        failures.end(from, true, now);
        for _ in 0..2 {
            judged(&mut failures, now);
        }
        assert!(matches!(failures.begin(address("192.0.2.1"), now), Admission::Waits(_)));
        assert_eq!(failures.wait(address("192.0.2.1"), now), None, "they need not fail");
        failures.end(from, false, now);
        judged(&mut failures, now);
        for _ in 0..2 {
            failures.end(from, true, now);
        }
        assert!(matches!(failures.begin(address("192.0.2.1"), now), Admission::Refused(EVERY)));
        judged(&mut failures, now + EVERY);
        assert!(matches!(failures.begin(None, now), Admission::Unheld));
    }

    #[test]
    fn what_ends_well_leaves_nothing_but_while_somebody_waits() {
        let (mut failures, now) = (Failures::new(1, EVERY), Instant::now());
        let from = judged(&mut failures, now);
        let waits = failures.begin(address("192.0.2.1"), now);
        assert!(matches!(waits, Admission::Waits(_)));
        assert!(failures.end(from, false, now).is_some());
        assert_eq!(failures.sources.len(), 1);
        drop(waits);
        judged(&mut failures, now);
        assert!(failures.end(from, false, now).is_none());
        assert_eq!(failures.sources.len(), 0);
    }
}

//! How soon an agent tries again, by what went wrong and by what got through before. Pure.

use std::time::{Duration, Instant};

use super::{
    backoff::Backoff,
    refusal::{Retry, Setback},
};
use crate::proto::FloodBudget;

/// A link that stood for this long is progress even if nobody used it.
const STEADY: Duration = Duration::from_secs(30);

/// How many lost links in a second are dialled anew without delay, in the long run: a path that cuts each link after a
/// little data is a nuisance, and still carries all of it; without a bound it would be a storm of handshakes.
const AT_ONCE_PER_SECOND: u32 = 25;

/// How many seconds' worth of that may come at a time.
const AT_ONCE_BURST: Duration = Duration::from_secs(5);

/// How a link that was up went.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Past {
    /// A counted message, or the ack of one, got through on it.
    pub(crate) progress: bool,
    /// For how long it stood.
    pub(crate) stood: Duration,
}

/// The pace of an agent's attempts.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    backoff: Backoff,
    at_once: FloodBudget,
}

impl Pace {
    /// The pace that these settings give.
    pub(crate) fn new(backoff: Backoff) -> Self {
        let second = Duration::from_secs(1);
        Self { backoff, at_once: FloodBudget::new("links lost", AT_ONCE_PER_SECOND, second, AT_ONCE_BURST) }
    }

    /// How long to wait for the next attempt; `None` if there is none. `random` is uniform over all of `u64`.
    pub(crate) fn delay(&mut self, setback: &Setback, past: Past, now: Instant, random: u64) -> Option<Duration> {
        let progress = past.progress || past.stood >= STEADY;
        // A server that closes for cause right after some progress is not to be hurried.
        if past.stood >= STEADY || (progress && setback.retry != Retry::Backoff) {
            self.backoff.reset();
        }
        let delay = match setback.retry {
            Retry::Never => return None,
            // The exception to the jitter, which a blip deserves.
            Retry::AtOnce if progress && self.at_once.spend(now).is_ok() => return Some(setback.at_least),
            Retry::AtOnce | Retry::Jitter | Retry::Backoff => self.backoff.next_delay(random),
            Retry::Slow => self.backoff.slow_delay(random),
        };
        // Added, not the longer of both: those that were told the same time must not all come at it.
        Some(setback.at_least.saturating_add(delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const USED: Past = Past { progress: true, stood: Duration::ZERO };
    const UNUSED: Past = Past { progress: false, stood: Duration::ZERO };

    fn delay(pace: &mut Pace, retry: Retry, past: Past, now: Instant) -> Duration {
        pace.delay(&Setback::new(ErrorKind::SessionLost, retry, "x"), past, now, u64::MAX).unwrap()
    }

    #[test]
    fn a9_a_lost_link_on_which_something_got_through_is_dialled_anew_at_once() {
        let now = Instant::now();
        let mut pace = Pace::new(Backoff::default());
        assert_eq!(delay(&mut pace, Retry::AtOnce, UNUSED, now), Duration::from_millis(250));
        assert_eq!(delay(&mut pace, Retry::AtOnce, USED, now), Duration::ZERO);
        assert_eq!(delay(&mut pace, Retry::AtOnce, Past { stood: STEADY, ..UNUSED }, now), Duration::ZERO);
        assert_eq!(delay(&mut pace, Retry::AtOnce, UNUSED, now), Duration::from_millis(250), "progress resets");
        assert_eq!(delay(&mut pace, Retry::Jitter, USED, now), Duration::from_millis(250));
    }

    #[test]
    fn links_that_break_all_the_time_are_no_storm() {
        let now = Instant::now();
        let mut pace = Pace::new(Backoff::default());
        let at_once = (0..1000).filter(|_| delay(&mut pace, Retry::AtOnce, USED, now).is_zero()).count();
        assert_eq!(at_once, 125);
        let later = now + Duration::from_secs(1);
        let at_once = (0..1000).filter(|_| delay(&mut pace, Retry::AtOnce, USED, later).is_zero()).count();
        assert_eq!(at_once, 25);
    }

    #[test]
    fn a_server_that_closes_for_cause_is_not_hurried_by_progress() {
        let now = Instant::now();
        let mut pace = Pace::new(Backoff::default());
        for millis in [250, 500, 1000] {
            assert_eq!(delay(&mut pace, Retry::Backoff, USED, now), Duration::from_millis(millis));
        }
        assert_eq!(delay(&mut pace, Retry::Backoff, Past { stood: STEADY, ..USED }, now), Duration::from_millis(250));
        assert_eq!(delay(&mut pace, Retry::Slow, USED, now), Duration::from_secs(60));
        let never = Setback::new(ErrorKind::Replaced, Retry::Never, "x");
        assert_eq!(pace.delay(&never, USED, now, 0), None);
    }
}

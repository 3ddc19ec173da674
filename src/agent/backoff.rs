//! How long an agent waits before it tries again: full jitter after losses, long pauses after refusals. Pure.

use std::time::Duration;

/// How long an agent waits before its next attempt.
///
/// After a failure the delay is uniform between zero and `base · 2^failures`, at most `cap`: full jitter, so that a
/// fleet that lost its server at one moment does not come back at one moment. After a refusal it is uniform in the
/// slow range instead, since trying sooner cannot help and reads like an attack.
///
/// It reads no clock and draws no random number; those are arguments.
///
/// ```
/// use std::time::Duration;
/// use revdial::agent::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// assert!(backoff.next_delay(u64::MAX) <= Duration::from_millis(100));
/// assert!(backoff.next_delay(u64::MAX) <= Duration::from_millis(200));
/// backoff.reset();
/// assert!(backoff.next_delay(u64::MAX) <= Duration::from_millis(100));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    slow_from: Duration,
    slow_to: Duration,
    failures: u32,
}

impl Default for Backoff {
    /// 250 ms … 30 s after failures: a blip is over before a caller notices, and a server that is gone for long sees
    /// each agent twice in a minute. 30 s … 60 s after refusals.
    fn default() -> Self {
        Self::new(Duration::from_millis(250), Duration::from_secs(30))
    }
}

impl Backoff {
    /// Delays from `base` up to `cap` after failures, and 30 s … 60 s after refusals.
    #[must_use]
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, slow_from: Duration::from_secs(30), slow_to: Duration::from_secs(60), failures: 0 }
    }

    /// The range of the delay after a refusal. Default 30 s … 60 s.
    #[must_use]
    pub const fn slow_range(mut self, from: Duration, to: Duration) -> Self {
        self.slow_from = from;
        self.slow_to = to;
        self
    }

    /// The delay after one more failure; `random` is uniform over all of `u64`.
    #[must_use = "the failure is counted by this"]
    pub fn next_delay(&mut self, random: u64) -> Duration {
        let doubled = self.base.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        share(doubled.min(self.cap), random)
    }

    /// The delay after a refusal; `random` is uniform over all of `u64`. It counts as no failure.
    #[must_use]
    pub fn slow_delay(&self, random: u64) -> Duration {
        self.slow_from.saturating_add(share(self.slow_to.saturating_sub(self.slow_from), random))
    }

    /// Forgets the failures: there was progress.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// The first setting that cannot be, if there is one.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let checks = [
            ("its base is zero", self.base.is_zero()),
            ("its cap is below its base", self.cap < self.base),
            ("the slow range begins at zero", self.slow_from.is_zero()),
            ("the slow range ends before it begins", self.slow_to < self.slow_from),
        ];
        checks.into_iter().find_map(|(why, is)| is.then_some(why))
    }
}

/// The part of `span` that `random` is of all of `u64`.
fn share(span: Duration, random: u64) -> Duration {
    // Spans above 584 years are taken for 584 years: only so does the product always fit.
    let nanos = span.as_nanos().min(u128::from(u64::MAX)) * u128::from(random) / u128::from(u64::MAX);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn delays_stay_within_the_doubling_bound_and_the_cap(randoms in prop::collection::vec(any::<u64>(), 1..80)) {
            let mut backoff = Backoff::default();
            for (failures, random) in randoms.into_iter().enumerate() {
                let doubled = Duration::from_millis(250) * 2_u32.pow(failures.min(20) as u32);
                let bound = doubled.min(Duration::from_secs(30));
                prop_assert!(backoff.next_delay(random) <= bound);
            }
        }

        #[test]
        fn slow_delays_stay_in_their_range(random in any::<u64>()) {
            let delay = Backoff::default().slow_delay(random);
            prop_assert!((Duration::from_secs(30)..=Duration::from_secs(60)).contains(&delay));
        }

        #[test]
        fn no_setting_panics(base in any::<u64>(), cap in any::<u64>(), from in any::<u64>(), to in any::<u64>(), random in any::<u64>()) {
            let mut backoff = Backoff::new(Duration::from_secs(base), Duration::from_secs(cap))
                .slow_range(Duration::from_secs(from), Duration::from_secs(to));
            for _ in 0..40 {
                prop_assert!(backoff.next_delay(random) <= Duration::from_secs(cap));
            }
            prop_assert!(backoff.slow_delay(random) >= Duration::from_secs(from));
        }
    }

    #[test]
    fn the_jitter_is_full() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next_delay(0), Duration::ZERO);
        assert_eq!(backoff.next_delay(u64::MAX), Duration::from_millis(500));
        let half = backoff.next_delay(u64::MAX / 2);
        assert!(half.abs_diff(Duration::from_millis(500)) < Duration::from_millis(1), "{half:?}");
    }

    #[test]
    fn a9_progress_resets_the_doubling() {
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            let _ = backoff.next_delay(u64::MAX);
        }
        assert_eq!(backoff.next_delay(u64::MAX), Duration::from_secs(30));
        backoff.reset();
        assert_eq!(backoff.next_delay(u64::MAX), Duration::from_millis(250));
    }
}

//! Budgets against floods: so many a period, with a burst.

use std::time::{Duration, Instant};

use super::error::Violation;
use crate::frame::CloseCode;

/// A token bucket: `rate` events a `period`, and a burst of as many events as come in `burst`.
#[derive(Debug, Clone)]
pub(crate) struct FloodBudget {
    rule: &'static str,
    /// What one event costs, in time.
    cost: Duration,
    burst: Duration,
    /// Until when the events so far are paid for.
    paid_until: Option<Instant>,
}

impl FloodBudget {
    pub(crate) fn new(rule: &'static str, rate: u32, period: Duration, burst: Duration) -> Self {
        Self { rule, cost: period.checked_div(rate).unwrap_or(period), burst, paid_until: None }
    }

    /// One more event.
    pub(crate) fn spend(&mut self, now: Instant) -> Result<(), Violation> {
        let from = self.paid_until.map_or(now, |until| until.max(now));
        let until = from.checked_add(self.cost).unwrap_or(from);
        if until.saturating_duration_since(now) > self.burst {
            return Err(Violation::new(CloseCode::FLOOD, self.rule));
        }
        self.paid_until = Some(until);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_a_flood_does_not_and_time_heals() {
        let now = Instant::now();
        let mut budget = FloodBudget::new("x", 20, Duration::from_secs(1), Duration::from_secs(5));
        for _ in 0..100 {
            assert_eq!(budget.spend(now), Ok(()));
        }
        assert_eq!(budget.spend(now).unwrap_err().code(), CloseCode::FLOOD);
        assert_eq!(budget.spend(now + Duration::from_millis(50)), Ok(()));
    }
}

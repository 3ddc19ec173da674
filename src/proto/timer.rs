//! One slot for each named deadline of a session.

use std::time::{Duration, Instant};

/// The deadlines of a session. All but the ack's run only while a link is up; so does the ack's, having no use without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// What was received must be told by now.
    Ack,
    /// Time for a PING.
    Ping,
    /// No byte came in for too long.
    Silent,
    /// Nothing was newly acked for too long.
    NoAck,
    /// RESETs that were put off may go on.
    Pace,
}

const ALL: [Timer; 5] = [Timer::Ack, Timer::Ping, Timer::Silent, Timer::NoAck, Timer::Pace];

/// The table of deadlines.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    ack: Option<Instant>,
    ping: Option<Instant>,
    silent: Option<Instant>,
    no_ack: Option<Instant>,
    pace: Option<Instant>,
}

impl Timers {
    /// Sets a deadline, over an earlier or later one.
    pub(crate) fn set(&mut self, timer: Timer, now: Instant, after: Duration) {
        *self.slot(timer) = Some(later(now, after));
    }

    /// Sets a deadline unless one is set.
    pub(crate) fn set_if_idle(&mut self, timer: Timer, now: Instant, after: Duration) {
        self.slot(timer).get_or_insert_with(|| later(now, after));
    }

    pub(crate) fn stop(&mut self, timer: Timer) {
        *self.slot(timer) = None;
    }

    pub(crate) fn stop_all(&mut self) {
        *self = Self::default();
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        [self.ack, self.ping, self.silent, self.no_ack, self.pace].into_iter().flatten().min()
    }

    /// Removes one deadline that has passed and names it.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Option<Timer> {
        ALL.into_iter().find(|&timer| {
            let slot = self.slot(timer);
            let passed = slot.is_some_and(|at| at <= now);
            if passed {
                *slot = None;
            }
            passed
        })
    }

    fn slot(&mut self, timer: Timer) -> &mut Option<Instant> {
        match timer {
            Timer::Ack => &mut self.ack,
            Timer::Ping => &mut self.ping,
            Timer::Silent => &mut self.silent,
            Timer::NoAck => &mut self.no_ack,
            Timer::Pace => &mut self.pace,
        }
    }
}

/// A deadline too far for the clock to tell is never reached within a process's life: `now` plus a century.
pub(crate) fn later(now: Instant, after: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    now.checked_add(after).or_else(|| now.checked_add(CENTURY)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_deadline_is_taken_once_and_not_early() {
        let now = Instant::now();
        let mut timers = Timers::default();
        timers.set(Timer::Ping, now, Duration::from_secs(2));
        timers.set(Timer::Ack, now, Duration::from_secs(1));
        timers.set_if_idle(Timer::Ack, now, Duration::from_secs(9));
        assert_eq!(timers.next(), Some(now + Duration::from_secs(1)));
        assert_eq!(timers.take_expired(now), None);
        let then = now + Duration::from_secs(2);
        assert_eq!(timers.take_expired(then), Some(Timer::Ack));
        assert_eq!(timers.take_expired(then), Some(Timer::Ping));
        assert_eq!(timers.take_expired(then), None);
        assert_eq!(timers.next(), None);
    }
}

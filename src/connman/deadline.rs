//! When something is given up.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A moment to wait for. Its timer is made once somebody waits, which most dials never do.
#[derive(Debug)]
pub(super) struct Deadline {
    at: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(super) const fn new(at: Instant) -> Self {
        Self { at, timer: None }
    }

    /// So long after `start`, but no later than [`FAR`].
    pub(super) fn after(start: Instant, time: Duration) -> Self {
        Self::new(start + time.min(FAR))
    }

    /// How long it is until then.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.get_or_insert_with(|| Box::pin(sleep_until(self.at))).as_mut().poll(cx)
    }
}

/// Thirty years: a hundred overflow the clocks of some systems.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_over_at_its_time_whenever_it_is_first_waited_for() {
        for late in [0, 3, 9] {
            let (start, late) = (Instant::now(), Duration::from_secs(late));
            let mut deadline = Deadline::after(start, Duration::from_secs(5));
            tokio::time::sleep(late).await;
            assert_eq!(deadline.left(Instant::now()), Duration::from_secs(5).saturating_sub(late));
            poll_fn(|cx| deadline.poll(cx)).await;
            assert_eq!(start.elapsed(), Duration::from_secs(5).max(late));
        }
        let now = Instant::now();
        assert_eq!(Deadline::after(now, Duration::MAX).left(now), FAR);
    }
}

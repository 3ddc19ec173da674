//! What is told when the process has no file descriptor left: each time to the metrics, and now and then to the log.

use std::{
    error::Error as StdError,
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::warn;

use crate::metrics;

/// `EMFILE`, `ENFILE`, and what Windows has for them.
const CODES: [i32; 3] = [24, 23, 10024];

/// How often the log is told: whatever caused it does so for every connect.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Whether a connect failed by that; if so, it is told.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = error.raw_os_error().is_some_and(|code| CODES.contains(&code));
    if exhausted {
        metrics::record_fd_exhausted();
        if is_due(Instant::now()) {
            warn!(%error, "a connect failed, since there is no file descriptor left");
        }
    }
    exhausted
}

/// Tells it of an error that has one of those for its cause.
pub(super) fn tell_if_below(error: &(dyn StdError + 'static)) {
    let chain = std::iter::successors(Some(error), |error| StdError::source(*error));
    let _told = chain.filter_map(|error| error.downcast_ref()).any(is_exhausted);
}

fn is_due(now: Instant) -> bool {
    static TOLD: Mutex<Option<Instant>> = Mutex::new(None);
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let due = told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_EVERY);
    if due {
        *told = Some(now);
    }
    due
}

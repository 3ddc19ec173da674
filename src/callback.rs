//! How the host's callbacks are called: one that panics or hangs costs what it was asked for, and nothing else.
//!
//! A failure is counted here, and told to the log by [`guarded`] or by who knows more of it. Either runs code of the
//! host's, too, as the callback itself: never under a lock that such code may want.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::timeout;
use tracing::error;

use crate::metrics;

/// How a callback failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    Panicked,
    TimedOut,
}

/// What the callback of this name says; nothing, where it panicked, which is told to the log.
pub(crate) fn guarded<R>(name: &'static str, callback: impl FnOnce() -> R) -> Option<R> {
    call(callback).inspect_err(|failed| tell(name, failed.as_str())).ok()
}

/// What it says at once.
pub(crate) fn call<R>(callback: impl FnOnce() -> R) -> Result<R, Failed> {
    catch_unwind(AssertUnwindSafe(callback)).map_err(|_| Failed::Panicked).inspect_err(count)
}

/// What it says, whenever that is. `callback` has to do all that may panic when it is polled.
#[cfg(feature = "agent")]
pub(crate) async fn ask<R>(callback: impl Future<Output = R>) -> Result<R, Failed> {
    caught(callback).await.inspect_err(count)
}

/// The same within this time.
pub(crate) async fn ask_within<R>(within: Duration, callback: impl Future<Output = R>) -> Result<R, Failed> {
    timeout(within, caught(callback)).await.unwrap_or(Err(Failed::TimedOut)).inspect_err(count)
}

/// Tells the log how the callback of this name failed.
pub(crate) fn tell(name: &'static str, how: &'static str) {
    error!(callback = name, how, "a callback failed");
}

async fn caught<R>(callback: impl Future<Output = R>) -> Result<R, Failed> {
    AssertUnwindSafe(callback).catch_unwind().await.map_err(|_| Failed::Panicked)
}

fn count(_: &Failed) {
    metrics::record_callback_failure();
}

impl Failed {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Panicked => "panicked",
            Self::TimedOut => "took too long",
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_failure_is_counted_and_an_answer_is_not() {
        const WITHIN: Duration = Duration::from_secs(10);
        let recorder = DebuggingRecorder::new();
        let _here = ::metrics::set_default_local_recorder(&recorder);
        assert_eq!((call(|| 7), guarded("test", || 7), ask_within(WITHIN, async { 7 }).await), (Ok(7), Some(7), Ok(7)));
        assert!(recorder.snapshotter().snapshot().into_vec().is_empty());

        assert_eq!(guarded("test", || panic!("on purpose")), None::<()>);
        assert_eq!(call(|| panic!("on purpose")), Err::<(), _>(Failed::Panicked));
        assert_eq!(ask_within(WITHIN, async { panic!("on purpose") }).await, Err::<(), _>(Failed::Panicked));
        assert_eq!(ask_within(WITHIN, pending::<()>()).await, Err(Failed::TimedOut));
        let counted: Vec<_> =
            recorder.snapshotter().snapshot().into_vec().into_iter().map(|(.., value)| value).collect();
        assert_eq!(counted, [DebugValue::Counter(4)]);
    }
}

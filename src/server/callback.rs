//! How the host's callbacks are called: one that panics or hangs costs what it was asked for, and nothing else.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::timeout;

use crate::metrics;

/// How a callback failed. It is counted already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    Panicked,
    TimedOut,
}

/// What it says; it has to say so at once.
pub(super) fn call<R>(callback: impl FnOnce() -> R) -> Result<R, Failed> {
    catch_unwind(AssertUnwindSafe(callback)).map_err(|_| counted(Failed::Panicked))
}

/// What it says within this time. `callback` has to do all that may panic when it is polled.
pub(super) async fn ask<R>(within: Duration, callback: impl Future<Output = R>) -> Result<R, Failed> {
    match timeout(within, AssertUnwindSafe(callback).catch_unwind()).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(counted(Failed::Panicked)),
        Err(_) => Err(counted(Failed::TimedOut)),
    }
}

fn counted(failed: Failed) -> Failed {
    metrics::record_callback_failure();
    failed
}

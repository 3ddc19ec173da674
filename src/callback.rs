//! How a callback of the host's is called: one that panics costs what it was asked for, and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::error;

use crate::metrics;

/// What the callback of this name says; nothing, where it panicked, which is counted and told.
pub(crate) fn guarded<R>(name: &'static str, callback: impl FnOnce() -> R) -> Option<R> {
    let answer = catch_unwind(AssertUnwindSafe(callback));
    answer.inspect_err(|_| failed(name, "panicked")).ok()
}

/// A callback of this name has panicked or hung.
pub(crate) fn failed(name: &'static str, how: &'static str) {
    metrics::record_callback_failure();
    error!(callback = name, how, "a callback failed");
}

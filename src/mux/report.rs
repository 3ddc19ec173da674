//! What a session counts, told to the metrics in batches: what is new since the last time, over all links.

use std::time::{Duration, Instant};

use crate::{
    metrics::{self, StreamBytes},
    proto::SessionStats,
};

/// What a session counted between two moments.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is taken and not recorded is lost to the metrics"]
pub(super) struct News {
    sent: u64,
    received: u64,
    /// Boxed, as this is made at each turn of the driver.
    rare: Option<Box<Rare>>,
}

/// What most batches have nothing of.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rare {
    duplicate_messages: u64,
    replayed_bytes: u64,
    late_frames: u64,
    rtt: Option<Duration>,
}

impl News {
    pub(super) fn new(before: &SessionStats, now: &SessionStats) -> Self {
        let rare = Rare {
            duplicate_messages: now.duplicate_messages.saturating_sub(before.duplicate_messages),
            replayed_bytes: now.replayed_bytes.saturating_sub(before.replayed_bytes),
            late_frames: now.late_frames.saturating_sub(before.late_frames),
            rtt: now.rtt.filter(|_| now.rtt != before.rtt),
        };
        Self {
            sent: now.sent_bytes.saturating_sub(before.sent_bytes),
            received: now.received_bytes.saturating_sub(before.received_bytes),
            rare: (rare != Rare::default()).then(|| Box::new(rare)),
        }
    }

    /// Runs code of the recorder: never under a lock.
    pub(super) fn record(&self, now: Instant, bytes: &mut StreamBytes) {
        bytes.record(now, self.sent, self.received);
        let Some(Rare { duplicate_messages, replayed_bytes, late_frames, rtt }) = self.rare.as_deref() else { return };
        if *duplicate_messages > 0 {
            metrics::record_duplicate_messages(*duplicate_messages);
        }
        if *replayed_bytes > 0 {
            metrics::record_replayed_bytes(*replayed_bytes);
        }
        if *late_frames > 0 {
            metrics::record_late_frames(*late_frames);
        }
        if let Some(rtt) = rtt {
            metrics::record_rtt(*rtt);
        }
    }
}

//! What a session counts, told to the metrics in batches: what is new since the last time, over all links.

use std::{
    array,
    time::{Duration, Instant},
};

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
    /// Boxed, as this is made at each turn of the driver, and most have nothing of it.
    rare: Option<Box<Rare>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Rare {
    counts: [u64; 6],
    rtt: Option<Duration>,
}

/// The counts that most batches have nothing of.
const fn rare(stats: &SessionStats) -> [u64; 6] {
    [
        stats.duplicate_messages,
        stats.replayed_bytes,
        stats.late_frames,
        stats.stale_acks,
        stats.unknown_frames,
        stats.refused_streams,
    ]
}

/// Where each of them is recorded.
const RECORDED: [fn(u64); 6] = [
    metrics::record_duplicate_messages,
    metrics::record_replayed_bytes,
    metrics::record_late_frames,
    metrics::record_stale_acks,
    metrics::record_unknown_frames,
    metrics::record_streams_refused,
];

impl News {
    pub(super) fn new(before: &SessionStats, now: &SessionStats) -> Self {
        // They only rise.
        let sum = |stats| rare(stats).into_iter().fold(0, u64::wrapping_add);
        let any = sum(now) != sum(before) || now.rtt != before.rtt;
        Self {
            sent: now.sent_bytes.saturating_sub(before.sent_bytes),
            received: now.received_bytes.saturating_sub(before.received_bytes),
            rare: any.then(|| Box::new(Rare::new(before, now))),
        }
    }

    /// Runs code of the recorder: never under a lock.
    pub(super) fn record(&self, now: Instant, bytes: &mut StreamBytes) {
        bytes.record(now, self.sent, self.received);
        let Some(Rare { counts, rtt }) = self.rare.as_deref() else { return };
        for (count, record) in counts.iter().zip(RECORDED).filter(|(count, _)| **count > 0) {
            record(*count);
        }
        if let Some(rtt) = rtt {
            metrics::record_rtt(*rtt);
        }
    }
}

impl Rare {
    fn new(before: &SessionStats, now: &SessionStats) -> Self {
        let (counted, counts) = (rare(before), rare(now));
        Self {
            counts: array::from_fn(|at| counts[at].saturating_sub(counted[at])),
            rtt: now.rtt.filter(|_| now.rtt != before.rtt),
        }
    }
}

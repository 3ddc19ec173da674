//! What a session counts, told to the metrics in batches: what is new since the last time, over all links.

use crate::{
    metrics::{self, Direction},
    proto::SessionStats,
};

/// The counts of a session at two moments.
#[derive(Debug)]
#[must_use = "what is taken and not recorded is lost to the metrics"]
pub(super) struct News {
    pub(super) before: SessionStats,
    pub(super) now: SessionStats,
}

impl News {
    /// Records the difference. Runs code of the recorder: never under a lock.
    pub(super) fn record(&self) {
        let Self { before, now } = self;
        let more = |now: u64, before: u64| Some(now.saturating_sub(before)).filter(|more| *more > 0);
        if let Some(bytes) = more(now.sent_bytes, before.sent_bytes) {
            metrics::record_stream_bytes(Direction::Sent, bytes);
        }
        if let Some(bytes) = more(now.received_bytes, before.received_bytes) {
            metrics::record_stream_bytes(Direction::Received, bytes);
        }
        if let Some(messages) = more(now.duplicate_messages, before.duplicate_messages) {
            metrics::record_duplicate_messages(messages);
        }
        if let Some(bytes) = more(now.replayed_bytes, before.replayed_bytes) {
            metrics::record_replayed_bytes(bytes);
        }
        if let Some(frames) = more(now.late_frames, before.late_frames) {
            metrics::record_late_frames(frames);
        }
        if let Some(rtt) = now.rtt.filter(|_| now.rtt != before.rtt) {
            metrics::record_rtt(rtt);
        }
    }
}

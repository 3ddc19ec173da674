//! Every metric's name and label in one list, and small functions that record.
//!
//! No label is a key, an id or a token, and each has few values. The macros are called anew each time, or once a
//! second, since a recorder may be installed late or for one thread only: what happens for each byte or frame is counted
//! by the caller and recorded in batches. A recorder that panics loses what it was told, and takes nothing else down.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use ::metrics::{Counter, Unit, describe_counter, describe_gauge, describe_histogram};

#[cfg(feature = "server")]
use self::guarded::gauge;
use self::guarded::{Guarded, counter, fixed, histogram};
use crate::{error::ErrorKind, frame::CloseCode};

mod guarded;
mod zero;

#[cfg(feature = "agent")]
pub(crate) use zero::begin_agent;
#[cfg(feature = "server")]
pub(crate) use zero::begin_server;

/// For how long a link uses a counter that it has looked up.
const LOOKED_UP_FOR: Duration = Duration::from_secs(1);

/// How a stream ended, seen from this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// In order, both ways.
    Complete,
    /// This side dropped it before the peer was at its end.
    Cancelled,
    /// This side reset it.
    Reset,
    /// By an error.
    Failed(ErrorKind),
}

impl StreamEnd {
    /// Its label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "ok",
            Self::Cancelled => "cancelled",
            Self::Reset => "reset",
            Self::Failed(kind) => kind.as_str(),
        }
    }
}

/// Which way bytes of streams went, seen from this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To the peer.
    Sent,
    /// From the peer.
    Received,
}

const ACTIVE_CONNECTIONS: &str = "revdial_active_connections";
const GRACE_ENTRIES: &str = "revdial_reconnection_grace_period_entries";
const RECONNECTED: &str = "revdial_reconnection_success_total";
const RECONNECT_TIMEOUT: &str = "revdial_reconnection_timeout_total";
const RECONNECT_DRAINED: &str = "revdial_reconnection_drained_total";
const PENDING_DIALS: &str = "revdial_pending_dials_current";
const DIALS_WAITED: &str = "revdial_pending_dials_total";
const DIAL_DURATION: &str = "revdial_dial_duration_seconds";
const DIAL_FAILURES: &str = "revdial_dial_failures_total";
const STREAMS_OPEN: &str = "revdial_streams_open";
const STREAMS: &str = "revdial_streams_total";
const STREAMS_ERRORS: &str = "revdial_streams_errors_total";
const STREAMS_REFUSED: &str = "revdial_streams_refused_total";
const STREAM_BYTES: &str = "revdial_stream_bytes_total";
const FLOW_BLOCKED: &str = "revdial_flow_blocked_seconds_total";
const SESSION_RTT: &str = "revdial_session_rtt_seconds";
const REPLAYED_BYTES: &str = "revdial_replayed_bytes_total";
const DUPLICATE_MESSAGES: &str = "revdial_duplicate_messages_total";
const LATE_FRAMES: &str = "revdial_late_frames_total";
const STALE_ACKS: &str = "revdial_stale_acks_total";
const UNKNOWN_FRAMES: &str = "revdial_unknown_frames_total";
const PROTOCOL_ERRORS: &str = "revdial_protocol_errors_total";
const AUTH_FAILURES: &str = "revdial_auth_failures_total";
const KEY_CONFLICTS: &str = "revdial_key_conflicts_total";
const HANDSHAKE_REJECTED: &str = "revdial_handshake_rejected_total";
const HANDSHAKE_TIMEOUT: &str = "revdial_handshake_timeout_total";
const CLOSE: &str = "revdial_close_total";
const DEAD_PEER: &str = "revdial_dead_peer_total";
const AGENT_CONNECT_FAILURES: &str = "revdial_agent_connect_failures_total";
const CALLBACK_FAILURES: &str = "revdial_callback_failures_total";
const FD_EXHAUSTED: &str = "revdial_fd_exhausted_total";
const RESUMES: &str = "revdial_session_resumes_total";
const PAUSE: &str = "revdial_session_pause_seconds";
const BUDGET_REFUSED: &str = "revdial_budget_refused_total";
const OVERLOAD: &str = "revdial_overload_total";
const PICKUPS: &str = "revdial_pickup_total";
const DRAIN: &str = "revdial_drain_seconds";
const PATHS_REJECTED: &str = "revdial_path_rejected_total";

/// Tells the recorder what each metric means. A recorder that is installed later does not learn it.
pub(crate) fn describe() {
    let counters = [
        (RECONNECTED, Unit::Count, "Keys whose agent returned within the grace"),
        (RECONNECT_TIMEOUT, Unit::Count, "Keys whose agent did not return within the grace, and had not drained"),
        (RECONNECT_DRAINED, Unit::Count, "Keys whose agent had drained, and did not return within the grace"),
        (DIALS_WAITED, Unit::Count, "Dials that had to wait for a tunnel"),
        (DIAL_FAILURES, Unit::Count, "Dials that failed, by kind, those whose failure came after early data included"),
        (STREAMS, Unit::Count, "Streams that ended, by how"),
        (STREAMS_ERRORS, Unit::Count, "Streams that ended by an error, by kind"),
        (STREAMS_REFUSED, Unit::Count, "Streams refused, since as many are open or unanswered as may be"),
        (STREAM_BYTES, Unit::Bytes, "Payload bytes of streams, by direction"),
        (FLOW_BLOCKED, Unit::Seconds, "How long writers waited for credit or acks, told when each wait ends"),
        (REPLAYED_BYTES, Unit::Bytes, "Bytes sent again on a new link"),
        (DUPLICATE_MESSAGES, Unit::Count, "Messages ignored, since they had arrived already"),
        (LATE_FRAMES, Unit::Count, "Frames ignored, since their stream was forgotten already"),
        (STALE_ACKS, Unit::Count, "Acks and credits ignored, since they were older than what was told before"),
        (UNKNOWN_FRAMES, Unit::Count, "Frames and lines skipped, since this version does not know them"),
        (PROTOCOL_ERRORS, Unit::Count, "Rules of the protocol that peers broke, by close code"),
        (AUTH_FAILURES, Unit::Count, "Upgrades without good credentials, by reason"),
        (KEY_CONFLICTS, Unit::Count, "Agents that met another one under their key, by action"),
        (HANDSHAKE_REJECTED, Unit::Count, "Upgrades that were refused, by reason"),
        (HANDSHAKE_TIMEOUT, Unit::Count, "Handshakes that took too long"),
        (CLOSE, Unit::Count, "Links that ended, by reason"),
        (DEAD_PEER, Unit::Count, "Links held for dead, since nothing was heard or acked"),
        (AGENT_CONNECT_FAILURES, Unit::Count, "Attempts of an agent to connect that failed, by reason"),
        (CALLBACK_FAILURES, Unit::Count, "Callbacks of the host's that panicked or hung"),
        (FD_EXHAUSTED, Unit::Count, "Connects that failed, since the process has no file descriptor left"),
        (RESUMES, Unit::Count, "Links that named a session to go on with, by result"),
        (BUDGET_REFUSED, Unit::Count, "What was given up since memory is bounded, by what"),
        (OVERLOAD, Unit::Count, "What was refused at a limit, by limit"),
        (PICKUPS, Unit::Count, "Connections that dial-back agents brought for a dial, by result"),
        (PATHS_REJECTED, Unit::Count, "Paths that a dial-back server named and its agent would not dial"),
    ];
    for (name, unit, text) in counters {
        describe_counter!(name, unit, text);
    }
    let gauges = [
        (ACTIVE_CONNECTIONS, "Keys with a tunnel"),
        (GRACE_ENTRIES, "Keys in grace"),
        (PENDING_DIALS, "Dials that wait for a tunnel"),
        (STREAMS_OPEN, "Open streams"),
    ];
    for (name, text) in gauges {
        describe_gauge!(name, Unit::Count, text);
    }
    describe_histogram!(
        DIAL_DURATION,
        Unit::Seconds,
        "From a dial to its stream or failure, by outcome; with early data the answer comes later"
    );
    describe_histogram!(PAUSE, Unit::Seconds, "How long sessions were without a link that then went on");
    describe_histogram!(
        DRAIN,
        Unit::Seconds,
        "From the begin of a server's drain until nothing ran any more, or was cut off"
    );
    describe_histogram!(SESSION_RTT, Unit::Seconds, "Round trips measured by pings");
}

/// So many more keys have a tunnel than before.
#[cfg(feature = "server")]
pub(crate) fn record_active_connections(change: i64) {
    gauge!(ACTIVE_CONNECTIONS).increment(change as f64);
}

/// So many more keys are in grace than before.
#[cfg(feature = "server")]
pub(crate) fn record_grace_entries(change: i64) {
    gauge!(GRACE_ENTRIES).increment(change as f64);
}

/// A pick-up was delivered or refused: `ok`, `unknown`, `duplicate`, `late` or `principal`.
#[cfg(feature = "server")]
pub(crate) fn record_pickup(result: &'static str) {
    counter!(PICKUPS, "result" => result).increment(1);
}

/// A server named a path that an agent does not dial.
#[cfg(feature = "agent")]
pub(crate) fn record_path_rejected() {
    counter!(PATHS_REJECTED).increment(1);
}

/// A key's agent returned within the grace.
#[cfg(feature = "server")]
pub(crate) fn record_reconnected() {
    counter!(RECONNECTED).increment(1);
}

/// A key's agent had drained, and did not return within the grace.
#[cfg(feature = "server")]
pub(crate) fn record_stayed_away() {
    counter!(RECONNECT_DRAINED).increment(1);
}

/// A key's agent did not return within the grace, though it had not gone in order.
#[cfg(feature = "server")]
pub(crate) fn record_reconnect_timeout() {
    counter!(RECONNECT_TIMEOUT).increment(1);
}

/// So many more dials wait than before.
#[cfg(feature = "server")]
pub(crate) fn record_pending_dials(change: i64) {
    gauge!(PENDING_DIALS).increment(change as f64);
}

/// A dial has to wait.
#[cfg(feature = "server")]
pub(crate) fn record_dial_waited() {
    counter!(DIALS_WAITED).increment(1);
}

/// A dial came to its end: `ok`, `error` or `cancelled`.
#[cfg(feature = "server")]
pub(crate) fn record_dial(outcome: &'static str, seconds: Duration) {
    let durations = match outcome {
        "ok" => fixed!(DIAL_DURATION, register_histogram, "outcome" => "ok"),
        outcome => histogram!(DIAL_DURATION, "outcome" => outcome),
    };
    durations.record(seconds);
}

/// A dial failed.
#[cfg(feature = "server")]
pub(crate) fn record_dial_failure(kind: ErrorKind) {
    counter!(DIAL_FAILURES, "kind" => kind.as_str()).increment(1);
}

/// A request waited for an agent in vain: a dial that failed, though none was made.
#[cfg(feature = "proxy")]
pub(crate) fn record_failed_wait(kind: ErrorKind, seconds: Duration) {
    record_dial("error", seconds);
    record_dial_failure(kind);
}

/// A stream is open.
pub(crate) fn record_stream_opened() {
    fixed!(STREAMS_OPEN, register_gauge).increment(1.0);
}

/// A stream is gone, and so it ended.
pub(crate) fn record_stream_closed(end: StreamEnd) {
    fixed!(STREAMS_OPEN, register_gauge).decrement(1.0);
    let ended = match end {
        StreamEnd::Complete => fixed!(STREAMS, register_counter, "outcome" => StreamEnd::Complete.as_str()),
        StreamEnd::Cancelled => fixed!(STREAMS, register_counter, "outcome" => StreamEnd::Cancelled.as_str()),
        StreamEnd::Reset => fixed!(STREAMS, register_counter, "outcome" => StreamEnd::Reset.as_str()),
        StreamEnd::Failed(_) => counter!(STREAMS, "outcome" => end.as_str()),
    };
    ended.increment(1);
    if let StreamEnd::Failed(kind) = end {
        counter!(STREAMS_ERRORS, "kind" => kind.as_str()).increment(1);
    }
}

/// Streams were refused, since there are as many as may be.
pub(crate) fn record_streams_refused(n: u64) {
    counter!(STREAMS_REFUSED).increment(n);
}

/// A writer waited so long for its peer.
///
/// Counters count whole numbers, and most waits are short: they are added up here, and told by the second.
pub(crate) fn record_flow_blocked(waited: Duration) {
    static MICROS: AtomicU64 = AtomicU64::new(0);
    let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
    let before = MICROS.fetch_add(micros, Ordering::Relaxed);
    let seconds = before.wrapping_add(micros) / 1_000_000 - before / 1_000_000;
    if seconds > 0 {
        counter!(FLOW_BLOCKED).increment(seconds);
    }
}

/// Payload of streams went over a link.
pub(crate) fn record_stream_bytes(direction: Direction, n: u64) {
    stream_bytes(direction).increment(n);
}

/// Payload of the streams of one link, counted at each of its turns.
///
/// The counters are looked up anew once a second only, for a recorder that is installed late.
#[derive(Default)]
pub(crate) struct StreamBytes(Option<(Instant, [Guarded<Counter>; 2])>);

impl StreamBytes {
    pub(crate) fn record(&mut self, now: Instant, sent: u64, received: u64) {
        if sent == 0 && received == 0 {
            return;
        }
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < LOOKED_UP_FOR;
        let [sends, receives] = match &mut self.0 {
            Some((at, counters)) if is_fresh(*at) => counters,
            stale => &mut stale.insert((now, [Direction::Sent, Direction::Received].map(stream_bytes))).1,
        };
        sends.increment(sent);
        receives.increment(received);
    }
}

impl fmt::Debug for StreamBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamBytes")
    }
}

fn stream_bytes(direction: Direction) -> Guarded<Counter> {
    let direction = match direction {
        Direction::Sent => "sent",
        Direction::Received => "received",
    };
    counter!(STREAM_BYTES, "direction" => direction)
}

/// A ping was answered.
pub(crate) fn record_rtt(rtt: Duration) {
    histogram!(SESSION_RTT).record(rtt);
}

/// Messages were ignored that had arrived already.
pub(crate) fn record_duplicate_messages(n: u64) {
    counter!(DUPLICATE_MESSAGES).increment(n);
}

/// Frames were ignored whose stream was forgotten already.
pub(crate) fn record_late_frames(n: u64) {
    counter!(LATE_FRAMES).increment(n);
}

/// Acks or credits were ignored that were older than what was told before.
pub(crate) fn record_stale_acks(n: u64) {
    counter!(STALE_ACKS).increment(n);
}

/// Frames or lines were skipped that this version does not know.
pub(crate) fn record_unknown_frames(n: u64) {
    counter!(UNKNOWN_FRAMES).increment(n);
}

/// Bytes were sent again on a new link.
pub(crate) fn record_replayed_bytes(n: u64) {
    counter!(REPLAYED_BYTES).increment(n);
}

/// The peer broke a rule.
pub(crate) fn record_protocol_error(code: CloseCode) {
    // Codes that this version does not know share one label: a peer must not make up series.
    let code = code.meaning().map_or_else(|| "other".to_owned(), |_| code.number().to_string());
    counter!(PROTOCOL_ERRORS, "code" => code).increment(1);
}

/// An upgrade came without good credentials.
#[cfg(feature = "server")]
pub(crate) fn record_auth_failure(reason: &'static str) {
    counter!(AUTH_FAILURES, "reason" => reason).increment(1);
}

/// A link named a session to go on with: `ok`, `fenced` (the link before was still held for alive), `stale`, `identity`,
/// `unknown`, `mismatch` or `rate`.
#[cfg(feature = "server")]
pub(crate) fn record_resume(result: &'static str) {
    counter!(RESUMES, "result" => result).increment(1);
}

/// A session in grace was given up, since all of them held too much.
#[cfg(feature = "server")]
pub(crate) fn record_budget_eviction() {
    counter!(BUDGET_REFUSED, "what" => "evict").increment(1);
}

/// A drain is over after so long.
#[cfg(feature = "server")]
pub(crate) fn record_drain(took: Duration) {
    histogram!(DRAIN).record(took);
}

/// A session went on after so long without a link.
#[cfg(feature = "server")]
pub(crate) fn record_pause(pause: Duration) {
    histogram!(PAUSE).record(pause);
}

/// An agent met another one under its key, or one that may not have it: `replaced`, `rejected` or `denied`.
#[cfg(feature = "server")]
pub(crate) fn record_key_conflict(action: &'static str) {
    counter!(KEY_CONFLICTS, "action" => action).increment(1);
}

/// An upgrade was refused.
#[cfg(feature = "server")]
pub(crate) fn record_handshake_rejected(reason: &'static str) {
    counter!(HANDSHAKE_REJECTED, "reason" => reason).increment(1);
}

/// A handshake took too long.
#[cfg(feature = "server")]
pub(crate) fn record_handshake_timeout() {
    counter!(HANDSHAKE_TIMEOUT).increment(1);
}

/// A link ended.
pub(crate) fn record_close(reason: &'static str) {
    counter!(CLOSE, "reason" => reason).increment(1);
}

/// A link was held for dead.
pub(crate) fn record_dead_peer() {
    counter!(DEAD_PEER).increment(1);
}

/// An agent could not connect.
#[cfg(feature = "agent")]
pub(crate) fn record_agent_connect_failure(reason: &'static str) {
    counter!(AGENT_CONNECT_FAILURES, "reason" => reason).increment(1);
}

/// A connect failed, since the process has no file descriptor left.
#[cfg(feature = "agent")]
pub(crate) fn record_fd_exhausted() {
    counter!(FD_EXHAUSTED).increment(1);
}

/// A callback of the host's panicked or hung.
pub(crate) fn record_callback_failure() {
    counter!(CALLBACK_FAILURES).increment(1);
}

/// Something was refused at a limit.
#[cfg(feature = "server")]
pub(crate) fn record_overload(reason: &'static str) {
    counter!(OVERLOAD, "reason" => reason).increment(1);
}

#[cfg(test)]
mod tests {
    use metrics_util::debugging::DebuggingRecorder;

    use super::*;

    #[test]
    fn a_peer_cannot_make_up_series() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        ::metrics::with_local_recorder(&recorder, || {
            for number in 3000..5000 {
                record_protocol_error(CloseCode::new(number));
            }
        });
        let series = snapshotter.snapshot().into_vec().len();
        assert!((2..20).contains(&series), "{series}");
    }
}

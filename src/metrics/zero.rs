//! What begins at 0, so that its first event is a rise: to a Prometheus a series that appears at 1 has not grown.
//!
//! It is what alerts look for, as far as its labels are known before anything happens.

#[cfg(feature = "server")]
use super::{
    ACTIVE_CONNECTIONS, AUTH_FAILURES, BUDGET_REFUSED, DIALS_WAITED, GRACE_ENTRIES, HANDSHAKE_TIMEOUT, KEY_CONFLICTS,
    OVERLOAD, PENDING_DIALS, RECONNECT_DRAINED, RECONNECT_TIMEOUT, RECONNECTED, RESUMES,
};
use super::{
    CALLBACK_FAILURES, DEAD_PEER, DUPLICATE_MESSAGES, STREAMS_OPEN, STREAMS_REFUSED,
    guarded::{Guarded, counter, gauge},
};
#[cfg(feature = "agent")]
use super::{FD_EXHAUSTED, PATHS_REJECTED};

/// Counters of a server that have a label, and all its values.
#[cfg(feature = "server")]
const LABELLED: [(&str, &str, &[&str]); 5] = [
    (BUDGET_REFUSED, "what", &["evict"]),
    (OVERLOAD, "reason", &["handshakes", "tunnels", "pickups", "authorize"]),
    (AUTH_FAILURES, "reason", &["missing", "credentials", "origin", "rate", "revoked"]),
    (KEY_CONFLICTS, "action", &["replaced", "rejected", "denied"]),
    (RESUMES, "result", &["ok", "fenced", "stale", "identity", "unknown", "mismatch", "rate"]),
];

/// What a connection manager and its layer have.
#[cfg(feature = "server")]
pub(crate) fn begin_server() {
    gauges(&[ACTIVE_CONNECTIONS, GRACE_ENTRIES, PENDING_DIALS, STREAMS_OPEN]);
    counters(&[RECONNECTED, RECONNECT_TIMEOUT, RECONNECT_DRAINED, DIALS_WAITED, HANDSHAKE_TIMEOUT]);
    for (name, label, values) in LABELLED {
        for value in values {
            counter!(name, label => *value).increment(0);
        }
    }
    counters(&SHARED);
}

/// What an agent has.
#[cfg(feature = "agent")]
pub(crate) fn begin_agent() {
    gauges(&[STREAMS_OPEN]);
    counters(&[FD_EXHAUSTED, PATHS_REJECTED]);
    counters(&SHARED);
}

/// What both have.
const SHARED: [&str; 4] = [STREAMS_REFUSED, DUPLICATE_MESSAGES, DEAD_PEER, CALLBACK_FAILURES];

fn gauges(names: &[&'static str]) {
    for name in names {
        gauge!(*name).increment(0.0);
    }
}

fn counters(names: &[&'static str]) {
    for name in names {
        counter!(*name).increment(0);
    }
}

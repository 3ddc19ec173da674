//! What a session tells its owner.

use std::{sync::Arc, time::Duration};

use crate::frame::{CloseCode, StreamId};

/// Something that the owner of a session may have waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer opened a stream: [`Session::incoming`](crate::proto::Session::incoming) has it.
    Opened,
    /// The peer answered an open, or it failed: [`Session::opened`](crate::proto::Session::opened) tells.
    Answered(StreamId),
    /// A stream whose last read found nothing has bytes, its end, or an error.
    Readable(StreamId),
    /// A stream whose last write found no room has room, or an error.
    Writable(StreamId),
    /// The peer reads no more of a stream: it said so, reset it, or the session ended. Once for each stream.
    Stopped(StreamId),
    /// An open that found too many unanswered may be tried again.
    OpensAvailable,
    /// The peer drains.
    Draining {
        /// Why; with 4410 nothing new is connected.
        code: CloseCode,
        /// When the peer cuts off what still runs, from now.
        deadline: Duration,
        /// Connect anew after a random part of this.
        jitter: Duration,
        /// Free text for the log.
        reason: Arc<str>,
    },
    /// The link is dead: close it with 4408 and tell the session by
    /// [`Session::link_down`](crate::proto::Session::link_down).
    LinkDead(DeadCause),
    /// The session ended: [`Session::ended`](crate::proto::Session::ended) tells why.
    Ended,
}

/// By what a link is held for dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadCause {
    /// No byte came in for the dead-peer time.
    Silent,
    /// Counted messages were outstanding and none was newly acked for the dead-peer time.
    NoAck,
}

//! The values that travel: message head, frames, codes and their limits.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use bytes::Bytes;

use super::code::{CloseCode, ResetCode};
use crate::key::TargetName;

/// Bytes in the head of a message: number and received, a u64 each.
pub const MESSAGE_HEAD: usize = 16;

/// Bytes in the header of a frame: type u8, payload length u24, stream u32.
pub const FRAME_HEAD: usize = 8;

/// The longest payload of one frame: 64 KiB.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// The longest message: as long as one frame of the longest payload, its header, and the message's head.
pub const MAX_MESSAGE: usize = MESSAGE_HEAD + FRAME_HEAD + MAX_PAYLOAD;

/// The longest reason in DRAIN, CLOSE and RESET, in bytes.
pub const MAX_REASON: usize = 256;

/// The longest agent version in HELLO, in bytes.
pub const MAX_AGENT_VERSION: usize = 64;

/// The most labels in HELLO.
pub const MAX_LABELS: usize = 16;

/// The longest name of a label and the longest value of one, in bytes.
pub const MAX_LABEL: usize = 128;

/// The longest metadata of an OPEN, in bytes.
pub const MAX_METADATA: usize = 1024;

/// The longest traceparent of an OPEN, in bytes: several times the 55 of W3C's version 00.
pub const MAX_TRACEPARENT: usize = 256;

/// The head of each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "16 bytes on the wire, fixed for revdial.v1")]
pub struct MessageHead {
    /// The message's place among the counted ones of its direction of its session, from 1; 0 is not counted.
    pub number: u64,
    /// How many counted messages the sender of this message has handled in this session.
    pub received: u64,
}

/// The number of a stream in its session; never 0, which stands for the session itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(std::num::NonZeroU32);

impl StreamId {
    /// The stream with this number; `None` for 0.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        std::num::NonZeroU32::new(number).map(Self)
    }

    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a session: 128 random bits, zero for "make a new one". Shows nothing of itself in `Debug`.
#[derive(Clone, Copy)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// The id that asks for a new session.
    pub const NEW: Self = Self([0; 16]);

    /// The id of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes on the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Whether this asks for a new session.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.0 == [0; 16]
    }
}

/// In constant time, since whoever knows an id can ask for its session.
impl PartialEq for SessionId {
    fn eq(&self, other: &Self) -> bool {
        u128::from_be_bytes(self.0) ^ u128::from_be_bytes(other.0) == 0
    }
}

impl Eq for SessionId {}

impl Hash for SessionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_new() { "SessionId(new)" } else { "SessionId(..)" })
    }
}

/// The random id of one run of an agent, by which a replaced agent is told from one that comes back.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceId([u8; 16]);

impl InstanceId {
    /// The id of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes on the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstanceId({:032x})", u128::from_be_bytes(self.0))
    }
}

/// The first message of an agent on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hello {
    /// The protocol's version; 1.
    pub version: u8,
    /// The session to go on with, or [`SessionId::NEW`].
    pub session: SessionId,
    /// The agent's count of its attach attempts in this session, failed ones included; higher each time.
    pub attempt: u64,
    /// What the agent allows.
    pub bounds: Bounds,
    /// The random id of this run of the agent.
    pub instance: InstanceId,
    /// The agent's program and version, free text.
    pub agent_version: String,
    /// Free names and values that the server shows in its lists.
    pub labels: Vec<(String, String)>,
}

impl Hello {
    /// A HELLO of version 1 for a new session, first attempt, without agent version and labels.
    #[must_use]
    pub fn new(instance: InstanceId, bounds: Bounds) -> Self {
        Self {
            version: 1,
            session: SessionId::NEW,
            attempt: 1,
            bounds,
            instance,
            agent_version: String::new(),
            labels: Vec::new(),
        }
    }
}

/// The server's answer to HELLO.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Welcome {
    /// The session that this link now belongs to.
    pub session: SessionId,
    /// The attempt of the HELLO that this answers.
    pub attempt: u64,
    /// Whether the session is the one that HELLO named (else it is new).
    pub resumed: bool,
    /// What the server allows.
    pub bounds: Bounds,
    /// For how long, in milliseconds, the server keeps a session without a link, at most.
    pub max_hold_ms: u32,
}

impl Welcome {
    /// A WELCOME to a new session.
    #[must_use]
    pub fn new(session: SessionId, attempt: u64, bounds: Bounds, max_hold_ms: u32) -> Self {
        Self { session, attempt, resumed: false, bounds, max_hold_ms }
    }
}

/// What one side allows the other, in HELLO and WELCOME. Absent on the wire: the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds {
    /// Streams open at once; at least 1.
    pub max_streams: u32,
    /// Opens that may be unanswered at once; at least 1.
    pub max_opens: u32,
    /// … and for one target; at least 1.
    pub max_opens_per_target: u32,
    /// The largest message, in bytes, head included; at least 1 KiB.
    pub max_message: u32,
    /// The furthest that a credit may ever stand above what was received, in bytes; at least the early credit.
    pub max_credit: u64,
    /// Bytes that the server may send behind OPEN, before ACCEPT (the smaller of both sides' counts).
    pub early_credit: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_streams: 1024,
            max_opens: 256,
            max_opens_per_target: 64,
            max_message: MAX_MESSAGE as u32,
            max_credit: 8 * 1024 * 1024, // a quarter of the 32 MiB for unread data
            early_credit: 16 * 1024,     // one quantum of the scheduler
        }
    }
}

/// What a stream's opener tells beside the target's name. Unknown entries are skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// The W3C `traceparent` of the request that the stream serves, as the opener gave it; its form is not judged.
    pub traceparent: Option<String>,
    /// Milliseconds after which the opener gives up, counted from OPEN.
    pub deadline_ms: Option<u32>,
}

/// One frame. Session frames have no stream; all others name theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// 0x01: the agent's first frame on a link.
    Hello(Hello),
    /// 0x02: the server's answer.
    Welcome(Welcome),
    /// 0x04: to be answered by a PONG with the same bytes.
    Ping([u8; 8]),
    /// 0x05: the answer to a PING.
    Pong([u8; 8]),
    /// 0x06: open nothing new here, connect anew, finish what runs.
    Drain {
        /// Why; with 4410 the agent does not connect anew.
        code: CloseCode,
        /// When what still runs is cut off, in milliseconds from now.
        deadline_ms: u32,
        /// The agent connects anew after a random part of this, in milliseconds.
        jitter_ms: u32,
        /// Free text for the log.
        reason: String,
    },
    /// 0x07: the session ends now.
    Close {
        /// Why.
        code: CloseCode,
        /// Free text for the log.
        reason: String,
    },
    /// 0x10: the server opens a stream.
    Open {
        /// The new stream; ids strictly increase.
        stream: StreamId,
        /// How much the agent may send, from offset 0.
        credit: u64,
        /// What to reach.
        target: TargetName,
        /// What else the opener tells.
        metadata: Metadata,
    },
    /// 0x11: the agent took the stream.
    Accept {
        /// The stream.
        stream: StreamId,
        /// How much the server may send, from offset 0; at least the early credit.
        credit: u64,
    },
    /// 0x12: bytes of a stream; at least one.
    Data {
        /// The stream.
        stream: StreamId,
        /// The bytes, a slice of the message: a clone of it that is kept pins the whole message.
        payload: Bytes,
    },
    /// 0x13: the peer may send up to this offset.
    Credit {
        /// The stream.
        stream: StreamId,
        /// Absolute, from the stream's first byte.
        offset: u64,
    },
    /// 0x14: no more data in this direction.
    Fin {
        /// The stream.
        stream: StreamId,
        /// How many bytes this direction had.
        final_size: u64,
    },
    /// 0x15: both directions end.
    Reset {
        /// The stream.
        stream: StreamId,
        /// Why.
        code: ResetCode,
        /// Free text for the log.
        reason: String,
    },
    /// 0x16: the sender reads no more of this stream.
    Stop {
        /// The stream.
        stream: StreamId,
        /// Why.
        code: ResetCode,
    },
    /// From 0x80 on: a frame that this version does not know and skips.
    Unknown {
        /// Its type.
        kind: u8,
    },
}

impl Frame {
    /// Whether the frame belongs into counted messages (all frames of streams) and not into those of number 0.
    /// `None` for unknown frames, which may stand in both.
    #[must_use]
    pub fn is_counted(&self) -> Option<bool> {
        match self {
            Self::Hello(_) | Self::Welcome(_) | Self::Ping(_) | Self::Pong(_) => Some(false),
            Self::Drain { .. } | Self::Close { .. } => Some(false),
            Self::Unknown { .. } => None,
            _ => Some(true),
        }
    }
}

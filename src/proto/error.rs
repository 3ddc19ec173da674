//! How sessions and streams fail: a rule that the peer broke, the end of a session, of a stream, a refused open.

use std::{fmt, sync::Arc};

use crate::frame::{CloseCode, DecodeError, ResetCode};

/// A rule of the protocol that the peer broke. It ends the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    code: CloseCode,
    rule: &'static str,
}

impl Violation {
    pub(crate) const fn new(code: CloseCode, rule: &'static str) -> Self {
        Self { code, rule }
    }

    /// The code with which the session and its link are closed.
    #[must_use]
    pub const fn code(&self) -> CloseCode {
        self.code
    }

    /// The rule that was broken, in a few words.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        self.rule
    }
}

impl From<DecodeError> for Violation {
    fn from(error: DecodeError) -> Self {
        Self::new(error.close_code(), error.rule())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the peer broke a rule of the protocol: {}, close code {}", self.rule, self.code.number())
    }
}

impl std::error::Error for Violation {}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEnd {
    /// Its link was lost and did not come back in time.
    Lost,
    /// Another session took its key.
    Replaced,
    /// The peer broke a rule.
    Violation(Violation),
    /// The peer came back with counts that cannot be, or again and again without taking anything.
    Unresumable(Violation),
    /// The peer sent CLOSE, or closed its WebSocket with a code that ends the session.
    ClosedByPeer {
        /// Its code.
        code: CloseCode,
        /// Its words; for the log only.
        reason: Arc<str>,
    },
    /// This side closed it.
    Shutdown,
    /// This side disconnected the agent: its credentials were revoked, or the operator asked for it.
    Revoked,
    /// A fault inside this crate.
    Internal,
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost => f.write_str("the session was lost with its link"),
            Self::Replaced => f.write_str("the session was replaced"),
            Self::Violation(violation) | Self::Unresumable(violation) => violation.fmt(f),
            Self::ClosedByPeer { code, .. } => write!(f, "the peer closed the session: {code}"),
            Self::Shutdown => f.write_str("the session was shut down"),
            Self::Revoked => f.write_str("the session was revoked"),
            Self::Internal => f.write_str("the session failed inside"),
        }
    }
}

/// Why a stream cannot be written or read (any more).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer reset it.
    Reset {
        /// Why.
        code: ResetCode,
        /// Its words; for the log only.
        reason: Arc<str>,
    },
    /// The peer reads no more of it and has nothing more to say.
    Stopped(ResetCode),
    /// The peer did not answer its OPEN in time.
    Unanswered,
    /// Written after this side's end was declared.
    Finished,
    /// Its session ended.
    Session(SessionEnd),
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset { code, .. } => write!(f, "the peer reset the stream: {code}"),
            Self::Stopped(code) => write!(f, "the peer stopped reading: {code}"),
            Self::Unanswered => f.write_str("the peer did not answer the open in time"),
            Self::Finished => f.write_str("written after the end of the stream was declared"),
            Self::Session(end) => end.fmt(f),
        }
    }
}

impl std::error::Error for StreamError {}

/// Why a stream cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// As many opens are unanswered as the peer takes, in all or for this target; try again after
    /// [`Event::OpensAvailable`](crate::proto::Event::OpensAvailable).
    TooManyOpens,
    /// As many streams are open as one of the sides allows.
    TooManyStreams,
    /// The peer drains: open on its next session.
    Draining,
    /// Stream ids are used up: open on a new session.
    Exhausted,
    /// Only the server opens.
    WrongSide,
    /// The session ended.
    Session(SessionEnd),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyOpens => f.write_str("too many opens are unanswered"),
            Self::TooManyStreams => f.write_str("too many streams are open"),
            Self::Draining => f.write_str("the session drains"),
            Self::WrongSide => f.write_str("only the server opens streams"),
            Self::Exhausted => f.write_str("the session has no stream ids left"),
            Self::Session(end) => end.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

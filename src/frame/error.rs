//! What was wrong with a message, and at which byte.

use std::fmt;

use super::code::CloseCode;

/// Why a message does not parse, or parses and is forbidden wherever it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The message is longer than [`MAX_MESSAGE`](super::MAX_MESSAGE).
    MessageTooLong,
    /// The message ends inside its head, the header of a frame, or a payload.
    Truncated,
    /// A frame announces more than [`MAX_PAYLOAD`](super::MAX_PAYLOAD).
    PayloadTooLong,
    /// A payload is shorter or longer than the layout of its frame.
    PayloadSize,
    /// A frame of a stream names stream 0.
    StreamMissing,
    /// A frame of the session names a stream.
    StreamUnexpected,
    /// A field that is a yes or a no is neither.
    Flag,
    /// A parameter is cut short, or its value has the wrong length.
    Parameter,
    /// A parameter stands twice that may stand once.
    ParameterRepeated,
    /// A parameter is missing that must be there.
    ParameterMissing,
    /// More labels than [`MAX_LABELS`](super::MAX_LABELS).
    TooManyLabels,
    /// A text, a name or the metadata is longer than its limit.
    TooLong,
    /// A text is not UTF-8.
    Utf8,
    /// A target name has a byte other than `a`–`z`, `0`–`9` and `-`.
    TargetName,
    /// A type below 0x80 that this version does not know.
    UnknownType(u8),
    /// A DATA frame without a byte.
    EmptyData,
}

impl DecodeErrorKind {
    const fn text(self) -> &'static str {
        match self {
            Self::MessageTooLong => "message too long",
            Self::Truncated => "message cut short",
            Self::PayloadTooLong => "payload too long",
            Self::PayloadSize => "payload of the wrong size",
            Self::StreamMissing => "stream 0 in a frame of a stream",
            Self::StreamUnexpected => "a stream in a frame of the session",
            Self::Flag => "flag neither 0 nor 1",
            Self::Parameter => "malformed parameter",
            Self::ParameterRepeated => "repeated parameter",
            Self::ParameterMissing => "missing parameter",
            Self::TooManyLabels => "too many labels",
            Self::TooLong => "text too long",
            Self::Utf8 => "text that is not UTF-8",
            Self::TargetName => "bad target name",
            Self::UnknownType(_) => "unknown frame type",
            Self::EmptyData => "DATA without a byte",
        }
    }
}

/// A message that cannot be taken: what was wrong, and at which byte of it.
///
/// ```
/// use bytes::Bytes;
/// use revdial::frame::{CloseCode, DecodeErrorKind, decode};
///
/// let error = decode(Bytes::from_static(&[0; 15])).unwrap_err();
/// assert_eq!(error.kind(), DecodeErrorKind::Truncated);
/// assert_eq!(error.close_code(), CloseCode::MALFORMED);
/// assert_eq!(error.to_string(), "message cut short at byte 15");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeError {
    kind: DecodeErrorKind,
    at: usize,
}

impl DecodeError {
    pub(super) const fn new(kind: DecodeErrorKind, at: usize) -> Self {
        Self { kind, at }
    }

    /// What was wrong.
    #[must_use]
    pub const fn kind(&self) -> DecodeErrorKind {
        self.kind
    }

    /// Where the wrong field begins, counted in bytes from the start of the message; for a message that is cut
    /// short, its end.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// The code that closes the session: 1002 for bytes that do not parse, 4420 for what parses and is forbidden,
    /// 1009 for a message over the limit.
    #[must_use]
    pub const fn close_code(&self) -> CloseCode {
        match self.kind {
            DecodeErrorKind::MessageTooLong => CloseCode::TOO_BIG,
            DecodeErrorKind::UnknownType(_) | DecodeErrorKind::EmptyData => CloseCode::FORBIDDEN,
            _ => CloseCode::MALFORMED,
        }
    }

    /// What was wrong, in a few words without the position.
    pub(crate) const fn rule(&self) -> &'static str {
        self.kind.text()
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.text())?;
        if let DecodeErrorKind::UnknownType(kind) = self.kind {
            write!(f, " {kind:#04x}")?;
        }
        write!(f, " at byte {}", self.at)
    }
}

impl std::error::Error for DecodeError {}

//! Why a WebSocket stopped.

use std::{error::Error as StdError, fmt, io};

use crate::frame::CloseCode;

/// What went wrong on a link, as its owner has to tell apart.
#[derive(Debug)]
pub(crate) enum LinkError {
    /// The peer's close frame.
    Closed {
        /// Its code, if it gave one; those that this version does not know are kept.
        code: Option<CloseCode>,
        /// Its reason: the peer's text, for logs only.
        reason: String,
    },
    /// The peer's byte stream ended without a close frame: a normal abrupt end.
    Eof,
    /// The byte stream failed.
    Io(io::Error),
    /// A text message.
    Text,
    /// A message over the limit.
    TooBig,
    /// A WebSocket frame that cannot be; with the rule that it breaks.
    Malformed(&'static str),
    /// More pings and pongs than are taken.
    Flood,
}

impl LinkError {
    /// The byte stream ended where no end can be.
    pub(super) fn amid_a_message() -> Self {
        Self::Io(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended amid a message"))
    }

    /// The code to close with, where the peer broke a rule of WebSocket; `None` where there is nothing to say.
    pub(crate) const fn close_code(&self) -> Option<CloseCode> {
        match self {
            Self::Text => Some(CloseCode::TEXT),
            Self::TooBig => Some(CloseCode::TOO_BIG),
            Self::Malformed(_) => Some(CloseCode::MALFORMED),
            Self::Flood => Some(CloseCode::FLOOD),
            Self::Closed { .. } | Self::Eof | Self::Io(_) => None,
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { code, .. } => LinkEnd::Closed(*code).fmt(f),
            Self::Eof => f.write_str("the WebSocket ended without a close frame"),
            Self::Io(_) => f.write_str("the byte stream below the WebSocket failed"),
            Self::Text => f.write_str("text message on the WebSocket"),
            Self::TooBig => f.write_str("WebSocket message over the limit"),
            Self::Malformed(rule) => write!(f, "malformed WebSocket frame: {rule}"),
            Self::Flood => f.write_str("flood of WebSocket pings"),
        }
    }
}

impl StdError for LinkError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// Why a link ended, as reported to the connection manager and to observers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkEnd {
    /// The peer closed the WebSocket, with this code if it gave one.
    Closed(Option<CloseCode>),
    /// The byte stream below ended or failed.
    Lost,
    /// Nothing was heard, or nothing was acked, for the dead-peer time.
    Dead,
    /// The peer broke a rule of WebSocket or of the protocol; closed with this code.
    Violation(CloseCode),
    /// A newer link of the same session took over.
    Superseded,
    /// This side closed the session, with this code.
    Local(CloseCode),
    /// The task that owned the link was dropped.
    Aborted,
}

impl LinkEnd {
    /// The end as a label for metrics, without its code: `closed`, `lost`, `dead`, `violation`, `superseded`, `local`
    /// or `aborted`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed(_) => "closed",
            Self::Lost => "lost",
            Self::Dead => "dead",
            Self::Violation(_) => "violation",
            Self::Superseded => "superseded",
            Self::Local(_) => "local",
            Self::Aborted => "aborted",
        }
    }
}

impl fmt::Display for LinkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(Some(code)) => write!(f, "closed by the peer with {code}"),
            Self::Closed(None) => f.write_str("closed by the peer without a code"),
            Self::Lost => f.write_str("the connection was lost"),
            Self::Dead => f.write_str("the peer is dead"),
            Self::Violation(code) => write!(f, "the peer broke a rule: {code}"),
            Self::Superseded => f.write_str("superseded by a newer link"),
            Self::Local(code) => write!(f, "closed by this side with {code}"),
            Self::Aborted => f.write_str("the link's task was aborted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_code_and_its_end() {
        let closed = LinkError::Closed { code: Some(CloseCode::new(4999)), reason: "why".into() };
        let malformed = LinkError::Malformed("reserved bits");
        let table = [
            (closed, None),
            (LinkError::Eof, None),
            (LinkError::Io(io::ErrorKind::ConnectionReset.into()), None),
            (LinkError::Text, Some(CloseCode::TEXT)),
            (LinkError::TooBig, Some(CloseCode::TOO_BIG)),
            (malformed, Some(CloseCode::MALFORMED)),
            (LinkError::Flood, Some(CloseCode::FLOOD)),
        ];
        for (error, code) in table {
            assert_eq!(error.close_code(), code, "{error}");
        }
    }

    #[test]
    fn the_peers_reason_stays_out_of_display() {
        let error = LinkError::Closed { code: None, reason: "<script>".into() };
        assert_eq!(error.to_string(), "closed by the peer without a code");
    }

    #[test]
    fn ends_have_labels_and_words() {
        assert_eq!(LinkEnd::Local(CloseCode::NORMAL).as_str(), "local");
        assert_eq!(LinkEnd::Local(CloseCode::NORMAL).to_string(), "closed by this side with 1000 (closed)");
    }
}

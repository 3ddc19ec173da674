//! What goes over the control link: lines of JSON to values and back, without IO and clock.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::{collections::BTreeMap, fmt};

use bytes::{Buf, Bytes, BytesMut};
use serde_json::value::RawValue;

use crate::frame::CloseCode;

/// The longest line that is read, with its `\n`.
const MAX_LINE: usize = 4096;

/// The longest line that is written: one byte less, for readers that count otherwise.
const MAX_SENT: usize = MAX_LINE - 1;

/// The longest `err` that is written, in bytes of text: a sentence, not a log.
const MAX_ERR: usize = 512;

/// One line of the control link.
///
/// ```
/// use revdial::dialback::Line;
///
/// let line = Line::ConnReady { path: "/revdial?a=1&b=2".to_owned() };
/// assert_eq!(line.encode(), "{\"command\":\"conn-ready\",\"connPath\":\"/revdial?a=1\\u0026b=2\"}\n");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Line {
    /// The server is there. It comes first on a link, after each [`ConnReady`](Self::ConnReady), and when nothing
    /// else was to be said for a while.
    KeepAlive,
    /// The server asks the agent to dial back.
    ConnReady {
        /// Where to, for [`pickup_uri`](super::pickup_uri); empty when the line had none.
        path: String,
    },
    /// The agent could not dial back.
    PickupFailed {
        /// The path of the [`ConnReady`](Self::ConnReady) that this answers, for [`request_of`](super::request_of);
        /// empty when the line had none.
        path: String,
        /// Why, in words; empty when the line had none.
        error: String,
    },
    /// A line without a command, or with one that this version does not know. To be ignored.
    Unknown,
}

impl Line {
    /// The line as bytes, with its `\n`: the very bytes that Go's `encoding/json` writes, which leaves out what is
    /// empty.
    ///
    /// At most 4,095 bytes: an error is cut to 512 bytes, and further for a path that leaves less; a path is
    /// cut where it does not fit on its own. Cuts are at borders of characters.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut line = Written::default();
        match self {
            Self::KeepAlive => line.field("command", "keep-alive"),
            Self::ConnReady { path } => {
                line.field("command", "conn-ready");
                line.field("connPath", path);
            }
            Self::PickupFailed { path, error } => {
                line.field("command", "pickup-failed");
                line.field("connPath", path);
                line.field("err", cut(error));
            }
            Self::Unknown => {}
        }
        line.finish()
    }

    /// The value of a line without its `\n`.
    fn decode(line: &[u8]) -> Option<Self> {
        let line = str::from_utf8(line).ok()?;
        // Raw, so that what is not for us is neither kept nor bounded in depth or in the size of its numbers.
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(line).ok()?;
        let text = |name: &str| match fields.get(name) {
            Some(value) => serde_json::from_str::<Option<String>>(value.get()).ok().map(Option::unwrap_or_default),
            None => Some(String::new()),
        };
        let (command, path, error) = (text("command")?, text("connPath")?, text("err")?);
        Some(match &*command {
            "keep-alive" => Self::KeepAlive,
            "conn-ready" => Self::ConnReady { path },
            "pickup-failed" => Self::PickupFailed { path, error },
            _ => Self::Unknown,
        })
    }
}

/// The control lines in what arrives, however it is split over messages.
///
/// Take lines until there is none after each [`push`](Self::push), and what is held between two of them is less than
/// 4,096 bytes.
///
/// ```
/// use revdial::dialback::{Line, Lines};
///
/// let mut lines = Lines::new();
/// lines.push(b"{\"command\":\"keep-alive\"}\n{\"command\":");
/// assert_eq!(lines.next()?, Some(Line::KeepAlive));
/// assert_eq!(lines.next()?, None);
/// lines.push(b"\"of a later version\"}\n");
/// assert_eq!(lines.next()?, Some(Line::Unknown));
/// # Ok::<(), revdial::dialback::LineError>(())
/// ```
#[derive(Debug, Default)]
pub struct Lines {
    unread: BytesMut,
    /// How many of the unread bytes are known to have no `\n`.
    searched: usize,
    failed: Option<LineError>,
}

impl Lines {
    /// Nothing has arrived.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes have arrived. They are dropped after an error.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.unread.extend_from_slice(bytes);
        }
    }

    /// The next line, or `None` until more bytes come.
    ///
    /// # Errors
    /// When a line is too long or is none. Nothing can be read behind it: the error comes again.
    #[expect(clippy::should_implement_trait, reason = "it goes on after None, and fails")]
    pub fn next(&mut self) -> Result<Option<Line>, LineError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let line = self.take_line();
        if let Err(error) = line {
            self.failed = Some(error);
            self.unread = BytesMut::new();
        }
        line
    }

    /// How many bytes are held that were not taken as lines yet.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.unread.len()
    }

    fn take_line(&mut self) -> Result<Option<Line>, LineError> {
        let window = self.unread.get(..MAX_LINE).unwrap_or(&self.unread);
        let fresh = window.get(self.searched..).unwrap_or_default();
        let Some(end) = fresh.iter().position(|&byte| byte == b'\n') else {
            self.searched = window.len();
            return if window.len() == MAX_LINE { Err(LineError::TooLong) } else { Ok(None) };
        };
        let end = self.searched.saturating_add(end);
        let line = window.get(..end).and_then(Line::decode).ok_or(LineError::Malformed)?;
        self.unread.advance(end.saturating_add(1));
        self.searched = 0;
        Ok(Some(line))
    }
}

/// Why the control link cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineError {
    /// A line of more than 4,096 bytes with its `\n`.
    TooLong,
    /// A line that is no JSON object in UTF-8, or has something other than a text where one must be.
    Malformed,
}

impl LineError {
    /// The code to close the control link with: 1009 for a line that is too long, 1007 for one that is none.
    #[must_use]
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::TooLong => CloseCode::TOO_BIG,
            Self::Malformed => CloseCode::INVALID_DATA,
        }
    }
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "control line of more than 4,096 bytes",
            Self::Malformed => "control line that is no JSON object with texts",
        })
    }
}

impl std::error::Error for LineError {}

/// As much of an error as is written, to the last border of characters.
fn cut(error: &str) -> &str {
    let mut ends = (0..=error.len().min(MAX_ERR)).rev();
    ends.find_map(|end| error.get(..end)).unwrap_or_default()
}

/// A line in the making, which has room for its end at any time.
#[derive(Default)]
struct Written(String);

impl Written {
    /// A field, unless it is empty or nothing of it fits.
    fn field(&mut self, name: &str, value: &str) {
        let before = self.0.len();
        self.0.extend([if before == 0 { "{\"" } else { ",\"" }, name, "\":\""]);
        let begin = self.0.len();
        for c in value.chars() {
            let end = self.0.len();
            self.push(c);
            if self.0.len() > MAX_SENT.saturating_sub("\"}\n".len()) {
                self.0.truncate(end);
                break;
            }
        }
        if self.0.len() == begin || begin > MAX_SENT {
            self.0.truncate(before);
        } else {
            self.0.push('"');
        }
    }

    /// One character of a text, as Go writes it.
    fn push(&mut self, c: char) {
        match c {
            '"' => self.0.push_str("\\\""),
            '\\' => self.0.push_str("\\\\"),
            '\n' => self.0.push_str("\\n"),
            '\r' => self.0.push_str("\\r"),
            '\t' => self.0.push_str("\\t"),
            '\u{8}' => self.0.push_str("\\b"),
            '\u{c}' => self.0.push_str("\\f"),
            '\0'..='\u{1f}' | '&' | '<' | '>' | '\u{2028}' | '\u{2029}' => {
                self.0.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => self.0.push(c),
        }
    }

    fn finish(mut self) -> Bytes {
        self.0.push_str(if self.0.is_empty() { "{}\n" } else { "}\n" });
        self.0.into()
    }
}

#[cfg(test)]
mod tests;

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
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn conn_ready(path: &str) -> Line {
        Line::ConnReady { path: path.to_owned() }
    }

    fn pickup_failed(path: &str, error: &str) -> Line {
        Line::PickupFailed { path: path.to_owned(), error: error.to_owned() }
    }

    /// All lines in the bytes as they come in these chunks, and the error behind them.
    fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Line>, Option<LineError>) {
        let (mut lines, mut read) = (Lines::new(), Vec::new());
        for chunk in chunks {
            lines.push(chunk);
            loop {
                match lines.next() {
                    Ok(Some(line)) => read.push(line),
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!((lines.next(), lines.buffered()), (Err(error), 0));
                        lines.push(b"{}\n");
                        assert_eq!((lines.next(), lines.buffered()), (Err(error), 0));
                        return (read, Some(error));
                    }
                }
            }
            assert!(lines.buffered() < MAX_LINE);
        }
        (read, None)
    }

    fn one(line: &[u8]) -> Result<Line, LineError> {
        match read([line]) {
            (mut lines, None) => Ok(lines.pop().expect("a line")),
            (_, Some(error)) => Err(error),
        }
    }

    #[test]
    fn lines_are_written_as_go_writes_them() {
        let path = "/revdial?revdial.dialer=4bbe&revdial.req=f85e";
        for (line, text) in [
            (Line::KeepAlive, r#"{"command":"keep-alive"}"#),
            (
                conn_ready(path),
                r#"{"command":"conn-ready","connPath":"/revdial?revdial.dialer=4bbe\u0026revdial.req=f85e"}"#,
            ),
            (
                pickup_failed(path, "unexpected EOF"),
                r#"{"command":"pickup-failed","connPath":"/revdial?revdial.dialer=4bbe\u0026revdial.req=f85e","err":"unexpected EOF"}"#,
            ),
            (pickup_failed("", ""), r#"{"command":"pickup-failed"}"#),
            (pickup_failed("", "e"), r#"{"command":"pickup-failed","err":"e"}"#),
            (
                conn_ready("&<>\"\\/\n\r\t\u{8}\u{c}\0\u{1f}\u{7f}\u{2028}\u{2029}äé𝄞"),
                "{\"command\":\"conn-ready\",\"connPath\":\"\\u0026\\u003c\\u003e\\\"\\\\/\\n\\r\\t\\b\\f\\u0000\\u001f\u{7f}\\u2028\\u2029äé𝄞\"}",
            ),
            (Line::Unknown, "{}"),
        ] {
            assert_eq!(line.encode(), format!("{text}\n"));
            assert_eq!(one(&line.encode()), Ok(line));
        }
    }

    #[test]
    fn lines_are_read_as_go_reads_them() {
        for (text, line) in [
            (r#"{"command":"keep-alive"}"#, Line::KeepAlive),
            (" { \"command\" : \"keep\\u002dalive\" } \r", Line::KeepAlive),
            (r#"{"command":"keep-alive","x":[[{"y":1e999}]],"connPath":null}"#, Line::KeepAlive),
            (r#"{"connPath":"/a&b\u0026c","command":"conn-ready"}"#, conn_ready("/a&b&c")),
            (r#"{"command":"conn-ready"}"#, conn_ready("")),
            (r#"{"command":"pickup-failed","connPath":null,"err":"\ud834\udd1e"}"#, pickup_failed("", "𝄞")),
            (r#"{"command":"hello","x":1}"#, Line::Unknown),
            (r#"{"command":null}"#, Line::Unknown),
            (r#"{"err":""}"#, Line::Unknown),
            ("{}", Line::Unknown),
        ] {
            assert_eq!(one(format!("{text}\n").as_bytes()), Ok(line), "{text}");
        }
        let deep = format!("{{\"x\":{}{}}}\n", "[".repeat(2000), "]".repeat(2000));
        assert_eq!(one(deep.as_bytes()), Ok(Line::Unknown));
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for text in [
            "",
            "not json",
            "[]",
            "null",
            "1",
            "\"keep-alive\"",
            "{",
            "{}{}",
            "{} x",
            "{\"command\":1}",
            "{\"command\":[\"keep-alive\"]}",
            "{\"command\":\"keep-alive\",\"err\":{}}",
            "{\"connPath\":true}",
            "{\"command\":\"\\ud800\"}",
            "{\"x\":nul}",
            "{'command':'keep-alive'}",
            "{\"command\":\"keep-alive\",}",
        ] {
            assert_eq!(one(format!("{text}\n").as_bytes()), Err(LineError::Malformed), "{text}");
        }
        assert_eq!(one(b"{\"x\":\"\xff\"}\n"), Err(LineError::Malformed));
        assert_eq!(LineError::Malformed.close_code().number(), 1007);
        assert_eq!(LineError::TooLong.close_code().number(), 1009);
    }

    #[test]
    fn a_line_has_at_most_4096_bytes() {
        let line = |len: usize| format!("{{\"x\":\"{}\"}}\n", "x".repeat(len - 9)).into_bytes();
        for (len, read) in [(4095, Ok(Line::Unknown)), (4096, Ok(Line::Unknown)), (4097, Err(LineError::TooLong))] {
            assert_eq!(line(len).len(), len);
            assert_eq!(one(&line(len)), read, "{len}");
            let twice = [Line::KeepAlive.encode(), line(len).into()].concat();
            assert_eq!(one(&twice), read, "{len} behind another");
        }
        assert_eq!(read([&*vec![b' '; 4095]]), (vec![], None));
        assert_eq!(read([&*vec![b' '; 4096]]), (vec![], Some(LineError::TooLong)));
        assert_eq!(read(vec![b' '; 4096].chunks(1)), (vec![], Some(LineError::TooLong)));
    }

    #[test]
    fn a_line_may_be_split_anywhere() {
        let all = [conn_ready("/revdial?a&b"), Line::KeepAlive, Line::Unknown, pickup_failed("ä", "&")];
        let bytes = all.iter().map(Line::encode).collect::<Vec<_>>().concat();
        for at in 0..=bytes.len() {
            let (first, second) = bytes.split_at(at);
            assert_eq!(read([first, second]), (all.to_vec(), None), "split at {at}");
        }
        assert_eq!(read(bytes.chunks(1)), (all.to_vec(), None));
    }

    #[test]
    fn what_is_sent_is_cut_to_the_limit() {
        let Ok(Line::PickupFailed { error, .. }) = one(&pickup_failed("/", &"ä".repeat(300)).encode()) else {
            panic!("not what was sent");
        };
        assert_eq!(error, "ä".repeat(256));
        let Ok(Line::PickupFailed { error, .. }) = one(&pickup_failed("/", &format!("x{}", "ä".repeat(300))).encode())
        else {
            panic!("not what was sent");
        };
        assert_eq!(error.len(), 511);
        for (filler, cost) in [("x", 1), ("&", 6), ("ä", 2), ("𝄞", 4), ("\u{2028}", 6)] {
            for len in 3300 / cost..4200 / cost {
                let path = filler.repeat(len);
                let line = pickup_failed(&path, &"&".repeat(100)).encode();
                assert!(line.len() <= MAX_SENT, "{} of {len} {filler:?}", line.len());
                let Ok(Line::PickupFailed { path: sent, error }) = one(&line) else { panic!("not what was sent") };
                assert!(path.starts_with(&sent));
                assert!(error.is_empty() || sent == path, "the error is cut before the path");
            }
        }
        assert_eq!(conn_ready(&"x".repeat(5000)).encode().len(), MAX_SENT);
        assert_eq!(conn_ready(&"x".repeat(5000)).encode().last(), Some(&b'\n'));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_chunks_read_the_same(
            pieces in vec(prop_oneof![
                Just(b"\n".to_vec()),
                Just(Line::KeepAlive.encode().to_vec()),
                Just(vec![b' '; 1500]),
                ".*".prop_map(|path| conn_ready(&path).encode().to_vec()),
                vec(any::<u8>(), 0..50),
            ], 0..8),
            chunk in 1_usize..5000,
        ) {
            let bytes = pieces.concat();
            prop_assert_eq!(read(bytes.chunks(chunk)), read([&*bytes]));
        }

        #[test]
        fn what_fits_comes_back(path in ".{0,300}", error in ".{0,100}") {
            let line = pickup_failed(&path, &error);
            prop_assert_eq!(one(&line.encode()), Ok(line));
        }
    }
}

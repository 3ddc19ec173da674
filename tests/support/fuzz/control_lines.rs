//! What the fuzz target of control lines checks: they read the same however they are split, and survive being sent again.

use revdial::dialback::{Line, LineError, Lines};

/// The longest line with its `\n`, and so more than is ever held between two messages.
const MAX_LINE: usize = 4096;

/// The sizes of chunks, and what comes in them: the same lines and the same error however they are split, and lines
/// that survive being sent again.
pub(crate) fn run(bytes: &[u8]) {
    let (sizes, bytes) = bytes.split_at(bytes.len().min(8));
    let whole = read([bytes]);
    assert_eq!(read(chunks(sizes, bytes)), whole);
    assert_eq!(read(bytes.chunks(1)), whole);
    whole.0.iter().for_each(check_line);
}

/// All lines, and the error behind them.
fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Line>, Option<LineError>) {
    let (mut lines, mut whole) = (Lines::new(), Vec::new());
    for chunk in chunks {
        let before = lines.buffered();
        lines.push(chunk);
        assert_eq!(lines.buffered(), before + chunk.len());
        loop {
            match lines.next() {
                Ok(Some(line)) => whole.push(line),
                Ok(None) => break,
                Err(error) => {
                    assert!([1007, 1009].contains(&error.close_code().number()), "{error}");
                    lines.push(b"{}\n");
                    assert_eq!((lines.next(), lines.buffered()), (Err(error), 0), "there is no line behind an error");
                    return (whole, Some(error));
                }
            }
        }
        assert!(lines.buffered() < MAX_LINE);
    }
    (whole, None)
}

/// The bytes in chunks of these sizes, over and over: some bytes, or some hundreds.
fn chunks<'a>(sizes: &[u8], mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    for &size in sizes.iter().cycle() {
        let size = if size < 128 { usize::from(size) + 1 } else { usize::from(size - 127) * 64 };
        let (chunk, rest) = bytes.split_at(size.min(bytes.len()));
        chunks.push(chunk);
        bytes = rest;
        if bytes.is_empty() {
            break;
        }
    }
    chunks
}

/// A line that is sent again is one line within the limit, and the same unless it had to be cut.
fn check_line(line: &Line) {
    let bytes = line.encode();
    assert!(bytes.len() < MAX_LINE && bytes.iter().filter(|&&byte| byte == b'\n').count() == 1);
    let (again, error) = read([&*bytes]);
    assert_eq!((again.len(), error), (1, None));
    match (line, &again[0]) {
        (Line::ConnReady { path }, Line::ConnReady { path: sent }) => check_cut(path, sent, bytes.len(), usize::MAX),
        (Line::PickupFailed { path, error }, Line::PickupFailed { path: sent_path, error: sent }) => {
            check_cut(path, sent_path, bytes.len(), usize::MAX);
            check_cut(error, sent, bytes.len(), 512);
            assert!(path == sent_path || sent.is_empty(), "the error is cut before the path");
        }
        (line, sent) => assert_eq!(line, sent),
    }
}

/// Cut is a text only where it, or the line, is full; one more character takes at most 6 bytes, and a name 9 with its
/// quotes.
fn check_cut(text: &str, sent: &str, line: usize, limit: usize) {
    let full = line + 6 + 9 >= MAX_LINE || sent.len() + 4 > limit;
    assert!(text == sent || text.starts_with(sent) && full, "{sent:?} of {text:?} in a line of {line}");
    assert!(sent.len() <= limit);
}

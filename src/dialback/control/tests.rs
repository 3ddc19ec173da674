//! Lines as Go writes and reads them, and what is none.

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

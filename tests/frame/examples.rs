//! Do the examples of the specification pin the wire?

use bytes::{Bytes, BytesMut};
use revdial::frame::{Bounds, CloseCode, Frame, Hello, MessageHead, Metadata, ResetCode, SessionId, Welcome, decode};

use crate::{PROTOCOL, decode_all, encoded, instance, message, raw, stream};

/// The examples of the specification, as values.
pub(crate) fn examples() -> Vec<Frame> {
    let mut hello = Hello::new(instance(), Bounds::default());
    hello.agent_version = "demo/1".into();
    hello.labels = vec![("os".into(), "linux".into())];
    let session = SessionId::new(std::array::from_fn(|i| 0xa0 + i as u8));
    let mut metadata = Metadata::default();
    metadata.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    metadata.deadline_ms = Some(10_000);
    let one = stream(1);
    vec![
        Frame::Hello(hello),
        Frame::Welcome(Welcome::new(session, 1, Bounds::default(), 30_000)),
        Frame::Ping([1, 2, 3, 4, 5, 6, 7, 8]),
        Frame::Pong([1, 2, 3, 4, 5, 6, 7, 8]),
        Frame::Drain { code: CloseCode::RESTART, deadline_ms: 30_000, jitter_ms: 5_000, reason: "restart".into() },
        Frame::Close { code: CloseCode::NORMAL, reason: "done".into() },
        Frame::Open { stream: one, credit: 65_536, target: "vnc".parse().unwrap(), metadata },
        Frame::Accept { stream: one, credit: 262_144 },
        Frame::Data { stream: one, payload: Bytes::from_static(b"hello") },
        Frame::Credit { stream: one, offset: 524_288 },
        Frame::Fin { stream: one, final_size: 5 },
        Frame::Reset { stream: one, code: ResetCode::TARGET_REFUSED, reason: "refused".into() },
        Frame::Stop { stream: one, code: ResetCode::CANCELLED },
    ]
}

/// Their bytes, copied from the specification.
const EXAMPLES: &[&str] = &[
    "01 000077 00000000 \
     01 00000000000000000000000000000000 0000000000000001 \
     0001 0004 00000400 \
     0002 0004 00000100 \
     0003 0004 00000040 \
     0004 0004 00010018 \
     0005 0008 0000000000800000 \
     0006 0004 00004000 \
     0010 0010 000102030405060708090a0b0c0d0e0f \
     0011 0006 64656d6f2f31 \
     0012 0008 02 6f73 6c696e7578",
    "02 000055 00000000 \
     a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 0000000000000001 00 \
     0001 0004 00000400 \
     0002 0004 00000100 \
     0003 0004 00000040 \
     0004 0004 00010018 \
     0005 0008 0000000000800000 \
     0006 0004 00004000 \
     0020 0004 00007530",
    "04 000008 00000000 0102030405060708",
    "05 000008 00000000 0102030405060708",
    "06 000011 00000000 03f4 00007530 00001388 72657374617274",
    "07 000006 00000000 03e8 646f6e65",
    "10 00004f 00000001 0000000000010000 03 766e63 \
     0001 0037 30302d30616637363531393136636434336464383434386562323131 \
     633830333139632d623761643662373136393230333333312d3031 \
     0002 0004 00002710",
    "11 000008 00000001 0000000000040000",
    "12 000005 00000001 68656c6c6f",
    "13 000008 00000001 0000000000080000",
    "14 000008 00000001 0000000000000005",
    "15 000009 00000001 0004 72656675736564",
    "16 000002 00000001 0001",
];

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

#[test]
fn m1_each_frame_has_exactly_these_bytes() {
    assert_eq!(examples().len(), EXAMPLES.len());
    for (frame, bytes) in examples().iter().zip(EXAMPLES) {
        assert_eq!(encoded(frame), unhex(bytes), "{frame:?}");
        assert_eq!(decode_all(&message(&unhex(bytes))).as_ref(), Ok(&vec![frame.clone()]));
    }
    let head = MessageHead { number: 7, received: 5 };
    let mut out = BytesMut::new();
    head.encode(&mut out);
    assert_eq!(out[..], unhex("0000000000000007 0000000000000005"));
    assert_eq!(decode(out.freeze()).unwrap().0, head);
    assert_eq!(decode_all(&message(&raw(0x80, 7, b"abc"))), Ok(vec![Frame::Unknown { kind: 0x80 }]));
}

#[test]
fn the_specification_shows_the_same_bytes() {
    let lines: Vec<_> = PROTOCOL.lines().map(str::trim).collect();
    let text = lines.join(" ");
    for example in EXAMPLES {
        let example = example.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(&example), "{example}");
    }
}

#[test]
fn the_rules_are_numbered_without_a_gap() {
    // A rule that came later stands where it belongs, and has the next number.
    let rules = PROTOCOL.lines().filter_map(|line| line.strip_prefix("- [M-")?.split_once(']'));
    let mut numbers: Vec<usize> = rules.map(|(number, _)| number.parse().unwrap()).collect();
    assert!(numbers.len() > 50);
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
}

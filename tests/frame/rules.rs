//! Does the codec keep the rules of the specification, one by one?

use bytes::Bytes;
use revdial::{
    TargetName,
    frame::{
        Bounds, CloseCode, DecodeErrorKind as Kind, FRAME_HEAD, Frame, Hello, InstanceId, MAX_AGENT_VERSION, MAX_LABEL,
        MAX_LABELS, MAX_MESSAGE, MAX_METADATA, MAX_PAYLOAD, MAX_REASON, MAX_TRACEPARENT, MESSAGE_HEAD, Metadata,
        ResetCode, SessionId, Welcome, decode,
    },
};

use crate::{PROTOCOL, decode_all, encoded, examples::examples, fuzz, instance, message, raw, sent, stream};

const HELLO: u8 = 0x01;
const WELCOME: u8 = 0x02;
const DRAIN: u8 = 0x06;
const CLOSE: u8 = 0x07;
const OPEN: u8 = 0x10;
const DATA: u8 = 0x12;
const RESET: u8 = 0x15;

fn parameter(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut parameter = kind.to_be_bytes().to_vec();
    parameter.extend_from_slice(&(value.len() as u16).to_be_bytes());
    parameter.extend_from_slice(value);
    parameter
}

fn decode_one(kind: u8, stream: u32, payload: &[u8]) -> Result<Frame, Kind> {
    let mut frames = decode_all(&message(&raw(kind, stream, payload))).map_err(|error| error.kind())?;
    assert_eq!(frames.len(), 1);
    Ok(frames.remove(0))
}

/// A HELLO of version 1 with an instance and these parameters.
fn hello_with(parameters: &[Vec<u8>]) -> Result<Hello, Kind> {
    let head = [&[1][..], &[0; 16], &7u64.to_be_bytes()].concat();
    let payload = [head, parameter(0x10, instance().as_bytes()), parameters.concat()].concat();
    match decode_one(HELLO, 0, &payload)? {
        Frame::Hello(hello) => Ok(hello),
        other => panic!("{other:?}"),
    }
}

fn welcome_with(flag: u8, parameters: &[Vec<u8>]) -> Result<Welcome, Kind> {
    let payload = [&[9; 16][..], &7u64.to_be_bytes(), &[flag], &parameters.concat()].concat();
    match decode_one(WELCOME, 0, &payload)? {
        Frame::Welcome(welcome) => Ok(welcome),
        other => panic!("{other:?}"),
    }
}

fn open_with(target: &[u8], parameters: &[Vec<u8>]) -> Result<Frame, Kind> {
    let payload = [&[0; 8][..], &[target.len() as u8], target, &parameters.concat()].concat();
    decode_one(OPEN, 1, &payload)
}

#[test]
fn m2_a_text_that_is_not_utf8_is_malformed() {
    let bad = [0xff, 0xfe];
    assert_eq!(decode_one(CLOSE, 0, &[&[0, 1][..], &bad].concat()), Err(Kind::Utf8));
    assert_eq!(decode_one(DRAIN, 0, &[&[0; 10][..], &bad].concat()), Err(Kind::Utf8));
    assert_eq!(decode_one(RESET, 1, &[&[0, 1][..], &bad].concat()), Err(Kind::Utf8));
    assert_eq!(hello_with(&[parameter(0x11, &bad)]), Err(Kind::Utf8));
    assert_eq!(hello_with(&[parameter(0x12, &[&[2][..], &bad].concat())]), Err(Kind::Utf8));
    assert_eq!(hello_with(&[parameter(0x12, &[&[0][..], &bad].concat())]), Err(Kind::Utf8));
    assert_eq!(open_with(&bad, &[]), Err(Kind::Utf8));
    assert_eq!(open_with(b"", &[parameter(1, &bad)]), Err(Kind::Utf8));
}

#[test]
fn m3_a_parameter_of_the_wrong_length_is_malformed() {
    for (kind, len) in [(1, 4), (2, 4), (3, 4), (4, 4), (5, 8), (6, 4)] {
        for wrong in [0, len - 1, len + 1] {
            assert_eq!(hello_with(&[parameter(kind, &vec![1; wrong])]), Err(Kind::Parameter), "{kind}, {wrong}");
            assert_eq!(welcome_with(0, &[parameter(kind, &vec![1; wrong])]), Err(Kind::Parameter), "{kind}, {wrong}");
        }
        assert!(hello_with(&[parameter(kind, &vec![1; len])]).is_ok());
        assert!(welcome_with(0, &[parameter(kind, &vec![1; len])]).is_ok());
    }
    for wrong in [3, 5] {
        assert_eq!(welcome_with(0, &[parameter(0x20, &vec![1; wrong])]), Err(Kind::Parameter));
        assert_eq!(open_with(b"", &[parameter(2, &vec![1; wrong])]), Err(Kind::Parameter));
    }
    for wrong in [15, 17] {
        let payload = [&[1][..], &[0; 24], &parameter(0x10, &vec![1; wrong])].concat();
        assert_eq!(decode_one(HELLO, 0, &payload), Err(Kind::Parameter));
    }
    assert_eq!(hello_with(&[parameter(0x12, &[])]), Err(Kind::Parameter), "a label without the length of its name");
    assert_eq!(hello_with(&[parameter(0x12, &[3, b'a', b'b'])]), Err(Kind::Parameter), "a label's name cut short");
}

#[test]
fn m3_a_parameter_cut_short_is_malformed() {
    let whole = parameter(1, &[0, 0, 0, 1]);
    for len in 1..whole.len() {
        assert_eq!(hello_with(&[whole[..len].to_vec()]), Err(Kind::Parameter), "{len}");
        assert_eq!(welcome_with(0, &[whole[..len].to_vec()]), Err(Kind::Parameter), "{len}");
        assert_eq!(open_with(b"", &[whole[..len].to_vec()]), Err(Kind::Parameter), "{len}");
    }
}

#[test]
fn m4_unknown_parameters_are_skipped_even_twice() {
    let unknown = parameter(0x7777, b"whatever");
    let known = parameter(1, &9u32.to_be_bytes());
    let all = [unknown.clone(), known, unknown.clone(), parameter(0xffff, b"")];
    assert_eq!(hello_with(&all).unwrap().bounds.max_streams, 9);
    assert_eq!(welcome_with(0, &all).unwrap().bounds.max_streams, 9);
    assert!(hello_with(&[parameter(0x20, b"of WELCOME")]).is_ok());
    assert!(welcome_with(0, &[parameter(0x10, b"of HELLO")]).is_ok());
    assert!(open_with(b"", &[unknown.clone(), parameter(2, &[0; 4]), unknown]).is_ok());
}

#[test]
fn m5_a_known_parameter_may_not_stand_twice_but_labels_may() {
    let twice = |kind, len| [parameter(kind, &vec![0; len]), parameter(kind, &vec![0; len])];
    for (kind, len) in [(1, 4), (2, 4), (3, 4), (4, 4), (5, 8), (6, 4)] {
        assert_eq!(hello_with(&twice(kind, len)), Err(Kind::ParameterRepeated), "{kind}");
        assert_eq!(welcome_with(0, &twice(kind, len)), Err(Kind::ParameterRepeated), "{kind}");
    }
    assert_eq!(hello_with(&[parameter(0x10, &[0; 16])]), Err(Kind::ParameterRepeated));
    assert_eq!(hello_with(&twice(0x11, 0)), Err(Kind::ParameterRepeated));
    assert_eq!(welcome_with(0, &twice(0x20, 4)), Err(Kind::ParameterRepeated));
    assert_eq!(open_with(b"", &twice(1, 1)), Err(Kind::ParameterRepeated));
    assert_eq!(open_with(b"", &twice(2, 4)), Err(Kind::ParameterRepeated));
    assert_eq!(hello_with(&twice(0x12, 1)).unwrap().labels.len(), 2);
}

#[test]
fn m9_a_message_over_the_limit_is_too_big() {
    let longest = message(&raw(DATA, 1, &[7; MAX_PAYLOAD]));
    assert_eq!(longest.len(), MAX_MESSAGE);
    assert_eq!(decode_all(&longest).map(|frames| frames.len()), Ok(1));
    let error = decode([&longest[..], &[0]].concat().into()).unwrap_err();
    assert_eq!((error.kind(), error.close_code()), (Kind::MessageTooLong, CloseCode::TOO_BIG));
}

#[test]
fn m11_a_message_cut_at_any_byte_is_malformed() {
    for frame in examples() {
        let whole = message(&encoded(&frame));
        for len in (0..whole.len()).filter(|len| *len != MESSAGE_HEAD) {
            let error = decode_all(&whole.slice(..len)).unwrap_err();
            assert_eq!((error.kind(), error.at()), (Kind::Truncated, len), "{frame:?}");
            assert_eq!(error.close_code(), CloseCode::MALFORMED);
        }
        assert_eq!(decode_all(&whole.slice(..MESSAGE_HEAD)), Ok(vec![]));
    }
}

#[test]
fn m11_bytes_behind_the_last_frame_are_malformed() {
    for frame in examples() {
        for more in 1..FRAME_HEAD {
            let bytes = message(&[&encoded(&frame)[..], &vec![0; more]].concat());
            let mut frames = decode(bytes.clone()).unwrap().1;
            assert_eq!(frames.next(), Some(Ok(frame.clone())), "what stands before is told");
            let error = frames.next().unwrap().unwrap_err();
            assert_eq!((error.kind(), error.at()), (Kind::Truncated, bytes.len()));
            assert_eq!(frames.next(), None);
        }
    }
}

#[test]
fn m17_a_payload_has_at_most_64_kib() {
    for kind in [DATA, CLOSE, 0x80] {
        let announced = |len: u32| [&[kind][..], &len.to_be_bytes()[1..], &[0; 4]].concat();
        for len in [65_537, 0xff_ffff] {
            let error = decode_all(&message(&announced(len))).unwrap_err();
            assert_eq!((error.kind(), error.at()), (Kind::PayloadTooLong, 16));
            assert_eq!(error.close_code(), CloseCode::MALFORMED);
        }
        assert_eq!(decode_all(&message(&announced(65_536))).unwrap_err().kind(), Kind::Truncated);
    }
    let frame = Frame::Data { stream: stream(1), payload: vec![1; MAX_PAYLOAD].into() };
    assert_eq!(sent(&frame), [frame]);
}

#[test]
fn m17_more_data_than_a_frame_takes_leaves_in_several() {
    let frame = Frame::Data { stream: stream(1), payload: vec![1; MAX_PAYLOAD + 1].into() };
    let bytes = encoded(&frame);
    assert_eq!(bytes.len(), 2 * FRAME_HEAD + MAX_PAYLOAD + 1);
    assert_eq!(bytes[FRAME_HEAD + MAX_PAYLOAD..], raw(DATA, 1, &[1]));
}

#[test]
fn m18_a_payload_of_the_wrong_size_is_malformed() {
    for (kind, size) in [(0x04, 8), (0x05, 8), (0x11, 8), (0x13, 8), (0x14, 8), (0x16, 2)] {
        let stream = u32::from(kind >= OPEN);
        assert!(decode_one(kind, stream, &vec![1; size]).is_ok());
        for wrong in [0, size - 1, size + 1] {
            assert_eq!(decode_one(kind, stream, &vec![1; wrong]), Err(Kind::PayloadSize), "{kind:#x}, {wrong}");
        }
    }
    for (kind, least) in [(WELCOME, 25), (DRAIN, 10), (CLOSE, 2), (OPEN, 9), (RESET, 2)] {
        let stream = u32::from(kind >= OPEN);
        assert!(decode_one(kind, stream, &vec![0; least]).is_ok());
        for wrong in 0..least {
            assert_eq!(decode_one(kind, stream, &vec![0; wrong]), Err(Kind::PayloadSize), "{kind:#x}, {wrong}");
        }
    }
    assert_eq!(decode_one(HELLO, 0, &[]), Err(Kind::PayloadSize));
    for wrong in 1..25 {
        assert_eq!(decode_one(HELLO, 0, &vec![1; wrong]), Err(Kind::PayloadSize), "{wrong}");
    }
    let cut = [&[0; 8][..], &[4], b"vnc"].concat();
    assert_eq!(decode_one(OPEN, 1, &cut), Err(Kind::PayloadSize), "a target name cut short");
}

#[test]
fn m19_frames_of_streams_name_one_and_frames_of_the_session_do_not() {
    for frame in examples() {
        let mut bytes = encoded(&frame).to_vec();
        let of_stream = bytes[0] >= OPEN;
        bytes[4..8].copy_from_slice(&u32::from(!of_stream).to_be_bytes());
        let error = decode_all(&message(&bytes)).unwrap_err();
        let kind = if of_stream { Kind::StreamMissing } else { Kind::StreamUnexpected };
        assert_eq!((error.kind(), error.close_code()), (kind, CloseCode::MALFORMED), "{frame:?}");
    }
}

#[test]
fn m20_b26_unknown_types_below_0x80_are_forbidden() {
    let known = [0x01, 0x02, 0x04, 0x05, 0x06, 0x07, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16];
    for kind in (0..0x80).filter(|kind| !known.contains(kind)) {
        for stream in [0, 1] {
            let error = decode_all(&message(&raw(kind, stream, b"payload"))).unwrap_err();
            assert_eq!((error.kind(), error.at()), (Kind::UnknownType(kind), 16));
            assert_eq!(error.close_code(), CloseCode::FORBIDDEN);
        }
    }
}

#[test]
fn m21_b27_unknown_types_from_0x80_on_are_skipped() {
    let ping = Frame::Ping(*b"behind  ");
    for kind in 0x80..=0xff {
        for (stream, payload) in [(0, &b""[..]), (u32::MAX, b"some payload")] {
            let bytes = [raw(kind, stream, payload), encoded(&ping).to_vec()].concat();
            assert_eq!(decode_all(&message(&bytes)), Ok(vec![Frame::Unknown { kind }, ping.clone()]));
        }
        assert_eq!(sent(&Frame::Unknown { kind }), [Frame::Unknown { kind }]);
    }
}

#[test]
fn m22_a_hello_of_another_version_is_told_by_its_first_byte_alone() {
    for version in (0..=255).filter(|version| *version != 1) {
        for rest in [&b""[..], b"in another layout", &[0xff; 300]] {
            let Ok(Frame::Hello(hello)) = decode_one(HELLO, 0, &[&[version][..], rest].concat()) else {
                panic!("version {version}");
            };
            let mut expected = Hello::new(InstanceId::new([0; 16]), Bounds::default());
            expected.version = version;
            assert_eq!(hello, expected);
        }
    }
}

#[test]
fn m23_a_hello_without_an_instance_is_malformed() {
    assert_eq!(decode_one(HELLO, 0, &[&[1][..], &[0; 24]].concat()), Err(Kind::ParameterMissing));
}

#[test]
fn m24_a_welcome_is_resumed_or_not() {
    assert!(!welcome_with(0, &[]).unwrap().resumed);
    assert!(welcome_with(1, &[]).unwrap().resumed);
    assert_eq!(welcome_with(2, &[]), Err(Kind::Flag));
    assert_eq!(welcome_with(255, &[]), Err(Kind::Flag));
}

#[test]
fn m43_session_ids_differ_in_any_byte_and_are_shown_by_no_debug() {
    let id = SessionId::new([0xa5; 16]);
    assert_eq!(id, SessionId::new([0xa5; 16]));
    for at in 0..16 {
        let mut bytes = [0xa5; 16];
        bytes[at] ^= 1;
        assert_ne!(id, SessionId::new(bytes), "{at}");
    }
    let mut hello = Hello::new(instance(), Bounds::default());
    hello.session = id;
    let shown = format!("{id:?} {hello:?} {:#?}", Welcome::new(id, 1, Bounds::default(), 0));
    assert!(!["165", "a5", "A5"].iter().any(|digits| shown.contains(digits)), "{shown}");
}

#[test]
fn what_is_absent_has_its_default() {
    let hello = hello_with(&[]).unwrap();
    assert_eq!((hello.bounds, hello.instance, hello.attempt), (Bounds::default(), instance(), 7));
    assert_eq!((hello.agent_version.as_str(), hello.labels.len()), ("", 0));
    let welcome = welcome_with(0, &[]).unwrap();
    assert_eq!((welcome.bounds, welcome.max_hold_ms), (Bounds::default(), 0));
    for bound in [65_560, 1_024, 256, 64, 8_388_608, 16_384].map(|bound: u64| bound.to_string()) {
        let digits = |line: &str| line.replace(',', "");
        assert!(
            PROTOCOL.lines().any(|line| line.starts_with("| 0x000") && digits(line).contains(&format!(" {bound} ")))
        );
    }
    let Ok(Frame::Open { target, metadata, .. }) = open_with(b"", &[]) else { panic!("an OPEN") };
    assert_eq!((target, metadata), (TargetName::default(), Metadata::default()));
}

#[test]
fn bounds_are_read_and_not_judged() {
    let all =
        [(1, 0u32), (2, u32::MAX), (3, 3), (4, 4), (6, 6)].map(|(kind, value)| parameter(kind, &value.to_be_bytes()));
    let all = [&all[..], &[parameter(5, &u64::MAX.to_be_bytes())]].concat();
    for bounds in [hello_with(&all).unwrap().bounds, welcome_with(1, &all).unwrap().bounds] {
        assert_eq!((bounds.max_streams, bounds.max_opens, bounds.max_opens_per_target), (0, u32::MAX, 3));
        assert_eq!((bounds.max_message, bounds.max_credit, bounds.early_credit), (4, u64::MAX, 6));
    }
}

#[test]
fn m26_a_target_name_has_63_of_its_letters_at_most() {
    for good in ["", "a", "-", "9876", "my-target", &"x".repeat(63)] {
        let Ok(Frame::Open { target, .. }) = open_with(good.as_bytes(), &[]) else { panic!("{good}") };
        assert_eq!(target.as_str(), good);
    }
    for bad in ["A", "a_b", "a.b", "a b", "a\0", "ä", "a~b", &"x".repeat(64), &"x".repeat(255)] {
        assert_eq!(open_with(bad.as_bytes(), &[]), Err(Kind::TargetName), "{bad}");
    }
}

#[test]
fn m27_metadata_has_1024_bytes_at_most_and_a_traceparent_256() {
    let filler = |len: usize| [parameter(0x7777, &vec![0; len - 4])];
    assert!(open_with(b"t", &filler(MAX_METADATA)).is_ok());
    assert_eq!(open_with(b"t", &filler(MAX_METADATA + 1)), Err(Kind::TooLong));
    assert!(open_with(b"t", &[parameter(1, &[b'0'; MAX_TRACEPARENT])]).is_ok());
    assert_eq!(open_with(b"t", &[parameter(1, &[b'0'; MAX_TRACEPARENT + 1])]), Err(Kind::TooLong));
}

#[test]
fn m27_a_traceparent_that_is_too_long_is_left_out() {
    for (len, kept) in [(MAX_TRACEPARENT, true), (MAX_TRACEPARENT + 1, false)] {
        let mut metadata = Metadata::default();
        metadata.traceparent = Some("0".repeat(len));
        let sent = sent(&Frame::Open { stream: stream(1), credit: 0, target: TargetName::default(), metadata });
        assert!(matches!(&sent[..], [Frame::Open { metadata, .. }] if metadata.traceparent.is_some() == kept));
    }
}

#[test]
fn m28_b34_data_of_no_byte_is_forbidden_and_never_sent() {
    let error = decode_all(&message(&raw(DATA, 1, b""))).unwrap_err();
    assert_eq!((error.kind(), error.close_code()), (Kind::EmptyData, CloseCode::FORBIDDEN));
    assert!(decode_one(DATA, 1, b"x").is_ok());
    assert_eq!(encoded(&Frame::Data { stream: stream(1), payload: Bytes::new() }), "");
}

#[test]
fn m29_a_reason_has_256_bytes_at_most() {
    for (kind, head) in [(DRAIN, 10), (CLOSE, 2), (RESET, 2)] {
        let with = |len| decode_one(kind, u32::from(kind >= OPEN), &[vec![0; head], vec![b'r'; len]].concat());
        assert!(with(MAX_REASON).is_ok());
        assert_eq!(with(MAX_REASON + 1), Err(Kind::TooLong));
    }
}

#[test]
fn m29_a_reason_that_is_too_long_is_cut_at_a_character() {
    let reason = format!("{}é and more", "r".repeat(MAX_REASON - 1));
    for frame in [
        Frame::Close { code: CloseCode::NORMAL, reason: reason.clone() },
        Frame::Drain { code: CloseCode::NORMAL, deadline_ms: 0, jitter_ms: 0, reason: reason.clone() },
        Frame::Reset { stream: stream(1), code: ResetCode::INTERNAL, reason: reason.clone() },
    ] {
        let sent = sent(&frame);
        let [Frame::Close { reason, .. } | Frame::Drain { reason, .. } | Frame::Reset { reason, .. }] = &sent[..]
        else {
            panic!("{sent:?}");
        };
        assert_eq!(*reason, "r".repeat(MAX_REASON - 1));
    }
}

#[test]
fn m30_versions_and_labels_have_limits() {
    let label = |name: usize, value: usize| parameter(0x12, &[vec![name as u8], vec![b'x'; name + value]].concat());
    assert!(hello_with(&[parameter(0x11, &[b'v'; MAX_AGENT_VERSION])]).is_ok());
    assert_eq!(hello_with(&[parameter(0x11, &[b'v'; MAX_AGENT_VERSION + 1])]), Err(Kind::TooLong));
    assert!(hello_with(&[label(MAX_LABEL, MAX_LABEL)]).is_ok());
    assert_eq!(hello_with(&[label(MAX_LABEL + 1, 0)]), Err(Kind::TooLong));
    assert_eq!(hello_with(&[label(0, MAX_LABEL + 1)]), Err(Kind::TooLong));
    assert_eq!(hello_with(&vec![label(1, 1); MAX_LABELS]).unwrap().labels.len(), MAX_LABELS);
    assert_eq!(hello_with(&vec![label(1, 1); MAX_LABELS + 1]), Err(Kind::TooManyLabels));
}

#[test]
fn m30_versions_and_labels_are_cut_to_them() {
    let mut hello = Hello::new(instance(), Bounds::default());
    hello.agent_version = "v".repeat(MAX_AGENT_VERSION + 1);
    hello.labels = vec![("n".repeat(MAX_LABEL + 1), "w".repeat(MAX_LABEL + 1)); MAX_LABELS + 1];
    let sent = sent(&Frame::Hello(hello.clone()));
    hello.agent_version.pop();
    hello.labels.pop();
    hello.labels.iter_mut().for_each(|(name, value)| (_, _) = (name.pop(), value.pop()));
    assert_eq!(sent, [Frame::Hello(hello)]);
}

#[test]
fn decode_never_allocates_more_than_it_holds() {
    let lies: [&[u8]; 6] = [
        &[DATA, 0xff, 0xff, 0xff, 0, 0, 0, 1],
        &[DATA, 1, 0, 0, 0, 0, 0, 1, 7],
        &[HELLO, 1, 0, 0, 0, 0, 0, 0, 1],
        &raw(HELLO, 0, &[&[1][..], &[0; 24], &[0, 0x11, 0xff, 0xff]].concat()),
        &raw(HELLO, 0, &[&[1][..], &[0; 24], &[0, 0x12, 0, 1, 0xff]].concat()),
        &raw(OPEN, 1, &[&[0; 8][..], &[63]].concat()),
    ];
    for lie in lies {
        assert!(decode_all(&message(lie)).is_err());
    }
    for frame in examples() {
        let message = message(&encoded(&frame));
        fuzz::check_held(&decode_all(&message).unwrap()[0], &message);
    }
    let label = parameter(0x12, &[0]);
    let many = decode_one(HELLO, 0, &[&[1][..], &[0; 24], &label.repeat(13_000)].concat());
    assert_eq!(many, Err(Kind::TooManyLabels), "and not 13,000 pairs of strings");
}

#[test]
fn errors_tell_what_and_where() {
    let bytes = [encoded(&Frame::Ping([0; 8])).to_vec(), raw(0x33, 0, b"")].concat();
    assert_eq!(decode_all(&message(&bytes)).unwrap_err().to_string(), "unknown frame type 0x33 at byte 32");
    let bytes = raw(WELCOME, 0, &[&[9; 24][..], &[2]].concat());
    assert_eq!(decode_all(&message(&bytes)).unwrap_err().to_string(), "flag neither 0 nor 1 at byte 48");
    let bytes = raw(WELCOME, 0, &[&[9; 24][..], &[0, 0, 1, 0, 4, 0]].concat());
    assert_eq!(decode_all(&message(&bytes)).unwrap_err().to_string(), "malformed parameter at byte 53");
}

//! Do any frames come back from their bytes, and are any bytes taken without a panic?

use bytes::BytesMut;
use proptest::{collection::vec, option, prelude::*};
use revdial::{
    TargetName,
    frame::{
        Bounds, CloseCode, Frame, Hello, InstanceId, MAX_AGENT_VERSION, MAX_LABEL, MAX_LABELS, MAX_REASON,
        MAX_TRACEPARENT, MessageHead, Metadata, ResetCode, SessionId, StreamId, Welcome, decode,
    },
};

use crate::{encoded, fuzz, message, sent};

/// A text of at most `max` bytes.
fn text(max: usize) -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..=max).prop_map(move |chars| {
        let mut text: String = chars.into_iter().collect();
        text.truncate((0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0));
        text
    })
}

fn target() -> impl Strategy<Value = TargetName> {
    let byte = prop_oneof![b'a'..=b'z', b'0'..=b'9', Just(b'-')];
    vec(byte, 0..=63).prop_map(|name| String::from_utf8(name).unwrap().parse().unwrap())
}

prop_compose! {
    fn bounds()(small in any::<[u32; 5]>(), max_credit: u64) -> Bounds {
        let mut bounds = Bounds::default();
        [bounds.max_streams, bounds.max_opens, bounds.max_opens_per_target, bounds.max_message, bounds.early_credit] = small;
        bounds.max_credit = max_credit;
        bounds
    }
}

prop_compose! {
    fn hello(max: usize, max_labels: usize)(
        session: [u8; 16],
        attempt: u64,
        instance: [u8; 16],
        bounds in bounds(),
        agent_version in text(MAX_AGENT_VERSION + max),
        labels in vec((text(MAX_LABEL + max), text(MAX_LABEL + max)), 0..=max_labels),
    ) -> Hello {
        let mut hello = Hello::new(InstanceId::new(instance), bounds);
        hello.session = SessionId::new(session);
        hello.attempt = attempt;
        hello.agent_version = agent_version;
        hello.labels = labels;
        hello
    }
}

prop_compose! {
    fn welcome()(
        session: [u8; 16], attempt: u64, resumed: bool, bounds in bounds(), max_hold_ms: u32,
    ) -> Welcome {
        let mut welcome = Welcome::new(SessionId::new(session), attempt, bounds, max_hold_ms);
        welcome.resumed = resumed;
        welcome
    }
}

prop_compose! {
    fn metadata(over: usize)(
        traceparent in option::of(text(MAX_TRACEPARENT + over)),
        deadline_ms: Option<u32>,
    ) -> Metadata {
        let mut metadata = Metadata::default();
        metadata.traceparent = traceparent;
        metadata.deadline_ms = deadline_ms;
        metadata
    }
}

/// Any frame; its texts go beyond their limits by up to `over` bytes.
fn frame(over: usize) -> impl Strategy<Value = Frame> {
    let stream = || (1u32..).prop_map(|number| StreamId::new(number).unwrap());
    let close = || any::<u16>().prop_map(CloseCode::new);
    let reset = || any::<u16>().prop_map(ResetCode::new);
    let reason = || text(MAX_REASON + over);
    prop_oneof![
        hello(over, MAX_LABELS + over.min(1)).prop_map(Frame::Hello),
        welcome().prop_map(Frame::Welcome),
        any::<[u8; 8]>().prop_map(Frame::Ping),
        any::<[u8; 8]>().prop_map(Frame::Pong),
        (close(), any::<u32>(), any::<u32>(), reason()).prop_map(|(code, deadline_ms, jitter_ms, reason)| {
            Frame::Drain { code, deadline_ms, jitter_ms, reason }
        }),
        (close(), reason()).prop_map(|(code, reason)| Frame::Close { code, reason }),
        (stream(), any::<u64>(), target(), metadata(over)).prop_map(|(stream, credit, target, metadata)| Frame::Open {
            stream,
            credit,
            target,
            metadata
        }),
        (stream(), any::<u64>()).prop_map(|(stream, credit)| Frame::Accept { stream, credit }),
        (stream(), vec(any::<u8>(), 1..2048))
            .prop_map(|(stream, payload)| Frame::Data { stream, payload: payload.into() }),
        (stream(), any::<u64>()).prop_map(|(stream, offset)| Frame::Credit { stream, offset }),
        (stream(), any::<u64>()).prop_map(|(stream, final_size)| Frame::Fin { stream, final_size }),
        (stream(), reset(), reason()).prop_map(|(stream, code, reason)| Frame::Reset { stream, code, reason }),
        (stream(), reset()).prop_map(|(stream, code)| Frame::Stop { stream, code }),
        (0x80..=0xffu8).prop_map(|kind| Frame::Unknown { kind }),
    ]
}

proptest! {
    #[test]
    fn any_frames_come_back_from_their_bytes(number: u64, received: u64, frames in vec(frame(0), 0..6)) {
        let head = MessageHead { number, received };
        let mut out = BytesMut::new();
        head.encode(&mut out);
        frames.iter().for_each(|frame| frame.encode(&mut out));
        let (same, decoded) = decode(out.freeze()).unwrap();
        prop_assert_eq!(same, head);
        prop_assert_eq!(decoded.collect::<Result<Vec<_>, _>>(), Ok(frames));
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic(bytes in vec(any::<u8>(), 0..2048)) {
        fuzz::frame_decode(&bytes);
        fuzz::frame_round_trip(&bytes);
        fuzz::hello(&bytes);
    }

    #[test]
    fn any_change_of_a_byte_is_taken_without_a_panic(frame in frame(0), at: prop::sample::Index, byte: u8) {
        let mut bytes = message(&encoded(&frame)).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        fuzz::frame_decode(&bytes);
    }

    #[test]
    fn m2_any_frame_over_the_limits_is_cut_and_taken(frame in frame(100)) {
        let once = sent(&frame);
        prop_assert_eq!(once.len(), 1);
        prop_assert_eq!(sent(&once[0]), once);
    }
}

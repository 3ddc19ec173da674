//! What the fuzz targets check: one function for each, called by `fuzz/` with new inputs and by `tests/corpus.rs`
//! with the committed ones.

use bytes::{Bytes, BytesMut};
use revdial::{
    TargetName,
    frame::{
        Bounds, CloseCode, DecodeError, Frame, Hello, InstanceId, MAX_AGENT_VERSION, MAX_LABEL, MAX_LABELS,
        MAX_MESSAGE, MAX_REASON, MAX_TRACEPARENT, MessageHead, Metadata, ResetCode, SessionId, StreamId, Welcome,
        decode,
    },
};

/// A whole message of any bytes: no panic, errors that say where, and frames that survive being sent again.
pub fn frame_decode(bytes: &[u8]) {
    let message = Bytes::copy_from_slice(bytes);
    let (head, frames) = match decode(message.clone()) {
        Ok(decoded) => decoded,
        Err(error) => return check_error(error, &message),
    };
    let mut again = BytesMut::new();
    head.encode(&mut again);
    let mut whole = Vec::new();
    let mut frames = frames;
    while let Some(frame) = frames.next() {
        match frame {
            Ok(frame) => {
                check_held(&frame, &message);
                frame.encode(&mut again);
                whole.push(frame);
            }
            Err(error) => {
                check_error(error, &message);
                assert_eq!(frames.next(), None, "there is no frame behind an error");
            }
        }
    }
    if again.len() <= MAX_MESSAGE {
        let (same_head, same) = decode(again.freeze()).expect("what was encoded has a head");
        assert_eq!(same_head, head);
        assert_eq!(same.collect::<Result<Vec<_>, _>>().as_ref(), Ok(&whole));
    }
}

/// Any frame within the limits comes back from its bytes as it was, and a second time the same bytes.
pub fn frame_round_trip(bytes: &[u8]) {
    let mut source = Source(bytes);
    let head = MessageHead { number: source.u64(), received: source.u64() };
    let mut message = BytesMut::new();
    head.encode(&mut message);
    let mut sent = Vec::new();
    while !source.0.is_empty() {
        let before = message.len();
        let frame = source.frame();
        frame.encode(&mut message);
        if message.len() > MAX_MESSAGE {
            message.truncate(before);
            break;
        }
        sent.push(frame);
    }
    let message = message.freeze();
    let (same_head, frames) = decode(message.clone()).expect("what was encoded has a head");
    assert_eq!(same_head, head);
    assert_eq!(frames.collect::<Result<Vec<_>, _>>().as_ref(), Ok(&sent));

    let mut again = BytesMut::new();
    head.encode(&mut again);
    sent.iter().for_each(|frame| frame.encode(&mut again));
    assert_eq!(again, message);
}

/// The payload of a HELLO, and of a WELCOME: its limits hold whatever stands in it.
pub fn hello(bytes: &[u8]) {
    for kind in [1u8, 2] {
        let mut message = vec![0; 16];
        message.extend_from_slice(&(u64::from(kind) << 56 | (bytes.len() as u64 & 0xff_ffff) << 32).to_be_bytes());
        message.extend_from_slice(bytes);
        frame_decode(&message);
    }
}

/// An error lies in the message and has a code that the protocol gives to bad bytes.
fn check_error(error: DecodeError, message: &Bytes) {
    assert!(error.at() <= message.len(), "{error} of {}", message.len());
    assert!([CloseCode::MALFORMED, CloseCode::FORBIDDEN, CloseCode::TOO_BIG].contains(&error.close_code()), "{error}");
    assert!(!error.to_string().is_empty());
}

/// What a frame holds came with the message, and keeps to the limits.
pub fn check_held(frame: &Frame, message: &Bytes) {
    let texts = match frame {
        Frame::Data { payload, .. } => {
            assert!(!payload.is_empty());
            assert!(message.as_ptr_range().contains(&payload.as_ptr()), "a payload is a slice of its message");
            0
        }
        Frame::Drain { reason, .. } | Frame::Close { reason, .. } | Frame::Reset { reason, .. } => {
            assert!(reason.len() <= MAX_REASON);
            reason.capacity()
        }
        Frame::Open { target, metadata, .. } => {
            let traceparent = metadata.traceparent.as_ref();
            assert!(traceparent.is_none_or(|text| text.len() <= MAX_TRACEPARENT));
            target.as_str().len() + traceparent.map_or(0, String::capacity)
        }
        Frame::Hello(hello) => {
            assert!(hello.agent_version.len() <= MAX_AGENT_VERSION && hello.labels.len() <= MAX_LABELS);
            assert!(hello.labels.iter().all(|(name, value)| name.len() <= MAX_LABEL && value.len() <= MAX_LABEL));
            let labels = hello.labels.iter().map(|(name, value)| name.capacity() + value.capacity());
            hello.agent_version.capacity() + labels.sum::<usize>()
        }
        _ => 0,
    };
    assert!(texts <= message.len(), "texts of {texts} bytes in a message of {}", message.len());
}

/// Values drawn from bytes; zeros when they are used up.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.0.split_off_first().copied().unwrap_or(0))
    }

    fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    fn bytes(&mut self, max: usize) -> Vec<u8> {
        let len = usize::from(self.u16()) % (max + 1);
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes.to_vec()
    }

    fn text(&mut self, max: usize) -> String {
        let bytes = self.bytes(max);
        bytes.utf8_chunks().next().map_or_else(String::new, |chunk| chunk.valid().to_owned())
    }

    fn target(&mut self) -> TargetName {
        let name: String = self.bytes(63).iter().map(|&byte| (b'a' + byte % 26) as char).collect();
        name.parse().expect("letters are a target name")
    }

    fn bounds(&mut self) -> Bounds {
        let mut bounds = Bounds::default();
        bounds.max_streams = self.u32();
        bounds.max_opens = self.u32();
        bounds.max_opens_per_target = self.u32();
        bounds.max_message = self.u32();
        bounds.max_credit = self.u64();
        bounds.early_credit = self.u32();
        bounds
    }

    fn frame(&mut self) -> Frame {
        let kind = self.u8();
        let stream = StreamId::new(self.u32().max(1)).expect("not zero");
        match kind % 14 {
            0 => {
                let mut hello = Hello::new(InstanceId::new(self.array()), self.bounds());
                hello.session = SessionId::new(self.array());
                hello.attempt = self.u64();
                hello.agent_version = self.text(MAX_AGENT_VERSION);
                let labels = usize::from(self.u8()) % (MAX_LABELS + 1);
                hello.labels = (0..labels).map(|_| (self.text(MAX_LABEL), self.text(MAX_LABEL))).collect();
                Frame::Hello(hello)
            }
            1 => {
                let session = SessionId::new(self.array());
                let mut welcome = Welcome::new(session, self.u64(), self.bounds(), self.u32());
                welcome.resumed = self.u8() % 2 == 1;
                Frame::Welcome(welcome)
            }
            2 => Frame::Ping(self.array()),
            3 => Frame::Pong(self.array()),
            4 => Frame::Drain {
                code: CloseCode::new(self.u16()),
                deadline_ms: self.u32(),
                jitter_ms: self.u32(),
                reason: self.text(MAX_REASON),
            },
            5 => Frame::Close { code: CloseCode::new(self.u16()), reason: self.text(MAX_REASON) },
            6 => {
                let mut metadata = Metadata::default();
                metadata.traceparent = (self.u8() % 2 == 1).then(|| self.text(MAX_TRACEPARENT));
                metadata.deadline_ms = (self.u8() % 2 == 1).then(|| self.u32());
                Frame::Open { stream, credit: self.u64(), target: self.target(), metadata }
            }
            7 => Frame::Accept { stream, credit: self.u64() },
            8 => {
                let mut payload = self.bytes(u16::MAX.into());
                payload.push(self.u8());
                Frame::Data { stream, payload: payload.into() }
            }
            9 => Frame::Credit { stream, offset: self.u64() },
            10 => Frame::Fin { stream, final_size: self.u64() },
            11 => Frame::Reset { stream, code: ResetCode::new(self.u16()), reason: self.text(MAX_REASON) },
            12 => Frame::Stop { stream, code: ResetCode::new(self.u16()) },
            _ => Frame::Unknown { kind: self.u8() | 0x80 },
        }
    }
}

//! Do messages and frames keep to the wire of `PROTOCOL.md`? Tests are named after the rules that they show.

use bytes::{Bytes, BytesMut};
use revdial::frame::{DecodeError, Frame, InstanceId, MESSAGE_HEAD, StreamId, decode};

#[path = "frame/examples.rs"]
mod examples;
#[path = "support/fuzz.rs"]
#[expect(unreachable_pub, reason = "the library of the fuzz targets, too")]
mod fuzz;
#[path = "frame/round_trip.rs"]
mod round_trip;
#[path = "frame/rules.rs"]
mod rules;

/// The specification.
const PROTOCOL: &str = include_str!("../src/frame/PROTOCOL.md");

fn stream(number: u32) -> StreamId {
    StreamId::new(number).unwrap()
}

fn instance() -> InstanceId {
    InstanceId::new(std::array::from_fn(|i| i as u8))
}

/// A frame of these bytes, whether they make sense or not.
fn raw(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn message(frames: &[u8]) -> Bytes {
    [&[0; MESSAGE_HEAD][..], frames].concat().into()
}

fn decode_all(message: &Bytes) -> Result<Vec<Frame>, DecodeError> {
    decode(message.clone())?.1.collect()
}

fn encoded(frame: &Frame) -> Bytes {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out.freeze()
}

/// What comes out at the peer.
fn sent(frame: &Frame) -> Vec<Frame> {
    decode_all(&message(&encoded(frame))).unwrap()
}

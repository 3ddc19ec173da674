//! One frame in one message, as small requests make them: written to a buffer that is used again, and read.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use gungraun::prelude::*;
use revdial::{
    TargetName,
    frame::{self, Frame, MAX_MESSAGE, MessageHead, Metadata, StreamId},
};

use crate::TIMES;

const HEAD: MessageHead = MessageHead { number: 1, received: 1 };

#[library_benchmark]
#[bench::data_64(args = (data(64)), setup = writing)]
#[bench::data_16k(args = (data(16 * 1024)), setup = writing)]
#[bench::credit(args = (credit()), setup = writing)]
#[bench::open(args = (open()), setup = writing)]
fn encode((frame, mut out): (Frame, BytesMut)) -> (Frame, BytesMut) {
    for _ in 0..TIMES {
        out.clear();
        HEAD.encode(&mut out);
        black_box(&frame).encode(&mut out);
        black_box(out.len());
    }
    (frame, out)
}

#[library_benchmark]
#[bench::data_64(args = (data(64)), setup = written)]
#[bench::data_16k(args = (data(16 * 1024)), setup = written)]
#[bench::credit(args = (credit()), setup = written)]
#[bench::open(args = (open()), setup = written)]
fn decode(message: Bytes) -> Bytes {
    for _ in 0..TIMES {
        let (head, frames) = frame::decode(black_box(message.clone())).expect("a message of ours");
        black_box(head);
        for frame in frames {
            black_box(frame.expect("a frame of ours"));
        }
    }
    message
}

library_benchmark_group!(name = frames, benchmarks = [encode, decode]);

fn data(len: usize) -> Frame {
    Frame::Data { stream: stream(), payload: Bytes::from(vec![0x5a; len]) }
}

fn credit() -> Frame {
    Frame::Credit { stream: stream(), offset: 1 << 40 }
}

fn open() -> Frame {
    Frame::Open { stream: stream(), credit: 1 << 18, target: TargetName::default(), metadata: Metadata::default() }
}

fn stream() -> StreamId {
    StreamId::new(7).expect("not zero")
}

fn writing(frame: Frame) -> (Frame, BytesMut) {
    (frame, BytesMut::with_capacity(MAX_MESSAGE))
}

#[expect(clippy::needless_pass_by_value, reason = "a setup is given what it is to own")]
fn written(frame: Frame) -> Bytes {
    let mut out = BytesMut::new();
    HEAD.encode(&mut out);
    frame.encode(&mut out);
    out.freeze()
}

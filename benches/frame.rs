//! What it costs to write a frame and to read it, in nanoseconds and bytes per second.
//!
//! One message with one frame, as small requests make them. Encoding appends to a buffer that is used again, decoding
//! slices the payload out of the message, so neither allocates.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput};
use revdial::frame::{Frame, MAX_MESSAGE, MessageHead, StreamId, decode};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    encoding(&mut criterion);
    decoding(&mut criterion);
    criterion.final_summary();
}

fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for (name, frame) in frames() {
        let mut out = BytesMut::with_capacity(MAX_MESSAGE);
        group.throughput(throughput(&frame));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                MessageHead { number: 1, received: 1 }.encode(&mut out);
                black_box(&frame).encode(&mut out);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for (name, frame) in frames() {
        let message = message(&frame);
        group.throughput(throughput(&frame));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let (head, frames) = decode(black_box(message.clone())).expect("a message of ours");
                black_box(head);
                for frame in frames {
                    black_box(frame.expect("a frame of ours"));
                }
            });
        });
    }
    group.finish();
}

fn frames() -> [(&'static str, Frame); 4] {
    let stream = StreamId::new(7).expect("not zero");
    let data = |len| Frame::Data { stream, payload: Bytes::from(vec![0x5a; len]) };
    [
        ("data 64 B", data(64)),
        ("data 16 KiB", data(16 * 1024)),
        ("data 64 KiB", data(64 * 1024)),
        ("credit", Frame::Credit { stream, offset: 1 << 40 }),
    ]
}

fn message(frame: &Frame) -> Bytes {
    let mut out = BytesMut::new();
    MessageHead { number: 1, received: 1 }.encode(&mut out);
    frame.encode(&mut out);
    out.freeze()
}

fn throughput(frame: &Frame) -> Throughput {
    match frame {
        Frame::Data { payload, .. } => Throughput::Bytes(payload.len() as u64),
        _ => Throughput::Elements(1),
    }
}

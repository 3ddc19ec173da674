//! Two sessions that exchange messages without I/O, locks or tasks; their clock stands still.

use std::hint::black_box;

use bytes::Bytes;
use gungraun::prelude::*;
use revdial::{frame::Message, proto::SessionConfig};

use crate::{
    TIMES,
    pair::{Life, Pair, read},
};

/// What a small request has.
const SMALL: [u8; 64] = [0x5a; 64];

/// What is moved where it is about bytes, over all streams.
const BULK: usize = 16 * 1024 * 1024;

// One write, and the message that it makes.
#[library_benchmark]
#[bench::small(args = (Life::Resumable, 1), setup = pair)]
fn write(mut pair: Pair) -> Pair {
    for _ in 0..TIMES {
        black_box(write_one(&mut pair));
    }
    pair
}

// One message that comes in, and the read that takes it.
#[library_benchmark]
#[bench::small(setup = written)]
fn receive((mut pair, messages): (Pair, Vec<Bytes>)) -> Pair {
    let id = pair.streams[0];
    for message in messages {
        pair.agent.handle_activity(pair.now);
        pair.agent.handle_message(pair.now, black_box(message)).expect("correct peers break no rule");
        while let Some(event) = pair.agent.poll_event() {
            black_box(event);
        }
        assert_eq!(read(&mut pair.agent, id), SMALL.len());
    }
    pair
}

// One byte there and back; with what survives drops, and without.
#[library_benchmark]
#[bench::resumable(args = (Life::Resumable, 1), setup = pair)]
#[bench::one_link(args = (Life::OneLink, 1), setup = pair)]
fn round_trip(mut pair: Pair) -> Pair {
    for _ in 0..TIMES {
        pair.round_trip();
    }
    pair
}

// A stream opened, accepted, and given up by both.
#[library_benchmark]
#[bench::resumable(args = (Life::Resumable, 0), setup = pair)]
fn open_and_close(mut pair: Pair) -> Pair {
    for _ in 0..TIMES {
        let id = pair.open();
        pair.server.detach(id);
        pair.agent.detach(id);
        pair.pump();
    }
    assert_eq!((pair.server.stats().streams, pair.agent.stats().streams), (0, 0));
    pair
}

// Bytes written by the one and read by the other.
#[library_benchmark]
#[bench::one_stream(args = (Life::Resumable, 1), setup = pair)]
#[bench::eight_streams(args = (Life::Resumable, 8), setup = pair)]
fn bulk(mut pair: Pair) -> Pair {
    pair.send_all(BULK / pair.streams.len());
    pair
}

library_benchmark_group!(name = sessions, benchmarks = [write, receive, round_trip, open_and_close, bulk]);

fn pair(life: Life, streams: usize) -> Pair {
    Pair::new(&SessionConfig::default(), [life; 2], streams)
}

fn written() -> (Pair, Vec<Bytes>) {
    let mut pair = pair(Life::Resumable, 1);
    let messages = (0..TIMES).map(|_| write_one(&mut pair).into_bytes()).collect();
    (pair, messages)
}

fn write_one(pair: &mut Pair) -> Message {
    let id = pair.streams[0];
    let taken = pair.server.send(id).expect("an open stream").write(black_box(&SMALL)).expect("an open stream");
    assert_eq!(taken, Some(SMALL.len()), "all of them fit into one window");
    pair.server.poll_transmit(pair.now).expect("what was written")
}

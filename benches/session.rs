//! What the machine costs by itself: two sessions that exchange messages without I/O, locks or tasks.
//!
//! Each side is polled as a driver polls it: messages in, events, then a batch of messages out. The clock stands
//! still, so that acks leave by bytes or with other messages, as they do under load.

use std::{hint::black_box, time::Instant};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use revdial::{
    TargetName,
    frame::{Metadata, StreamId},
    proto::{Event, Read, Role, Session, SessionConfig},
};

/// How many messages a driver gives out before it looks for new input.
const BATCH: usize = 16;

/// What a writer has at hand.
const CHUNK: usize = 64 * 1024;

const BULK: usize = 64 * 1024 * 1024;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    bulk(&mut criterion);
    ping_pong(&mut criterion);
    open_and_close(&mut criterion);
    criterion.final_summary();
}

fn bulk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session bulk 64 MiB");
    group.throughput(Throughput::Bytes(BULK as u64)).sample_size(10);
    for streams in [1, 8] {
        group.bench_function(format!("{streams} streams"), |bencher| {
            bencher.iter_batched_ref(
                || Pair::with_streams(streams),
                |pair| pair.send_all(BULK / streams),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn ping_pong(criterion: &mut Criterion) {
    let mut pair = Pair::with_streams(1);
    let id = pair.streams[0];
    criterion.bench_function("session round trip of 1 byte", |bencher| {
        bencher.iter(|| {
            write(&mut pair.server, id, b"a");
            pair.pump();
            assert_eq!(read(&mut pair.agent, id), 1);
            write(&mut pair.agent, id, b"b");
            pair.pump();
            assert_eq!(read(&mut pair.server, id), 1);
        });
    });
}

fn open_and_close(criterion: &mut Criterion) {
    let mut pair = Pair::with_streams(0);
    criterion.bench_function("session open, accept, close", |bencher| {
        bencher.iter(|| {
            let id = pair.open();
            pair.server.detach(id);
            pair.agent.detach(id);
            pair.pump();
            assert_eq!((pair.server.stats().streams, pair.agent.stats().streams), (0, 0));
        });
    });
}

/// Two sessions, and nothing but memory between them.
struct Pair {
    now: Instant,
    server: Session,
    agent: Session,
    streams: Vec<StreamId>,
}

impl Pair {
    fn with_streams(streams: usize) -> Self {
        let config = SessionConfig::default();
        let now = Instant::now();
        let [mut server, mut agent] = [(Role::Server, 1), (Role::Agent, 2)]
            .map(|(role, seed)| Session::new(role, config.clone(), config.bounds(), seed));
        server.link_up(now, 0).expect("a fresh link");
        agent.link_up(now, 0).expect("a fresh link");
        let mut pair = Self { now, server, agent, streams: Vec::new() };
        pair.streams = (0..streams).map(|_| pair.open()).collect();
        pair
    }

    /// Opens a stream, which the agent takes.
    fn open(&mut self) -> StreamId {
        let id = self.server.open(&TargetName::default(), Metadata::default()).expect("room for a stream");
        self.pump();
        let incoming = self.agent.incoming().expect("the stream that was opened");
        self.agent.accept(incoming.stream).expect("nobody gave it up");
        self.pump();
        id
    }

    /// Moves messages until both sides are silent, for work that does not wait for events.
    fn pump(&mut self) {
        let mut events = Vec::new();
        while turn(&mut self.server, &mut self.agent, self.now, &mut events)
            | turn(&mut self.agent, &mut self.server, self.now, &mut events)
        {
            events.clear();
        }
    }

    /// The server writes `each` bytes on every stream, the agent reads them.
    fn send_all(&mut self, each: usize) {
        let chunk = vec![0x5a; CHUNK];
        let mut left: Vec<(StreamId, usize)> = self.streams.iter().map(|id| (*id, each)).collect();
        let mut writable = self.streams.clone();
        let mut readable = self.streams.clone();
        let mut events = Vec::new();
        let mut unread = each * self.streams.len();
        while unread > 0 {
            for id in writable.drain(..) {
                if let Some((_, left)) = left.iter_mut().find(|(writer, _)| *writer == id) {
                    fill(&mut self.server, id, left, &chunk);
                }
            }
            turn(&mut self.server, &mut self.agent, self.now, &mut events);
            readable.extend(take_readable(&mut events));
            for id in readable.drain(..) {
                unread -= read(&mut self.agent, id);
            }
            turn(&mut self.agent, &mut self.server, self.now, &mut events);
            writable.extend(events.drain(..).filter_map(|event| match event {
                Event::Writable(id) => Some(id),
                _ => None,
            }));
        }
    }
}

/// One poll of the driver of `from`, and what `to` does with each message. Tells whether any was sent; `events` gets
/// those of both sides.
fn turn(from: &mut Session, to: &mut Session, now: Instant, events: &mut Vec<Event>) -> bool {
    let mut sent = false;
    for _ in 0..BATCH {
        let Some(message) = from.poll_transmit(now) else { break };
        deliver(to, now, black_box(message), events);
        sent = true;
    }
    take_events(from, events);
    sent
}

fn deliver(to: &mut Session, now: Instant, message: Bytes, events: &mut Vec<Event>) {
    to.handle_activity(now);
    to.handle_message(now, message).expect("correct peers break no rule");
    take_events(to, events);
}

fn take_events(session: &mut Session, events: &mut Vec<Event>) {
    while let Some(event) = session.poll_event() {
        events.push(event);
    }
}

fn take_readable(events: &mut Vec<Event>) -> impl Iterator<Item = StreamId> {
    events.extract_if(.., |event| matches!(event, Event::Readable(_))).filter_map(|event| match event {
        Event::Readable(id) => Some(id),
        _ => None,
    })
}

/// Writes until the stream takes no more, or all is written.
fn fill(session: &mut Session, id: StreamId, left: &mut usize, chunk: &[u8]) {
    while *left > 0 {
        let piece = &chunk[..chunk.len().min(*left)];
        let taken = session.send(id).expect("an open stream").write(piece).expect("an open stream");
        let Some(taken) = taken else { return };
        *left -= taken;
    }
}

fn write(session: &mut Session, id: StreamId, bytes: &[u8]) {
    let taken = session.send(id).expect("an open stream").write(bytes).expect("an open stream");
    assert_eq!(taken, Some(bytes.len()));
}

/// Reads all that there is, so that the next arrival is an event; tells how much it was.
fn read(session: &mut Session, id: StreamId) -> usize {
    let mut taken = 0;
    loop {
        match session.recv(id).expect("an open stream").read(usize::MAX).expect("an open stream") {
            Read::Bytes(bytes) => taken += black_box(bytes).len(),
            Read::Blocked | Read::End => return taken,
        }
    }
}

//! Two sessions that exchange messages through memory: no I/O, locks or tasks, and a clock that stands still.
//!
//! Each side is polled as a driver polls it: messages in, events, then a batch of messages out.

use std::{hint::black_box, time::Instant};

use bytes::Bytes;
use revdial::{
    TargetName,
    frame::{MESSAGE_HEAD, Metadata, StreamId},
    proto::{Event, Read, Role, Session, SessionConfig},
};

/// How many messages a driver gives out before it looks for new input.
const BATCH: usize = 16;

/// What a writer has at hand.
const CHUNK: usize = 64 * 1024;

/// How long a session lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// What it sends is kept until it is acked, and what it receives is acked.
    Resumable,
    /// No longer than its first link.
    OneLink,
}

/// A server's session and an agent's.
pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) server: Session,
    pub(crate) agent: Session,
    pub(crate) streams: Vec<StreamId>,
}

impl Pair {
    /// Both with a link, the server's of the first life and the agent's of the second, and so many open streams.
    pub(crate) fn new(config: &SessionConfig, lives: [Life; 2], streams: usize) -> Self {
        let now = Instant::now();
        let session = |role, seed, life| {
            let session = Session::new(role, config.clone(), config.bounds(), seed);
            let mut session = if life == Life::OneLink { session.without_resume() } else { session };
            session.link_up(now, 0).expect("a fresh link");
            session
        };
        let (server, agent) = (session(Role::Server, 1, lives[0]), session(Role::Agent, 2, lives[1]));
        let mut pair = Self { now, server, agent, streams: Vec::new() };
        pair.streams = (0..streams).map(|_| pair.open()).collect();
        pair
    }

    /// Opens a stream, which the agent takes.
    pub(crate) fn open(&mut self) -> StreamId {
        let id = self.server.open(&TargetName::default(), Metadata::default()).expect("room for a stream");
        self.pump();
        let incoming = self.agent.incoming().expect("the stream that was opened");
        self.agent.accept(incoming.stream).expect("nobody gave it up");
        self.pump();
        id
    }

    /// One byte there and back on the first stream.
    pub(crate) fn round_trip(&mut self) {
        let id = self.streams[0];
        write(&mut self.server, id, b"a");
        self.pump();
        assert_eq!(read(&mut self.agent, id), 1);
        write(&mut self.agent, id, b"b");
        self.pump();
        assert_eq!(read(&mut self.server, id), 1);
    }

    /// Moves messages until both sides are silent, for work that does not wait for events. How many there were, and
    /// how many of those did nothing but ack.
    pub(crate) fn pump(&mut self) -> (u64, u64) {
        let (mut events, mut total) = (Vec::new(), (0, 0));
        loop {
            let there = turn(&mut self.server, &mut self.agent, self.now, &mut events);
            let back = turn(&mut self.agent, &mut self.server, self.now, &mut events);
            events.clear();
            let sent = (there.0 + back.0, there.1 + back.1);
            if sent.0 == 0 {
                return total;
            }
            total = (total.0 + sent.0, total.1 + sent.1);
        }
    }

    /// The server writes `each` bytes on every stream, the agent reads them. How many messages that took, both ways,
    /// and how many of those did nothing but ack.
    pub(crate) fn send_all(&mut self, each: usize) -> (u64, u64) {
        let chunk = vec![0x5a; CHUNK];
        let mut left: Vec<(StreamId, usize)> = self.streams.iter().map(|id| (*id, each)).collect();
        let mut writable = self.streams.clone();
        let mut readable = self.streams.clone();
        let (mut events, mut total) = (Vec::new(), (0, 0));
        let mut unread = each * self.streams.len();
        while unread > 0 {
            for id in writable.drain(..) {
                if let Some((_, left)) = left.iter_mut().find(|(writer, _)| *writer == id) {
                    fill(&mut self.server, id, left, &chunk);
                }
            }
            let there = turn(&mut self.server, &mut self.agent, self.now, &mut events);
            readable.extend(take_readable(&mut events));
            for id in readable.drain(..) {
                unread -= read(&mut self.agent, id);
            }
            let back = turn(&mut self.agent, &mut self.server, self.now, &mut events);
            total = (total.0 + there.0 + back.0, total.1 + there.1 + back.1);
            writable.extend(events.drain(..).filter_map(|event| match event {
                Event::Writable(id) => Some(id),
                _ => None,
            }));
        }
        total
    }
}

/// One poll of the driver of `from`, and what `to` does with each message. How many there were, and how many of those
/// did nothing but ack; `events` gets those of both sides.
fn turn(from: &mut Session, to: &mut Session, now: Instant, events: &mut Vec<Event>) -> (u64, u64) {
    let mut sent = (0, 0);
    for _ in 0..BATCH {
        let Some(message) = from.poll_transmit(now).map(Bytes::from) else { break };
        sent.0 += 1;
        sent.1 += u64::from(message.len() == MESSAGE_HEAD);
        deliver(to, now, black_box(message), events);
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
pub(crate) fn fill(session: &mut Session, id: StreamId, left: &mut usize, chunk: &[u8]) {
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
pub(crate) fn read(session: &mut Session, id: StreamId) -> usize {
    let mut taken = 0;
    loop {
        match session.recv(id).expect("an open stream").read(usize::MAX).expect("an open stream") {
            Read::Bytes(bytes) => taken += black_box(bytes).len(),
            Read::Blocked | Read::End => return taken,
        }
    }
}

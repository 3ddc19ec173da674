//! What being resumable costs two sessions without I/O: messages with and without acks and keeping, and resumes by
//! the number of streams and by what is kept.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use revdial::{
    frame::{MessageHead, decode},
    proto::{Session, SessionConfig},
};

use crate::{
    pair::{Life, Pair, fill, read},
    table::Table,
};

const MIB: usize = 1024 * 1024;

/// Server and agent, for bulk data from the server: the one keeps, the other acks.
const LIVES: [(&str, [Life; 2]); 3] = [
    ("neither", [Life::OneLink, Life::OneLink]),
    ("acks only", [Life::OneLink, Life::Resumable]),
    ("acks and keeping", [Life::Resumable, Life::Resumable]),
];

/// Measures, and prints the tables.
pub(crate) fn print(smoke: bool) {
    messages(smoke);
    resumes(smoke);
}

fn messages(smoke: bool) {
    let (rounds, bulk, trips) = if smoke { (1, MIB, 10) } else { (21, 64 * MIB, 20_000) };
    let mut table = Table::default();
    let mut pairs = LIVES.map(|(name, lives)| (name, Pair::new(&SessionConfig::default(), lives, 1)));
    for _ in 0..rounds {
        let (mut bulks, mut singles) = (Vec::new(), Vec::new());
        for (name, pair) in &mut pairs {
            let start = Instant::now();
            let (messages, acks) = pair.send_all(bulk);
            let mib = (bulk / MIB) as f64;
            bulks.push(nanos(start) / (16.0 * mib));
            table.add(format!("bulk, {name}: ns a message of 64 KiB"), bulks[bulks.len() - 1]);
            table.add(format!("bulk, {name}: messages a MiB, both ways"), messages as f64 / mib);
            table.add(format!("bulk, {name}: pure acks a MiB"), acks as f64 / mib);
        }
        for (name, pair) in &mut pairs {
            let start = Instant::now();
            (0..trips).for_each(|_| pair.round_trip());
            singles.push(nanos(start) / (2 * trips) as f64);
            table.add(format!("round trip of 1 byte, {name}: ns a message"), singles[singles.len() - 1]);
        }
        for (work, taken) in [("bulk", bulks), ("round trip of 1 byte", singles)] {
            table.add(format!("{work}, what acks add: ns a message"), taken[1] - taken[0]);
            table.add(format!("{work}, what keeping adds: ns a message"), taken[2] - taken[1]);
        }
        table.add("a head written and read: ns", heads(trips));
    }
    table.print(&format!("Two sessions, {rounds} interleaved rounds"));
}

/// The two numbers in front of each message, there and back.
fn heads(n: usize) -> f64 {
    let start = Instant::now();
    let mut buffer = BytesMut::new();
    for number in 0..n as u64 {
        MessageHead { number, received: number }.encode(&mut buffer);
        let (head, _) = decode(black_box(buffer.split().freeze())).expect("a head");
        black_box(head);
    }
    nanos(start) / n as f64
}

fn resumes(smoke: bool) {
    let rounds = if smoke { 1 } else { 11 };
    // Credit for all that the bound lets be kept, also on one stream.
    let config = SessionConfig { recv_budget: 512 * MIB, lent_credit: 16 * MIB as u32, ..SessionConfig::default() };
    let mut table = Table::default();
    for streams in [1, 100, 1000] {
        let mut pair = Pair::new(&config, [Life::Resumable; 2], streams);
        for kept in [0, MIB, config.send_bound] {
            for _ in 0..rounds {
                let lost = lose(&mut pair, kept);
                let taken = resume(&mut pair);
                let mib = lost as f64 / MIB as f64;
                table.add(format!("streams: {streams}; kept: {mib:.0} MiB"), taken.as_secs_f64() * 1e6);
                settle(&mut pair);
            }
        }
    }
    table.print(&format!("Resume of two sessions, µs of CPU, {rounds} rounds"));
}

/// The server sends so much, in equal parts on all streams, or as much as it may; none of it arrives.
fn lose(pair: &mut Pair, bytes: usize) -> usize {
    let each = bytes / pair.streams.len();
    let chunk = vec![0x5a; each.min(64 * 1024)];
    for id in &pair.streams {
        let mut left = each;
        while left > 0 {
            let before = left;
            fill(&mut pair.server, *id, &mut left, &chunk);
            while pair.server.poll_transmit(pair.now).is_some() {}
            if left == before {
                break;
            }
        }
    }
    while pair.server.poll_event().is_some() {}
    pair.server.stats().buffered_bytes
}

/// A new link on both sides, and all messages that follow from it.
fn resume(pair: &mut Pair) -> Duration {
    let start = Instant::now();
    pair.server.link_down(pair.now);
    pair.agent.link_down(pair.now);
    let (server_has, agent_has) = (pair.server.received(), pair.agent.received());
    pair.server.link_up(pair.now, agent_has).expect("a count that can be");
    pair.agent.link_up(pair.now, server_has).expect("a count that can be");
    pair.pump();
    start.elapsed()
}

/// The agent reads all, and all is acked.
fn settle(pair: &mut Pair) {
    for id in &pair.streams {
        read(&mut pair.agent, *id);
    }
    pair.pump();
    let later = pair.now + SessionConfig::default().ack_delay;
    let expire = |session: &mut Session| session.handle_timeout(later);
    expire(&mut pair.server);
    expire(&mut pair.agent);
    pair.pump();
    assert_eq!(pair.server.stats().buffered_bytes, 0);
}

fn nanos(since: Instant) -> f64 {
    since.elapsed().as_nanos() as f64
}

//! Thousands of lines that are nearly right: nothing panics, nothing hangs, nobody else notices.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::sleep;

use crate::{
    classic::{
        KEEP_ALIVE, Peer, conn_ready, pickup_failed, soon,
        wire::{CLOSE, PING, PONG},
    },
    random::Random,
    world::{MALLORY, Ours, Pipe, Server, hear, opened},
};

const LINES: usize = 10_000;
const SEED: u64 = 0x0dd;
const ASKED: &[u8] = b"still there?";

/// What lines are made of that break parsers.
const SCRAPS: [&[u8]; 16] = [
    b"\0",
    b"\n",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"\\u0000",
    b"\"",
    b"\\",
    b"{}",
    b"null",
    b"-1e999999",
    b",\"command\":\"conn-ready\"",
    b",\"command\":\"pickup-failed\"",
    b"/revdial?revdial.dialer=&revdial.req=",
    b"//@\\",
];

/// A line with some faults.
fn malformed(random: &mut Random, path: &str) -> Vec<u8> {
    let mut line = match random.below(5) {
        0 => KEEP_ALIVE.to_owned(),
        1 => conn_ready(path),
        2 => pickup_failed(path, "connection refused"),
        3 => format!("{}{}\n", "[".repeat(random.below(2000)), "]".repeat(random.below(2000))),
        _ => format!("{}1{}\n", "{\"command\":".repeat(random.below(300)), "}".repeat(random.below(300))),
    }
    .into_bytes();
    for _ in 0..1 + random.below(4) {
        let at = random.below(line.len());
        match random.below(8) {
            0 if !line.is_empty() => line[at] ^= 1 << random.below(8),
            1 if !line.is_empty() => drop(line.remove(at)),
            2 => line.insert(at, random.next() as u8),
            3 => line.truncate(at),
            4 => line.extend_from_within(at..),
            5 => line.rotate_left(at),
            _ => drop(line.splice(at..at, random.pick(&SCRAPS).unwrap().iter().copied())),
        }
    }
    line
}

/// Says a line and asks whether the peer is there: it is, or has closed with a code. What else it says is heard.
async fn survives(control: &mut Pipe, line: Vec<u8>) -> Option<u16> {
    let text = String::from_utf8_lossy(&line).into_owned();
    control.say(line).await;
    control.send(PING, ASKED).await;
    loop {
        let frame = control.frame().await.unwrap_or_else(|| panic!("the end without a close after {text:?}"));
        match frame.opcode {
            PONG if frame.payload == ASKED => return None,
            PING => control.send(PONG, frame.payload).await,
            CLOSE => return frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code)),
            _ => {}
        }
    }
}

/// How often which code closed a connection, which are those of bad JSON and of long lines.
fn check(closes: &BTreeMap<u16, usize>) {
    println!("{closes:?}");
    assert!(closes.keys().all(|code| [1007, 1009].contains(code)), "{closes:?}");
    let closed: usize = closes.values().sum();
    assert!((LINES / 10..LINES).contains(&closed), "most are bad, some are not: {closed}");
}

#[tokio::test(start_paused = true)]
async fn a_server_survives_ten_thousand_malformed_lines_and_others_with_it() {
    let server = Server::new();
    let mut other = server.control_of(MALLORY).await;
    let mut control = server.control().await;
    let mut random = Random::new(SEED);
    let path = "/revdial?revdial.dialer=00000000000000000000000000000000&revdial.req=11111111111111111111111111111111";
    let mut closes = BTreeMap::new();
    for nth in 0..LINES {
        if let Some(code) = soon(survives(&mut control, malformed(&mut random, path))).await {
            *closes.entry(code).or_default() += 1;
            drop(control);
            control = server.control().await;
        }
        if nth % 500 == 0 {
            let dialled = server.dial_to(MALLORY.1);
            let path = other.conn_ready().await;
            let mut there = server.pick_up_as(&path, MALLORY.0).await.unwrap();
            there.say("x").await;
            hear(&mut opened(dialled).await, b"x").await;
        }
        // No flood: what is bounded by the minute is not what is looked at here.
        sleep(Duration::from_millis(100)).await;
        soon(answer_pings(&mut other)).await;
    }
    check(&closes);
    // What is left of the last line belongs to the next.
    let mut control = server.control().await;
    server.works(&mut control).await;
}

/// Answers what came, and waits for nothing.
async fn answer_pings(control: &mut Pipe) {
    control.send(PING, ASKED).await;
    loop {
        let frame = control.frame().await.expect("the other one lives");
        match frame.opcode {
            PONG => return,
            PING => control.send(PONG, frame.payload).await,
            _ => assert_eq!(frame.payload, KEEP_ALIVE.as_bytes()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_survives_ten_thousand_malformed_lines() {
    let mut ours = Ours::echoing();
    let mut control = ours.control().await;
    let mut random = Random::new(SEED + 1);
    let mut closes = BTreeMap::new();
    let mut brought = 0;
    for _ in 0..LINES {
        let path = ours.path();
        if let Some(code) = soon(survives(&mut control, malformed(&mut random, &path))).await {
            *closes.entry(code).or_default() += 1;
            drop(control);
            control = ours.control().await;
        }
        sleep(Duration::from_millis(100)).await;
        // What it took for a request for a connection, it may: that is granted to nobody.
        while ours.waiting() > 0 {
            let (_, request) = Peer::asked(ours.connects().await).await;
            let target = request.target();
            assert!(target.starts_with("/api/v1/revdial") && !target.contains("runnerid"), "{request:?}");
            assert!(!["//", "@", "\\", " "].iter().any(|scrap| target.contains(scrap)), "{request:?}");
            brought += 1;
        }
    }
    check(&closes);
    assert!(brought > 0, "some lines are right all the same");
    assert!(!ours.run.is_finished());
    drop(control);
    let mut control = ours.control().await;
    ours.works(&mut control).await;
}

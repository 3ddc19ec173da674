//! What one of the two writes, read by the other: is it what was said, in order?

use bytes::Bytes;

use super::{
    engine::Framing,
    party::{End, Heard, Party, Written},
    source::Source,
};
use crate::{
    frame::{CloseCode, Layout, Message},
    link::{
        header::{Header, MAX_CONTROL, Opcode, mask},
        messages::{Side, WRITE_BUFFER},
        pipe::{Pace, Pipe},
    },
};

/// What one side says, and how its pipe takes it.
#[derive(Debug)]
pub(super) struct Outgoing {
    side: Side,
    reads: Pace,
    writes: Pace,
    steps: Vec<Step>,
    close: Option<(CloseCode, String)>,
}

#[derive(Debug)]
enum Step {
    /// A message of these pieces.
    Say(Vec<Bytes>),
    Ping,
    /// So many pings of this length come, and what comes is heard.
    Hear {
        pings: u8,
        len: usize,
    },
    /// Flushed as far as the pipe takes it.
    Flush,
}

const MAX_STEPS: usize = 32;

/// The longest list of pieces.
const MAX_PIECES: usize = 6;

/// The longest message: of as many of the longest pieces.
const MAX_MESSAGE: usize = MAX_PIECES * 65_536;

/// Lengths around each border of headers, masks and shared pieces.
const LENGTHS: [usize; 16] = [0, 1, 2, 3, 5, 7, 125, 126, 127, 1000, 4095, 4096, 4097, 8191, 40_000, 65_536];

const CLOSES: [CloseCode; 4] = [CloseCode::NORMAL, CloseCode::TOO_BIG, CloseCode::REPLACED, CloseCode::FLOOD];

impl Outgoing {
    pub(super) fn draw(source: &mut Source<'_>, side: Side) -> Self {
        let close = source.u8();
        let reason = "é".repeat(usize::from(close / 4).min(61));
        let close = (close & 1 == 1).then(|| (CLOSES[usize::from(close / 2) % CLOSES.len()], reason));
        let (reads, writes) = (Pace::new(source.list()), Pace::new(source.list()));
        let mut steps = Vec::new();
        while !source.is_empty() && steps.len() < MAX_STEPS {
            steps.push(Step::draw(source));
        }
        Self { side, reads, writes, steps, close }
    }

    /// Both say what they are told, and the other one hears it.
    pub(super) fn check(&self) {
        for (from, to) in [(Framing::Ours, Framing::Library), (Framing::Library, Framing::Ours)] {
            self.check_between(from, to);
        }
    }

    fn check_between(&self, from: Framing, to: Framing) {
        let pipe = Pipe::new(self.reads.clone(), self.writes.clone(), false);
        let mut party = Party::new(from, self.side, MAX_MESSAGE, pipe.clone());
        let mut expected = Expected::default();
        for step in &self.steps {
            expected.step(step, self.side, &mut party, &pipe);
        }
        party.flush();
        if let Some((code, reason)) = &self.close {
            party.close(*code, reason);
        }
        let raw = pipe.written();
        let written = party.written();
        expected.check(&written, &self.close);

        let pipe = Pipe::new(self.reads.clone(), Pace::default(), true);
        pipe.fill(&raw);
        let other = if self.side == Side::Client { Side::Server } else { Side::Client };
        let mut party = Party::new(to, other, MAX_MESSAGE, pipe);
        let (heard, end) = party.hear();
        let data = written.iter().filter(|frame| frame.opcode != Opcode::Close);
        assert!(heard.iter().eq(data.map(heard_as).collect::<Vec<_>>().iter()), "{to:?} hears what {from:?} wrote");
        let closed = self.close.as_ref().map(|(code, reason)| End::Closed(Some(code.number()), reason.clone()));
        assert_eq!(end, closed.unwrap_or(End::Eof));
        party.flush();
        let pings = written.iter().filter(|frame| frame.opcode == Opcode::Ping).map(|ping| &ping.payload);
        let answers = party.written();
        let pongs = answers.iter().filter(|frame| frame.opcode == Opcode::Pong).map(|pong| &pong.payload);
        assert!(pings.eq(pongs), "each ping is answered where all is taken");
    }
}

impl Step {
    fn draw(source: &mut Source<'_>) -> Self {
        match source.u8() % 8 {
            0..4 => {
                let pieces = 1 + usize::from(source.u8()) % MAX_PIECES;
                let mut piece = || {
                    let len = source.pick(&LENGTHS);
                    source.pattern(len).into()
                };
                Self::Say((0..pieces).map(|_| piece()).collect())
            }
            4 => Self::Ping,
            5 | 6 => Self::Hear { pings: source.u8(), len: usize::from(source.u8()) % (MAX_CONTROL + 1) },
            _ => Self::Flush,
        }
    }
}

/// What has to come out.
#[derive(Default)]
struct Expected {
    /// Messages and pings in order; a ping may be left out if so much was queued that it could be refused.
    said: Vec<(Written, bool)>,
    /// Pings that were heard.
    pings: Vec<Vec<u8>>,
    /// The most that can be queued.
    queued: usize,
}

/// More than a header takes.
const HEADER: usize = 16;

impl Expected {
    fn step(&mut self, step: &Step, side: Side, party: &mut Party, pipe: &Pipe) {
        match step {
            Step::Say(pieces) => {
                let payload = pieces.concat();
                party.say(message(pieces));
                self.queue(payload.len());
                self.said.push((Written { opcode: Opcode::Binary, payload }, false));
            }
            Step::Ping => {
                let payload = self.said.len().to_be_bytes();
                party.ping(payload);
                let optional = self.queued >= WRITE_BUFFER;
                self.queue(payload.len());
                self.said.push((Written { opcode: Opcode::Ping, payload: payload.to_vec() }, optional));
            }
            Step::Hear { pings, len } => {
                let first = self.pings.len();
                self.pings.extend((0..usize::from(*pings)).map(|at| vec![(first + at) as u8; *len]));
                let pings = &self.pings[first..];
                let frames: Vec<_> = pings.iter().map(|ping| frame(Opcode::Ping, ping, side)).collect();
                pipe.fill(&frames.concat());
                let (heard, end) = party.hear();
                assert_eq!((heard, end), (vec![Heard::Ping; pings.len()], End::Silence));
                self.queue(pings.len() * (HEADER + len));
            }
            Step::Flush => {
                if party.try_flush() {
                    self.queued = 0;
                }
            }
        }
    }

    fn queue(&mut self, payload: usize) {
        self.queued += HEADER + payload;
    }

    /// All that was said comes in order, but for pings that were left out.
    fn check_order(&self, written: &[Written]) {
        let mut said = self.said.iter();
        for frame in written.iter().filter(|frame| matches!(frame.opcode, Opcode::Binary | Opcode::Ping)) {
            let skipped = said.by_ref().take_while(|(said, _)| said != frame);
            assert!(skipped.fold(true, |all, (_, optional)| all & optional), "out of order");
        }
        assert!(said.all(|(_, optional)| *optional), "lost at the end");
    }

    fn check(&self, written: &[Written], close: &Option<(CloseCode, String)>) {
        self.check_order(written);
        let mut pings = self.pings.iter();
        let mut pongs = written.iter().filter(|frame| frame.opcode == Opcode::Pong).map(|frame| &frame.payload);
        assert!(pongs.clone().all(|pong| pings.any(|ping| ping == pong)), "answers come in the order of the pings");
        assert_eq!(pongs.next_back(), self.pings.last(), "the last ping is answered, whatever the room");

        let last = written.last().filter(|frame| frame.opcode == Opcode::Close).map(|frame| frame.payload.clone());
        let close = close.as_ref().map(|(code, reason)| [&code.number().to_be_bytes(), reason.as_bytes()].concat());
        assert_eq!(last, close);
        assert!(written.iter().rev().skip(1).all(|frame| frame.opcode != Opcode::Close));
    }
}

fn message(pieces: &[Bytes]) -> Message {
    let mut layout = Layout::with_capacity(0);
    for (at, piece) in pieces.iter().enumerate() {
        // By turns what is laid out and what is shared.
        if at % 2 == 0 { layout.tail().extend_from_slice(piece) } else { layout.share(piece.clone()) }
    }
    layout.finish()
}

/// A frame for this side, whose mask is as good as any.
fn frame(opcode: Opcode, payload: &[u8], to: Side) -> Vec<u8> {
    let key = (to == Side::Server).then_some([payload.len() as u8, 2, 0xff, 9]);
    let header = Header { is_last: true, opcode, len: payload.len() as u64, mask: key };
    let (bytes, n) = header.encode();
    let mut payload = payload.to_vec();
    mask(&mut payload, key.unwrap_or_default());
    [&bytes[..n], &payload].concat()
}

fn heard_as(frame: &Written) -> Heard {
    match frame.opcode {
        Opcode::Ping => Heard::Ping,
        Opcode::Pong => Heard::Pong(Bytes::copy_from_slice(&frame.payload)),
        _ => Heard::Message(Bytes::copy_from_slice(&frame.payload)),
    }
}

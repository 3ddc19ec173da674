//! Ten thousand messages that no correct peer sends, against a live session of each role: it lives on, or it has ended
//! with a violation; it does not panic, and what it keeps stays bounded.

use bytes::{Bytes, BytesMut};
use revdial::{
    frame::{
        Bounds, CloseCode, Frame, Hello, InstanceId, MAX_MESSAGE, MessageHead, Metadata, ResetCode, SessionId, Welcome,
    },
    proto::{Role, SessionConfig, SessionEnd},
};

use crate::hand::{Hand, ROLES, data, id};

/// SplitMix64, by a seed that a failure names.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A value of a field whose limit is `max`: 0, 1, the limit, one more, the largest, or any.
    fn field(&mut self, max: u64) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => 1,
            2 => max,
            3 => max + 1,
            4 => u64::MAX,
            _ => self.next(),
        }
    }

    fn frame(&mut self) -> Frame {
        let stream = id((self.field(4) as u32).max(1));
        let code = ResetCode::new(self.field(9) as u16);
        let close = CloseCode::new(self.field(4429) as u16);
        let reason = "r".repeat((self.field(256) % 300) as usize);
        let target = ["", "a", "vnc"][self.below(3) as usize].parse().unwrap();
        match self.below(15) {
            0 => Frame::Open { stream, credit: self.field(8 << 20), target, metadata: Metadata::default() },
            1 => Frame::Accept { stream, credit: self.field(16 * 1024) },
            2 | 3 => data(stream, vec![7; (self.field(65_536) % 65_538) as usize]),
            4 => Frame::Credit { stream, offset: self.field(8 << 20) },
            5 => Frame::Fin { stream, final_size: self.field(3) },
            6 => Frame::Reset { stream, code, reason },
            7 => Frame::Stop { stream, code },
            8 => Frame::Ping(self.next().to_be_bytes()),
            9 => Frame::Pong(self.next().to_be_bytes()),
            10 => Frame::Drain { code: close, deadline_ms: self.next() as u32, jitter_ms: self.next() as u32, reason },
            11 => Frame::Close { code: close, reason },
            12 => Frame::Hello(Hello::new(InstanceId::new([1; 16]), Bounds::default())),
            13 => Frame::Welcome(Welcome::new(SessionId::new([1; 16]), self.next(), Bounds::default(), 0)),
            _ => Frame::Unknown { kind: self.field(0x80) as u8 },
        }
    }

    /// A message whose head is mostly right and whose frames mostly belong together; then cut, flipped or neither.
    fn message(&mut self, hand: &Hand) -> Bytes {
        let frames: Vec<_> = (0..=self.below(3)).map(|_| self.frame()).collect();
        let counted = frames[0].is_counted() == Some(true);
        let number = match self.below(8) {
            0 => self.field(hand.said + 1),
            _ if counted => hand.said + 1,
            _ => 0,
        };
        let received = if self.below(8) == 0 { self.field(hand.heard) } else { hand.heard };
        let mut message = BytesMut::new();
        MessageHead { number, received }.encode(&mut message);
        let sort = |frame: &Frame| frame.is_counted().unwrap_or(counted) == counted;
        let mixed = self.below(8) == 0;
        frames.iter().filter(|frame| mixed || sort(frame)).for_each(|frame| frame.encode(&mut message));
        message.truncate(MAX_MESSAGE + 1);
        match self.below(6) {
            0 => message.truncate(self.below(message.len() as u64 + 1) as usize),
            1 | 2 => {
                for _ in 0..=self.below(4) {
                    let at = self.below(message.len().min(64) as u64) as usize;
                    message[at] ^= 1 << self.below(8);
                }
            }
            _ => {}
        }
        message.freeze()
    }
}

#[test]
fn ten_thousand_malformed_messages_leave_a_session_alive_or_ended_with_a_violation() {
    for role in ROLES {
        let (mut fed, mut ended, mut lived) = (0, 0, 0);
        for seed in 0.. {
            if fed >= 10_000 {
                break;
            }
            fed += live(role, seed, &mut ended, &mut lived);
        }
        assert!(ended > 1000 && lived > 1000, "{ended} ended by a violation, {lived} messages were taken");
    }
}

/// Feeds one session until it ends, or with enough; tells how many messages it took.
fn live(role: Role, seed: u64, ended: &mut u32, lived: &mut u32) -> u32 {
    let mut random = Random(seed);
    let mut hand = Hand::new(role);
    let (one, two) = (hand.open(), hand.open());
    hand.open_only();
    hand.write(one, b"abc").unwrap();
    hand.finish(two);
    let mut held: Vec<Bytes> = Vec::new();
    for fed in 1..=50 {
        let mut message = random.message(&hand);
        match random.below(8) {
            0 => held.push(message.clone()), // again, later
            1 if !held.is_empty() => message = held.swap_remove(random.below(held.len() as u64) as usize),
            _ => {}
        }
        let result = hand.session.handle_message(hand.now, message);
        match (result, hand.session.ended().cloned()) {
            (Err(violation), end) => {
                *ended += 1;
                assert_eq!(end, Some(SessionEnd::Violation(violation)), "seed {seed}");
                hand.closes_with(violation.code(), violation.rule());
                return fed;
            }
            (Ok(()), Some(SessionEnd::ClosedByPeer { .. } | SessionEnd::Replaced)) => return fed,
            (Ok(()), end) => assert_eq!(end, None, "seed {seed}"),
        }
        *lived += 1;
        hand.said = hand.session.received();
        hand.hear();
        while let Some(incoming) = hand.session.incoming() {
            hand.session.accept(incoming.stream).unwrap();
        }
        let stats = hand.session.stats();
        let config = SessionConfig::default();
        assert!(stats.unread_bytes <= config.recv_budget && stats.buffered_bytes <= config.send_bound, "seed {seed}");
        assert!(hand.events().len() < 32, "seed {seed}");
    }
    50
}

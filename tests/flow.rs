//! Credit, budgets and turns: does each stream get what is its own, and no more?

use std::time::Duration;

use revdial::{
    frame::{Bounds, CloseCode, Frame, MAX_PAYLOAD, Metadata, StreamId},
    proto::{Event, Read, Role, Session, SessionConfig},
};

#[path = "support/hand.rs"]
mod hand;
#[path = "support/pair.rs"]
mod pair;
#[path = "flow/turns.rs"]
mod turns;

use hand::{Hand, ROLES, data};

const KIB: usize = 1024;

/// The most that one stream queues.
const QUEUE: usize = 64 * KIB;

/// Writes so many bytes, more than are queued at once: what is queued leaves before more is written.
fn write_all(hand: &mut Hand, id: StreamId, n: usize) {
    let mut left = n;
    while left > 0 {
        hand.hear();
        left -= hand.write(id, &vec![7; left]).unwrap().expect("credit for it");
    }
}

/// What a stream is given at first: its base credit, and an eighth of what is free to be lent, up to a limit.
fn first_credit(hand: &mut Hand) -> (StreamId, u64) {
    let frames = match hand.session.open(&"".parse().unwrap(), Metadata::default()) {
        Ok(_) => hand.hear(),
        Err(_) => {
            let id = hand.open_only();
            hand.session.accept(id).unwrap();
            hand.hear()
        }
    };
    let credit = frames.iter().find_map(|frame| match frame {
        Frame::Open { stream, credit, .. } | Frame::Accept { stream, credit } => Some((*stream, *credit)),
        _ => None,
    });
    credit.unwrap()
}

#[test]
fn m67_b38_data_beyond_the_credit_is_a_violation_also_when_nobody_reads() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let (id, credit) = first_credit(&mut hand);
        if role == Role::Server {
            hand.say(&[Frame::Accept { stream: id, credit: 1 << 18 }]).unwrap();
        }
        for _ in 0..credit / 65_536 {
            hand.say(&[data(id, [7; MAX_PAYLOAD])]).unwrap();
        }
        let result = hand.say(&[data(id, *b"x")]);
        hand.ended_by(result, CloseCode::CREDIT);

        let mut hand = Hand::new(role);
        let id = hand.open();
        hand.session.detach(id);
        for _ in 0..credit / 65_536 {
            hand.say(&[data(id, [7; MAX_PAYLOAD])]).unwrap();
        }
        let result = hand.say(&[data(id, *b"x")]);
        hand.ended_by(result, CloseCode::CREDIT);
    }
}

#[test]
fn m69_b41_credit_beyond_max_is_a_violation_naming_the_field() {
    let max = 8 << 20;
    for role in ROLES {
        let mut hand = Hand::new(role);
        let id = hand.open();
        hand.write(id, &[7; 1000]).unwrap();
        hand.say(&[Frame::Credit { stream: id, offset: max + 1000 }]).unwrap();
        let result = hand.say(&[Frame::Credit { stream: id, offset: max + 1001 }]);
        assert!(result.unwrap_err().rule().contains("credit"));
        hand.ended_by(result, CloseCode::FORBIDDEN);
    }
    let mut hand = Hand::new(Role::Server);
    let stream = hand.open_only();
    let result = hand.say(&[Frame::Accept { stream, credit: u64::MAX }]);
    hand.ended_by(result, CloseCode::FORBIDDEN);
    let mut hand = Hand::new(Role::Agent);
    let target = "".parse().unwrap();
    let open = Frame::Open { stream: hand::id(1), credit: max + 1, target, metadata: Metadata::default() };
    let result = hand.say(&[open]);
    hand.ended_by(result, CloseCode::FORBIDDEN);
}

#[test]
fn m68_b40_a_lower_credit_is_ignored() {
    let mut hand = Hand::new(Role::Server);
    let id = hand.open();
    hand.say(&[Frame::Credit { stream: id, offset: 0 }, Frame::Credit { stream: id, offset: 1000 }]).unwrap();
    write_all(&mut hand, id, 256 * KIB);
}

#[test]
fn credit_arriving_while_parking_wakes_writer() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let id = hand.open();
        write_all(&mut hand, id, 256 * KIB);
        hand.hear();
        hand.events();
        assert_eq!(hand.write(id, b"x"), Ok(None));
        hand.say(&[Frame::Credit { stream: id, offset: 256 * KIB as u64 }]).unwrap();
        assert_eq!(hand.events(), [], "it is no more than before");
        hand.say(&[Frame::Credit { stream: id, offset: 256 * KIB as u64 + 1 }]).unwrap();
        assert_eq!(hand.events(), [Event::Writable(id)]);
        assert_eq!(hand.write(id, b"xy"), Ok(Some(1)));
        hand.say(&[Frame::Credit { stream: id, offset: 256 * KIB as u64 + 2 }]).unwrap();
        assert_eq!(hand.events(), [], "nobody waits");
    }
}

#[test]
fn m63_accept_wakes_the_writer_of_early_data() {
    let mut hand = Hand::new(Role::Server);
    let stream = hand.open_only();
    hand.write(stream, &[7; 16 * KIB]).unwrap();
    assert_eq!(hand.write(stream, b"x"), Ok(None));
    hand.say(&[Frame::Accept { stream, credit: 16 * KIB as u64 }]).unwrap();
    assert_eq!(hand.events(), [Event::Answered(stream)], "no more than it had");
    hand.say(&[Frame::Credit { stream, offset: 16 * KIB as u64 + 1 }]).unwrap();
    assert_eq!(hand.events(), [Event::Writable(stream)]);

    let stream = hand.open_only();
    hand.write(stream, &[7; 16 * KIB]).unwrap();
    assert_eq!(hand.write(stream, b"x"), Ok(None));
    hand.say(&[Frame::Accept { stream, credit: 16 * KIB as u64 + 1 }]).unwrap();
    assert_eq!(hand.events(), [Event::Answered(stream), Event::Writable(stream)]);
}

#[test]
fn m71_credit_is_granted_anew_when_half_of_it_was_read() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let id = hand.open();
        let half = 256 * KIB;
        for _ in 0..8 {
            hand.say(&[data(id, [7; MAX_PAYLOAD])]).unwrap();
        }
        hand.hear();
        let mut left = half - 1;
        while left > 0 {
            let Ok(Read::Bytes(bytes)) = hand.session.recv(id).unwrap().read(left) else { panic!("bytes") };
            left -= bytes.len();
        }
        assert_eq!(hand.hear(), []);
        assert_eq!(hand.session.recv(id).unwrap().read(1), Ok(Read::Bytes("\x07".into())));
        assert_eq!(hand.hear(), [Frame::Credit { stream: id, offset: (512 * KIB + half) as u64 }]);
    }
}

/// A stream whose peer sends all that it may.
struct Busy {
    id: StreamId,
    granted: usize,
    sent: usize,
    read: usize,
}

impl Busy {
    fn new(hand: &mut Hand) -> Self {
        Self { id: hand.open(), granted: 512 * KIB, sent: 0, read: 0 }
    }

    /// Reads an eighth of a first window. Gives how far ahead of that the peer is granted, if it is granted anew.
    fn turn(&mut self, hand: &mut Hand) -> Option<usize> {
        while self.sent < self.granted {
            let n = MAX_PAYLOAD.min(self.granted - self.sent);
            hand.say(&[data(self.id, vec![7; n])]).unwrap();
            self.sent += n;
        }
        let end = self.read + 64 * KIB;
        while self.read < end {
            let read = hand.session.recv(self.id).unwrap().read(end - self.read);
            let Ok(Read::Bytes(bytes)) = read else { panic!("{read:?}") };
            self.read += bytes.len();
        }
        match hand.hear()[..] {
            [] => None,
            [Frame::Credit { stream, offset }] if stream == self.id => {
                self.granted = offset as usize;
                Some(self.granted - self.read)
            }
            ref other => panic!("{other:?}"),
        }
    }
}

#[test]
fn of_four_busy_streams_each_is_granted_a_quarter_of_a_first_window_over_a_short_way_and_a_whole_one_over_a_longer_one()
{
    let short = Duration::from_micros(500);
    let ways = [
        (Some(short), 128 * KIB, 20),
        (Some(short + Duration::from_nanos(1)), 512 * KIB, 10),
        (None, 512 * KIB, 5), // a PING that was not answered yet shows no short way
    ];
    for (role, (rtt, window, renewals)) in ROLES.into_iter().flat_map(|role| ways.map(|way| (role, way))) {
        let mut hand = Hand::new(role);
        let [Frame::Ping(ping)] = hand.hear()[..] else { panic!("a PING leaves on a new link") };
        if let Some(rtt) = rtt {
            hand.now += rtt;
            hand.say_apart(&[Frame::Pong(ping)]).unwrap();
        }
        let mut streams = [(); 4].map(|()| Busy::new(&mut hand));
        let mut round = || {
            hand.now += short; // no more than a window holds is read in a round trip
            streams.each_mut().map(|stream| stream.turn(&mut hand))
        };
        for _ in 0..20 {
            round(); // the windows are whole at first
        }
        let mut granted = [(); 4].map(|()| Vec::new());
        for _ in 0..20 {
            for (granted, anew) in granted.iter_mut().zip(round()) {
                granted.extend(anew);
            }
        }
        assert_eq!(granted, [(); 4].map(|()| vec![window; renewals]), "{role:?} over {rtt:?}");
    }
}

#[test]
fn m71_nothing_is_granted_to_a_peer_that_has_finished() {
    let mut hand = Hand::new(Role::Server);
    let id = hand.open();
    for _ in 0..8 {
        hand.say(&[data(id, [7; MAX_PAYLOAD])]).unwrap();
    }
    hand.say(&[Frame::Fin { stream: id, final_size: 512 * KIB as u64 }]).unwrap();
    hand.hear();
    while hand.read(id) != Ok(Read::End) {}
    assert_eq!(hand.hear(), []);
}

#[test]
fn m71_each_stream_is_given_its_base_and_an_eighth_of_what_is_free() {
    for role in ROLES {
        let config = SessionConfig {
            max_streams: 8,
            recv_budget: 1024 * KIB,
            base_credit: 16 * KIB as u32,
            lent_credit: 100 * KIB as u32,
            ..SessionConfig::default()
        };
        let mut hand = Hand::with(role, config, Bounds::default());
        let mut free = (1024 - 8 * 16) * KIB;
        let mut sum = 0;
        for n in 0..8 {
            let (id, credit) = first_credit(&mut hand);
            let loan = (free / 8).min(100 * KIB);
            free -= loan;
            assert_eq!(credit, (16 * KIB + loan) as u64, "stream {n}");
            sum += credit;
            if role == Role::Server {
                hand.say(&[Frame::Accept { stream: id, credit: 1 << 18 }]).unwrap();
            }
        }
        assert!(sum <= 1024 * KIB as u64);
    }
}

#[test]
fn what_is_announced_by_default_is_what_is_meant_when_nothing_is() {
    assert_eq!(SessionConfig::default().bounds(), Bounds::default());
}

#[test]
fn m69_what_a_stream_is_given_is_never_above_what_was_announced() {
    let config = SessionConfig {
        max_streams: 1,
        recv_budget: 64 * KIB,
        base_credit: 64 * KIB as u32,
        ..SessionConfig::default()
    };
    config.validate().unwrap();
    let bounds = config.bounds();
    assert_eq!(revdial::proto::check_bounds(&bounds), Ok(()));
    let mut server = Hand::with(Role::Server, config.clone(), bounds);
    let mut agent = Session::new(Role::Agent, config, bounds, 1);
    agent.link_up(server.now, 0).unwrap();
    server.session.open(&"".parse().unwrap(), Metadata::default()).unwrap();
    for message in server.hear_messages() {
        assert_eq!(agent.handle_message(server.now, message), Ok(()));
    }
}

/// I9: after any list of operations, whatever was lent has come back. `Pair::close_all` looks.
#[test]
fn tunnel_budget_is_conserved_whatever_streams_do() {
    for seed in 0..200u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let ops: Vec<u8> = (0..600)
            .map(|at| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                // Often: open, take, end in each way; the rest as it comes.
                let often = [0, 2, 3, 8, 9, 10, 11, 12];
                if at % 3 == 0 { often[state as usize % 8] } else { state as u8 }
            })
            .collect();
        pair::run(&ops);
    }
}

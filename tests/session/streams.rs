//! Streams: who may say what, when.

use bytes::Bytes;
use revdial::{
    frame::{Bounds, CloseCode, Frame, Metadata, ResetCode, StreamId},
    proto::{Event, OpenError, Opened, Read, Role, SessionConfig, SessionEnd, StreamError},
};

use crate::hand::{Hand, ROLES, data, frames, id, open_frame};

pub(crate) fn reset(stream: StreamId, code: ResetCode) -> Frame {
    Frame::Reset { stream, code, reason: "why".to_owned() }
}

pub(crate) fn reset_error(code: ResetCode) -> StreamError {
    StreamError::Reset { code, reason: "why".into() }
}

pub(crate) fn stop(stream: StreamId) -> Frame {
    Frame::Stop { stream, code: ResetCode::CANCELLED }
}

pub(crate) fn fin(stream: StreamId, final_size: u64) -> Frame {
    Frame::Fin { stream, final_size }
}

fn try_open(hand: &mut Hand, target: &str) -> Result<StreamId, OpenError> {
    hand.session.open(&target.parse().unwrap(), Metadata::default())
}

#[test]
fn m59_b29_only_the_server_opens_and_only_the_agent_accepts() {
    let mut hand = Hand::new(Role::Server);
    let result = hand.say(&[open_frame(1)]);
    hand.ended_by(result, CloseCode::FORBIDDEN);
    let mut hand = Hand::new(Role::Agent);
    let stream = hand.open();
    let result = hand.say(&[Frame::Accept { stream, credit: 1 << 18 }]);
    hand.ended_by(result, CloseCode::FORBIDDEN);
    assert_eq!(try_open(&mut Hand::new(Role::Agent), ""), Err(OpenError::WrongSide));
}

#[test]
fn m60_b30_an_id_that_does_not_rise_is_a_violation_and_gaps_are_not() {
    for number in [7, 6, 1] {
        let mut hand = Hand::new(Role::Agent);
        hand.say(&[open_frame(3), open_frame(7)]).unwrap();
        let result = hand.say(&[open_frame(number)]);
        hand.ended_by(result, CloseCode::FORBIDDEN);
    }
    let mut hand = Hand::new(Role::Agent);
    hand.say(&[open_frame(u32::MAX)]).unwrap();
    let result = hand.say(&[open_frame(u32::MAX)]);
    hand.ended_by(result, CloseCode::FORBIDDEN);
}

#[test]
fn m61_b31_an_open_beyond_the_bounds_is_refused_and_retried_when_there_is_room() {
    let config = SessionConfig { max_opens: 3, max_opens_per_target: 2, max_streams: 4, ..SessionConfig::default() };
    let mut hand = Hand::with(Role::Agent, config, Bounds::default());
    let named = |number, target: &str| {
        let target = target.parse().unwrap();
        Frame::Open { stream: id(number), credit: 0, target, metadata: Metadata::default() }
    };
    hand.say(&[named(1, "a"), named(2, "a"), named(3, "a"), named(4, "b"), named(5, "c")]).unwrap();
    let refused =
        |number| Frame::Reset { stream: id(number), code: ResetCode::TOO_MANY_STREAMS, reason: String::new() };
    assert_eq!(hand.hear()[1..], [refused(3), refused(5)]);
    while let Some(incoming) = hand.session.incoming() {
        hand.session.accept(incoming.stream).unwrap();
    }
    hand.hear();
    hand.say(&[named(6, "a"), named(7, "a"), data(id(7), *b"early")]).unwrap();
    assert_eq!(hand.hear(), [refused(7)], "four are open, and what follows a refused one is late");
}

#[test]
fn m61_a_flood_of_opens_beyond_the_bounds_ends_the_session() {
    let config = SessionConfig { max_opens: 1, ..SessionConfig::default() };
    let mut hand = Hand::with(Role::Agent, config, Bounds::default());
    let opens: Vec<_> = (1..=257).map(open_frame).collect();
    assert_eq!(hand.say(&opens), Ok(()));
    let result = hand.say(&[open_frame(258)]);
    hand.ended_by(result, CloseCode::FLOOD);
}

#[test]
fn m61_the_server_keeps_within_the_smaller_of_both_bounds() {
    let mut bounds = Bounds::default();
    (bounds.max_streams, bounds.max_opens, bounds.max_opens_per_target) = (5, 3, 2);
    for (config, bounds) in [
        (SessionConfig::default(), bounds),
        (
            SessionConfig { max_streams: 5, max_opens: 3, max_opens_per_target: 2, ..SessionConfig::default() },
            Bounds::default(),
        ),
    ] {
        let mut hand = Hand::with(Role::Server, config, bounds);
        let ids: Vec<_> = ["a", "a", "b"].iter().map(|target| try_open(&mut hand, target).unwrap()).collect();
        assert_eq!(try_open(&mut hand, "b"), Err(OpenError::TooManyOpens));
        hand.hear();
        hand.say(&[Frame::Accept { stream: ids[2], credit: 1 << 18 }]).unwrap();
        assert_eq!(hand.events(), [Event::Answered(ids[2]), Event::OpensAvailable]);
        assert_eq!(try_open(&mut hand, "a"), Err(OpenError::TooManyOpens), "of this target");
        try_open(&mut hand, "b").unwrap();
        hand.session.reset(ids[0], ResetCode::CANCELLED, "");
        assert_eq!(hand.events(), [Event::OpensAvailable]);
        hand.hear();
        hand.say(&[reset(ids[1], ResetCode::TARGET_REFUSED)]).unwrap();
        try_open(&mut hand, "a").unwrap();
        hand.session.detach(ids[1]);
        try_open(&mut hand, "a").unwrap();
        assert_eq!(hand.session.stats().streams, 4);
        hand.hear();
        hand.say(&[Frame::Accept { stream: id(4), credit: 1 << 18 }, Frame::Accept { stream: id(5), credit: 1 << 18 }])
            .unwrap();
        try_open(&mut hand, "c").unwrap();
        assert_eq!(try_open(&mut hand, "d"), Err(OpenError::TooManyStreams));
    }
}

#[test]
fn m62_the_agent_says_accept_or_reset_first() {
    for frame in [
        |stream| data(stream, *b"x"),
        |stream| Frame::Credit { stream, offset: 1 << 17 },
        |stream| fin(stream, 0),
        stop as fn(StreamId) -> Frame,
    ] {
        let mut hand = Hand::new(Role::Server);
        let stream = hand.open_only();
        let result = hand.say(&[frame(stream)]);
        hand.ended_by(result, CloseCode::FORBIDDEN);
        let mut hand = Hand::new(Role::Server);
        let stream = hand.open_only();
        hand.say(&[Frame::Accept { stream, credit: 1 << 16 }, frame(stream)]).unwrap();
    }
    let mut hand = Hand::new(Role::Server);
    let stream = hand.open_only();
    hand.say(&[reset(stream, ResetCode::TARGET_DENIED)]).unwrap();
    assert_eq!(hand.events(), [Event::Answered(stream), Event::Stopped(stream)]);
    assert_eq!(hand.session.opened(stream), Opened::Failed(reset_error(ResetCode::TARGET_DENIED)));
}

#[test]
fn m62_an_agent_that_is_stopped_before_its_accept_ends_its_direction_behind_it() {
    let mut hand = Hand::new(Role::Agent);
    let stream = hand.open_only();
    hand.hear();
    hand.say(&[data(stream, *b"early"), fin(stream, 5), stop(stream)]).unwrap();
    assert_eq!(hand.hear(), []);
    assert!(hand.session.send(stream).is_none() && hand.session.recv(stream).is_none(), "it is not taken yet");
    hand.session.accept(stream).unwrap();
    assert!(matches!(hand.hear()[..], [Frame::Accept { .. }, Frame::Fin { final_size: 0, .. }]));
    assert_eq!(hand.read(stream), Ok(Read::Bytes("early".into())));
    assert_eq!(hand.read(stream), Ok(Read::End));
}

#[test]
fn m62_giving_an_incoming_stream_up_refuses_it() {
    let mut hand = Hand::new(Role::Agent);
    let (one, two) = (hand.open_only(), hand.open_only());
    hand.hear();
    hand.session.detach(one);
    hand.session.reset(two, ResetCode::TARGET_UNKNOWN, "why");
    let cancelled = Frame::Reset { stream: one, code: ResetCode::CANCELLED, reason: String::new() };
    assert_eq!(hand.hear(), [cancelled, reset(two, ResetCode::TARGET_UNKNOWN)]);
    assert_eq!(hand.session.stats().streams, 0);
}

#[test]
fn b85_a_side_that_goes_down_resets_what_still_runs_and_keeps_nothing_of_it() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let held = hand.open();
        let mut resets = vec![Frame::Reset { stream: held, code: ResetCode::SHUTDOWN, reason: "down".into() }];
        if role == Role::Agent {
            hand.say(&[open_frame(9)]).unwrap(); // nobody takes it
            resets.push(Frame::Reset { stream: id(9), code: ResetCode::SHUTDOWN, reason: "down".into() });
        }
        hand.hear();
        hand.session.reset_all(ResetCode::SHUTDOWN, "down");
        assert_eq!(hand.hear(), resets);
        assert_eq!(hand.read(held), Err(StreamError::Session(SessionEnd::Shutdown)));
        assert!(hand.session.incoming().is_none());
        hand.session.detach(held);
        assert_eq!(hand.session.stats().streams, 0);
        hand.session.reset_all(ResetCode::SHUTDOWN, "down");
        assert_eq!(hand.hear(), [], "again it is nothing");
    }
}

#[test]
fn m66_bytes_keep_their_order_and_the_borders_of_frames_mean_nothing() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let id = hand.open();
        hand.say(&[data(id, *b"on"), data(id, *b"e t")]).unwrap();
        hand.say(&[data(id, *b"wo")]).unwrap();
        let mut heard = Vec::new();
        while let Ok(Read::Bytes(bytes)) = hand.read(id) {
            heard.extend(bytes);
        }
        assert_eq!(heard, b"one two");
    }
}

#[test]
fn m62_b46_a_second_accept_is_a_violation_and_one_for_an_open_given_up_is_ignored() {
    let accept = |stream| Frame::Accept { stream, credit: 1 << 18 };
    let mut hand = Hand::new(Role::Server);
    let given_up = hand.open_only();
    hand.session.reset(given_up, ResetCode::CANCELLED, "");
    hand.say(&[accept(given_up)]).unwrap();
    hand.hear();
    hand.say(&[accept(given_up), data(given_up, *b"x"), fin(given_up, 1)]).unwrap();
    assert_eq!(hand.session.stats().late_frames, 4);
    let stream = hand.open();
    let result = hand.say(&[accept(stream)]);
    hand.ended_by(result, CloseCode::FORBIDDEN);
}

#[test]
fn m33_m63_before_accept_the_server_sends_the_early_credit() {
    for (config, bounds, early) in [(16 * 1024, 4 * 1024, 4 * 1024), (8 * 1024, 16 * 1024, 8 * 1024)] {
        let config = SessionConfig { base_credit: config, ..SessionConfig::default() };
        let mut peer = Bounds::default();
        peer.early_credit = bounds;
        let mut hand = Hand::with(Role::Server, config, peer);
        let stream = hand.session.open(&"".parse().unwrap(), Metadata::default()).unwrap();
        assert_eq!(hand.write(stream, &[7; 100 * 1024]), Ok(Some(early)));
        assert_eq!(hand.write(stream, &[7; 1]), Ok(None));
        hand.finish(stream);
        let heard = hand.hear();
        assert!(matches!(heard[1], Frame::Open { .. }));
        assert_eq!(heard[2..], [data(stream, vec![7; early]), fin(stream, early as u64)]);
    }
}

#[test]
fn m63_the_agent_takes_the_early_credit_before_its_accept() {
    let mut hand = Hand::new(Role::Agent);
    let stream = hand.open_only();
    hand.say(&[data(stream, [7; 16 * 1024])]).unwrap();
    let result = hand.say(&[data(stream, [7; 1])]);
    hand.ended_by(result, CloseCode::CREDIT);
}

#[test]
fn m64_the_credit_of_accept_is_at_least_the_early_credit() {
    let mut hand = Hand::new(Role::Server);
    let (one, two) = (hand.open_only(), hand.open_only());
    hand.say(&[Frame::Accept { stream: one, credit: 16 * 1024 }]).unwrap();
    let result = hand.say(&[Frame::Accept { stream: two, credit: 16 * 1024 - 1 }]);
    hand.ended_by(result, CloseCode::FORBIDDEN);
}

#[test]
fn m65_b32_oversized_data_on_unknown_stream_is_refused() {
    for role in ROLES {
        let of = |stream| -> Vec<Frame> {
            vec![
                data(stream, vec![7; 65_536]),
                Frame::Credit { stream, offset: 0 },
                fin(stream, 0),
                reset(stream, ResetCode::CANCELLED),
                stop(stream),
            ]
        };
        for frame in of(id(2)) {
            let mut hand = Hand::new(role);
            assert_eq!(hand.open(), id(1));
            let result = hand.say(&[frame]);
            hand.ended_by(result, CloseCode::FORBIDDEN);
        }
    }
    let mut hand = Hand::new(Role::Server);
    let result = hand.say(&[Frame::Accept { stream: id(1), credit: 1 << 18 }]);
    hand.ended_by(result, CloseCode::FORBIDDEN);
}

#[test]
fn m65_an_open_that_has_not_left_is_not_there_for_the_peer() {
    let mut hand = Hand::new(Role::Server);
    let stream = try_open(&mut hand, "").unwrap();
    let result = hand.say(&[reset(stream, ResetCode::CANCELLED)]);
    hand.ended_by(result, CloseCode::FORBIDDEN);
}

#[test]
fn m65_b33_late_frame_for_closed_stream_is_ignored() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let stream = hand.open();
        hand.session.reset(stream, ResetCode::CANCELLED, "");
        hand.hear();
        assert_eq!(hand.session.stats().streams, 0);
        hand.say(&[
            data(stream, *b"x"),
            Frame::Credit { stream, offset: u64::MAX },
            stop(stream),
            fin(stream, 99),
            reset(stream, ResetCode::CANCELLED),
        ])
        .unwrap();
        assert_eq!(hand.session.stats().late_frames, 5);
        assert_eq!(hand.hear(), []);
    }
}

#[test]
fn m61_an_open_that_is_given_up_before_it_left_makes_room_for_another() {
    let mut hand =
        Hand::with(Role::Server, SessionConfig { max_opens: 1, ..SessionConfig::default() }, Bounds::default());
    let stream = try_open(&mut hand, "").unwrap();
    assert_eq!(try_open(&mut hand, ""), Err(OpenError::TooManyOpens));
    hand.session.detach(stream);
    assert_eq!(hand.events(), [Event::OpensAvailable]);
    try_open(&mut hand, "").unwrap();
}

#[test]
fn m62_the_order_of_what_is_due_makes_sense_to_the_peer() {
    let mut hand = Hand::new(Role::Agent);
    let stream = hand.open_only();
    hand.hear();
    hand.session.accept(stream).unwrap();
    hand.write(stream, b"abc").unwrap();
    hand.session.detach(stream);
    let message = hand.session.poll_transmit(hand.now).map(Bytes::from).unwrap();
    let [Frame::Accept { .. }, Frame::Stop { .. }, Frame::Data { .. }, Frame::Fin { .. }] = frames(message)[..] else {
        panic!("another order")
    };
}

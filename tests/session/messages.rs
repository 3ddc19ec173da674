//! Messages, frames of the session, floods.

use std::time::Duration;

use bytes::Bytes;
use revdial::{
    frame::{
        Bounds, CloseCode, Frame, Hello, InstanceId, MAX_MESSAGE, MAX_PAYLOAD, ResetCode, SessionId, Welcome, decode,
    },
    proto::{Read, Role, SessionConfig},
};

use crate::hand::{Hand, ROLES, data, id, message, open_frame};

fn ping(n: u8) -> Frame {
    Frame::Ping([n; 8])
}

#[test]
fn m9_b24_a_message_over_the_limit_ends_the_session_with_1009() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let result = hand.session.handle_message(hand.now, Bytes::from(vec![0; MAX_MESSAGE + 1]));
        hand.ended_by(result, CloseCode::TOO_BIG);
    }
}

#[test]
fn m11_b25_a_message_that_is_cut_short_or_has_bytes_left_over_ends_the_session_with_1002() {
    let whole = message(0, 0, &[ping(1)]);
    for len in (0..whole.len()).filter(|len| *len != 16) {
        let mut hand = Hand::new(Role::Agent);
        let result = hand.session.handle_message(hand.now, whole.slice(..len));
        hand.ended_by(result, CloseCode::MALFORMED);
    }
    let mut hand = Hand::new(Role::Agent);
    let longer = [&whole[..], &[0]].concat();
    let result = hand.session.handle_message(hand.now, longer);
    hand.ended_by(result, CloseCode::MALFORMED);
}

#[test]
fn m12_counted_messages_are_numbered_from_1_and_the_others_0() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let id = hand.open();
        let before = hand.heard;
        for n in 1..4 {
            hand.write(id, b"x").unwrap();
            let numbers: Vec<u64> =
                hand.hear_messages().into_iter().map(|message| decode(message).unwrap().0.number).collect();
            assert_eq!(numbers.into_iter().filter(|number| *number > 0).collect::<Vec<_>>(), [before + n]);
        }
        assert_eq!(before, 1, "the OPEN or its ACCEPT was the first");
    }
}

#[test]
fn m13_b39_more_received_than_was_sent_is_a_violation() {
    for received in [1, u64::MAX] {
        let mut hand = Hand::new(Role::Agent);
        hand.hear();
        let result = hand.session.handle_message(hand.now, message(0, received, &[]));
        hand.ended_by(result, CloseCode::FORBIDDEN);
    }
}

#[test]
fn m13_b40_a_count_that_is_older_is_ignored() {
    let mut hand = Hand::new(Role::Server);
    hand.open();
    hand.open();
    assert_eq!(hand.session.stats().buffered_bytes, 0);
    for received in [1, 0] {
        assert_eq!(hand.session.handle_message(hand.now, message(0, received, &[])), Ok(()));
    }
}

#[test]
fn m15_b37_frames_in_messages_of_the_wrong_sort_are_violations() {
    let reason = String::new();
    let drain = Frame::Drain { code: CloseCode::RESTART, deadline_ms: 0, jitter_ms: 0, reason: reason.clone() };
    let close = Frame::Close { code: CloseCode::NORMAL, reason: reason.clone() };
    for frame in [drain, close, ping(0), Frame::Pong([0; 8]), hello(), welcome()] {
        let mut hand = Hand::new(Role::Agent);
        let result = hand.say(&[frame]);
        hand.ended_by(result, CloseCode::FORBIDDEN);
    }
    let stream = id(1);
    let code = ResetCode::CANCELLED;
    for frame in [
        open_frame(2),
        data(stream, *b"x"),
        Frame::Credit { stream, offset: 1 },
        Frame::Fin { stream, final_size: 0 },
        Frame::Reset { stream, code, reason },
        Frame::Stop { stream, code },
    ] {
        let mut hand = Hand::new(Role::Agent);
        assert_eq!(hand.open(), stream);
        let result = hand.say_apart(&[frame]);
        hand.ended_by(result, CloseCode::FORBIDDEN);
    }
    let mut hand = Hand::new(Role::Server);
    let stream = hand.open_only();
    let result = hand.say_apart(&[Frame::Accept { stream, credit: 1 << 18 }]);
    hand.ended_by(result, CloseCode::FORBIDDEN);
}

#[test]
fn m15_a_counted_message_has_a_frame_and_unknown_ones_may_stand_anywhere() {
    let mut hand = Hand::new(Role::Agent);
    assert_eq!(hand.say(&[Frame::Unknown { kind: 0x80 }, open_frame(1)]), Ok(()));
    assert_eq!(hand.say_apart(&[Frame::Unknown { kind: 0xff }]), Ok(()));
    assert_eq!(hand.session.stats().unknown_frames, 2);
    let result = hand.say(&[]);
    hand.ended_by(result, CloseCode::FORBIDDEN);
}

#[test]
fn m16_b35_a_number_beyond_the_next_is_a_violation() {
    for number in [2, u64::MAX] {
        let mut hand = Hand::new(Role::Agent);
        let result = hand.session.handle_message(hand.now, message(number, 0, &[open_frame(1)]));
        hand.ended_by(result, CloseCode::FORBIDDEN);
    }
}

#[test]
fn m16_m81_b36_a_duplicate_is_ignored_whole_but_for_its_ack() {
    let mut hand = Hand::new(Role::Agent);
    let id = hand.open();
    hand.write(id, b"kept").unwrap();
    hand.hear();
    assert!(hand.session.stats().buffered_bytes > 0);
    let reset = Frame::Reset { stream: id, code: ResetCode::CANCELLED, reason: String::new() };
    for _ in 0..10_000 {
        // Neither the reset nor the flood of them is seen.
        assert_eq!(hand.session.handle_message(hand.now, message(1, hand.heard, std::slice::from_ref(&reset))), Ok(()));
    }
    assert_eq!(hand.session.stats().duplicate_messages, 10_000);
    assert_eq!(hand.session.stats().buffered_bytes, 0, "its ack counts");
    assert_eq!(hand.read(id), Ok(Read::Blocked));
    assert_eq!(hand.session.received(), hand.said);
}

#[test]
fn m20_b26_an_unknown_frame_below_0x80_is_a_violation() {
    for kind in [0, 0x03, 0x08, 0x17, 0x7f] {
        let mut hand = Hand::new(Role::Server);
        let result = hand.say_apart(&[Frame::Unknown { kind }]);
        hand.ended_by(result, CloseCode::FORBIDDEN);
    }
}

#[test]
fn m21_m80_b27_unknown_frames_are_skipped_a_thousand_a_minute() {
    let mut hand = Hand::new(Role::Server);
    let unknown = Frame::Unknown { kind: 0x80 };
    for _ in 0..1000 {
        assert_eq!(hand.say_apart(std::slice::from_ref(&unknown)), Ok(()));
    }
    hand.advance(Duration::from_millis(60));
    assert_eq!(hand.say_apart(std::slice::from_ref(&unknown)), Ok(()));
    let result = hand.say_apart(&[unknown]);
    hand.ended_by(result, CloseCode::FLOOD);
}

#[test]
fn m25_b44_a_ping_is_answered_before_data_and_the_last_of_many_is_enough() {
    let mut hand = Hand::new(Role::Agent);
    let stream = hand.open();
    hand.write(stream, b"data").unwrap();
    hand.say_apart(&[ping(1), ping(2)]).unwrap();
    assert_eq!(hand.hear(), [Frame::Pong([2; 8]), data(stream, *b"data")]);
}

#[test]
fn m25_a_pong_gives_the_round_trip_and_one_that_answers_nothing_is_ignored() {
    let mut hand = Hand::new(Role::Agent);
    let [Frame::Ping(bytes)] = hand.hear()[..] else { panic!("a PING leaves on a new link") };
    hand.now += Duration::from_millis(30);
    hand.say_apart(&[Frame::Pong([9; 8])]).unwrap();
    assert_eq!(hand.session.stats().rtt, None);
    hand.say_apart(&[Frame::Pong(bytes)]).unwrap();
    hand.now += Duration::from_millis(30);
    hand.say_apart(&[Frame::Pong(bytes)]).unwrap();
    assert_eq!(hand.session.stats().rtt, Some(Duration::from_millis(30)));
}

#[test]
fn m78_b44_a_flood_of_pings_ends_the_session() {
    let mut hand = Hand::new(Role::Server);
    for _ in 0..100 {
        assert_eq!(hand.say_apart(&[ping(0)]), Ok(()));
    }
    let result = hand.say_apart(&[ping(0)]);
    hand.ended_by(result, CloseCode::FLOOD);
}

#[test]
fn m79_b45_a_flood_of_resets_ends_the_session() {
    let mut hand = Hand::new(Role::Agent);
    for number in 1..=5000 {
        let reset = Frame::Reset { stream: id(number), code: ResetCode::CANCELLED, reason: String::new() };
        assert_eq!(hand.say(&[open_frame(number), reset]), Ok(()));
    }
    assert_eq!(hand.session.stats().streams, 0);
    let reset = Frame::Reset { stream: id(1), code: ResetCode::CANCELLED, reason: String::new() };
    let result = hand.say(&[reset]);
    hand.ended_by(result, CloseCode::FLOOD);
}

#[test]
fn m77_b43_tiny_frames_exhaust_a_budget_not_memory() {
    let config = SessionConfig { tiny_frames: 300, ..SessionConfig::default() };
    let mut hand = Hand::with(Role::Agent, config, Bounds::default());
    let (one, two) = (hand.open(), hand.open());
    for _ in 0..150 {
        hand.say(&[data(one, [7; 255]), data(two, [7; 1])]).unwrap();
    }
    hand.say(&[data(one, [7; 256])]).unwrap(); // is not tiny
    while hand.read(one) != Ok(Read::Blocked) {}
    hand.session.detach(two);
    assert_eq!(hand.session.stats().unread_bytes, 0);
    for _ in 0..300 {
        hand.say(&[data(one, [7; 1])]).unwrap(); // what was read or dropped is forgotten
    }
    let result = hand.say(&[data(one, [7; 1])]);
    hand.ended_by(result, CloseCode::FLOOD);
}

#[test]
fn m77_b43_by_default_two_million_tiny_frames_are_borne_and_one_more_is_a_flood() {
    let mut hand = Hand::new(Role::Agent);
    let budget = SessionConfig::default().tiny_frames as usize;
    let (mut sent, per_message) = (0, 4096);
    'all: loop {
        let stream = hand.open();
        // As many as its first credit takes.
        for _ in 0..16 * 1024 / per_message {
            if sent == budget {
                let result = hand.say(&[data(stream, [7; 1])]);
                break 'all hand.ended_by(result, CloseCode::FLOOD);
            }
            hand.say(&vec![data(stream, [7; 1]); per_message]).unwrap();
            sent += per_message;
        }
    }
    assert_eq!(sent, 2 << 20);
}

#[test]
fn m36_a_second_hello_or_welcome_is_a_violation() {
    for frame in [hello(), welcome()] {
        for role in ROLES {
            let mut hand = Hand::new(role);
            let result = hand.say_apart(std::slice::from_ref(&frame));
            hand.ended_by(result, CloseCode::FORBIDDEN);
        }
    }
}

#[test]
fn m55_what_comes_behind_a_violation_is_not_handled() {
    let mut hand = Hand::new(Role::Agent);
    let result = hand.say(&[open_frame(1), open_frame(1), open_frame(2)]);
    hand.ended_by(result, CloseCode::FORBIDDEN);
    hand.say(&[open_frame(3)]).unwrap();
    assert_eq!(hand.session.incoming(), None);
    assert_eq!(hand.session.stats().streams, 0);
}

#[test]
fn b19_absurd_bounds_are_used_as_ones_own() {
    let mut bounds = Bounds::default();
    (bounds.max_streams, bounds.max_opens, bounds.max_opens_per_target) = (u32::MAX, u32::MAX, u32::MAX);
    (bounds.max_message, bounds.max_credit, bounds.early_credit) = (u32::MAX, 1 << 63, u32::MAX);
    let mut hand = Hand::with(Role::Server, SessionConfig::default(), bounds);
    for stream in [(); 4].map(|()| hand.open_only()) {
        assert_eq!(hand.write(stream, &[0; 1 << 20]), Ok(Some(16 * 1024)), "the early credit");
        hand.say(&[Frame::Accept { stream, credit: 1 << 62 }]).unwrap();
        assert_eq!(hand.write(stream, &[0; 1 << 20]), Ok(Some(48 * 1024)), "the queue");
    }
    assert!(hand.hear_messages().iter().all(|message| message.len() <= MAX_MESSAGE));
}

#[test]
fn m9_a_peer_that_takes_the_smallest_messages_is_sent_no_larger_ones() {
    let mut bounds = Bounds::default();
    bounds.max_message = 1024;
    let mut hand = Hand::with(Role::Server, SessionConfig::default(), bounds);
    let stream = hand.open();
    assert_eq!(hand.write(stream, &[7; MAX_PAYLOAD]), Ok(Some(MAX_PAYLOAD)));
    let messages = hand.hear_messages();
    assert!(messages.iter().all(|message| message.len() <= 1024));
    let sent = messages.into_iter().flat_map(crate::hand::frames).collect::<Vec<_>>();
    assert_eq!(crate::hand::carried(&sent, stream), MAX_PAYLOAD);
}

#[test]
fn m14_the_count_is_of_messages_handled() {
    let mut hand = Hand::new(Role::Agent);
    assert_eq!(hand.session.received(), 0);
    hand.open();
    hand.say_apart(&[ping(1)]).unwrap();
    assert_eq!(hand.session.received(), 1);
    let pong = hand.session.poll_transmit(hand.now).map(Bytes::from).unwrap();
    assert_eq!(decode(pong).unwrap().0.received, 1);
}

fn hello() -> Frame {
    Frame::Hello(Hello::new(InstanceId::new([1; 16]), Bounds::default()))
}

fn welcome() -> Frame {
    Frame::Welcome(Welcome::new(SessionId::new([1; 16]), 1, Bounds::default(), 0))
}

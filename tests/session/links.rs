//! Links that come and go: what is sent again, and what a session is without one.

use std::time::Duration;

use bytes::Bytes;
use revdial::{
    frame::{Bounds, CloseCode, Frame, Metadata, ResetCode},
    proto::{DeadCause, Event, Opened, Read, Role, Session, SessionConfig, SessionEnd, StreamError},
};

use crate::{
    acks::{fill, numbers},
    hand::{Hand, ROLES, carried, data, frames},
};

const KIB: usize = 1024;

#[test]
fn m44_m45_m47_what_the_peer_lacks_is_sent_again_unchanged_and_before_anything_new() {
    let mut hand = Hand::new(Role::Agent);
    let id = hand.open();
    let mut sent = Vec::new();
    for _ in 0..3 {
        hand.write(id, b"abc").unwrap();
        sent.extend(hand.hear_messages());
    }
    hand.write(id, b"new").unwrap();
    hand.session.link_down(hand.now);
    assert_eq!(hand.hear(), [], "nothing leaves without a link");
    hand.session.link_up(hand.now, hand.heard - 2).unwrap();
    let again = hand.hear_messages();
    assert_eq!(again[1..3], sent[1..], "behind the PING of a new link");
    assert_eq!(frames(again[3].clone()), [data(id, *b"new")]);
    assert_eq!(numbers(&again), [3, 4, 5]);
    assert_eq!(hand.session.stats().replayed_bytes, (sent[1].len() + sent[2].len()) as u64);
}

#[test]
fn m40_b59_counts_that_cannot_be_end_the_session() {
    for lacks in [-1, 2] {
        let mut hand = Hand::new(Role::Agent);
        let id = hand.open(); // its ACCEPT is acked
        hand.write(id, b"abc").unwrap();
        hand.hear();
        hand.session.link_down(hand.now);
        let result = hand.session.link_up(hand.now, hand.heard.checked_add_signed(-lacks).unwrap());
        let violation = result.unwrap_err();
        let end = SessionEnd::Unresumable(violation);
        assert_eq!((violation.code(), hand.session.ended()), (CloseCode::FORBIDDEN, Some(&end)));
        hand.closes_with(CloseCode::FORBIDDEN, violation.rule());
    }
}

#[test]
fn m44_a_new_link_forgets_what_the_peer_has_and_tells_writers() {
    let mut hand = Hand::new(Role::Server);
    let (id, other) = (fill(&mut hand), hand.session.open(&"".parse().unwrap(), Metadata::default()).unwrap());
    hand.hear();
    hand.session.link_down(hand.now);
    hand.events();
    hand.session.link_up(hand.now, hand.heard).unwrap();
    assert_eq!(hand.session.stats().buffered_bytes, 0);
    assert!(hand.events().contains(&Event::Writable(id)));
    assert_eq!(hand.session.opened(other), Opened::Waiting);
}

#[test]
fn a_word_about_a_link_that_is_gone_is_not_taken_for_one_about_the_next() {
    let mut hand = Hand::new(Role::Agent);
    hand.advance(Duration::from_secs(45));
    hand.session.link_up(hand.now, 0).unwrap();
    assert_eq!(hand.events(), []);
}

#[test]
fn m53_without_a_link_writes_fill_their_bound_and_what_came_can_be_read() {
    let mut hand = Hand::new(Role::Server);
    let ids = [(); 4].map(|()| hand.open());
    let id = ids[0];
    hand.say(&[data(id, *b"x")]).unwrap();
    hand.session.link_down(hand.now);
    assert_eq!(hand.say(&[data(id, *b"late")]), Ok(()), "what an old link delivers has no effect");
    hand.said -= 1;
    assert_eq!(hand.read(id), Ok(Read::Bytes("x".into())));
    assert_eq!(hand.read(id), Ok(Read::Blocked));
    for id in ids {
        let mut written = 0;
        while let Some(n) = hand.write(id, &[7; 1000]).unwrap() {
            written += n;
        }
        assert_eq!(written, 64 * KIB);
    }
    let other = hand.session.open(&"".parse().unwrap(), Metadata::default()).unwrap();
    hand.session.link_up(hand.now, hand.heard).unwrap();
    let heard = hand.hear();
    assert_eq!(ids.map(|id| carried(&heard, id)), [64 * KIB; 4]);
    assert!(heard.iter().any(|frame| matches!(frame, Frame::Open { stream, .. } if *stream == other)));
}

#[test]
fn b65_what_is_given_up_in_a_pause_is_freed_at_once() {
    let mut hand = Hand::new(Role::Server);
    hand.session.link_down(hand.now);
    for n in 0..10_000 {
        let id = hand.session.open(&"".parse().unwrap(), Metadata::default()).unwrap();
        hand.write(id, b"early").unwrap();
        if n % 2 == 0 {
            hand.session.reset(id, ResetCode::CANCELLED, "");
        } else {
            let id = hand.session.open(&"".parse().unwrap(), Metadata::default()).unwrap();
            hand.session.detach(id);
        }
        if n % 2 == 1 {
            hand.session.reset(id, ResetCode::CANCELLED, "");
        }
        assert_eq!((hand.session.stats().streams, hand.session.stats().buffered_bytes), (0, 0));
    }
    hand.session.link_up(hand.now, 0).unwrap();
    assert!(matches!(frames(hand.session.poll_transmit(hand.now).map(Bytes::from).unwrap())[..], [Frame::Ping(_)]));
    assert!(!hand.session.wants_transmit());
    assert_eq!(hand.hear(), []);
}

#[test]
fn m46_b61_the_eleventh_attach_in_a_row_that_acks_nothing_ends_a_servers_session() {
    let attach = |hand: &mut Hand, has| {
        hand.session.link_down(hand.now);
        hand.session.link_up(hand.now, has)
    };
    for role in ROLES {
        let mut hand = Hand::new(role);
        let id = hand.open();
        hand.write(id, b"x").unwrap();
        hand.hear();
        let acked = hand.heard - 1;
        attach(&mut hand, acked).unwrap();
        for _ in 0..9 {
            attach(&mut hand, acked).unwrap();
        }
        hand.say_apart(&[]).unwrap();
        for _ in 0..20 {
            let all = hand.heard;
            attach(&mut hand, all).expect("nothing is outstanding");
        }
        hand.write(id, b"y").unwrap();
        hand.hear();
        let acked = hand.heard - 1;
        for _ in 0..10 {
            attach(&mut hand, acked).unwrap();
        }
        let last = attach(&mut hand, acked);
        match role {
            Role::Server => assert_eq!(last.unwrap_err().code(), CloseCode::FLOOD),
            Role::Agent => last.expect("the server judges"),
        }
    }
}

#[test]
fn m82_a_session_that_ends_with_its_link_keeps_and_acks_nothing() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let id = hand.open();
        hand.hear();
        hand.session =
            std::mem::replace(&mut hand.session, Session::new(role, SessionConfig::default(), Bounds::default(), 7))
                .without_resume();
        let before = hand.session.stats().buffered_bytes;
        for _ in 0..200 {
            hand.write(id, &[7; 1024]).unwrap();
            assert_eq!(hand.hear().len(), 1);
        }
        assert_eq!(hand.session.stats().buffered_bytes, before, "nothing is kept");
        hand.say(&[data(id, [7; 1024].to_vec())]).unwrap();
        hand.now += Duration::from_secs(1);
        hand.session.handle_timeout(hand.now);
        assert_eq!(hand.hear_messages().len(), 0, "nothing is acked alone");
        for _ in 0..9 {
            hand.now += Duration::from_secs(10);
            hand.session.handle_activity(hand.now);
            hand.session.handle_timeout(hand.now);
        }
        assert!(!hand.events().contains(&Event::LinkDead(DeadCause::NoAck)), "nor held against the peer");
        assert_eq!(hand.session.received(), hand.said, "and what was received is told as ever");
    }
}

#[test]
fn what_a_link_has_shown_is_known_until_the_next_one() {
    let mut hand = Hand::new(Role::Server);
    assert_eq!((hand.session.heard(), hand.session.progress()), (false, false));
    hand.say_apart(&[]).unwrap();
    assert_eq!((hand.session.heard(), hand.session.progress()), (true, false));
    let id = hand.open();
    hand.session.link_down(hand.now);
    assert_eq!((hand.session.heard(), hand.session.progress()), (true, true));
    hand.session.link_up(hand.now, hand.heard).unwrap();
    assert_eq!((hand.session.heard(), hand.session.progress()), (false, false));
    hand.write(id, b"x").unwrap();
    hand.hear();
    hand.say_apart(&[]).unwrap();
    assert!(hand.session.progress(), "an ack is progress");
}

#[test]
fn b66_a_half_closed_stream_survives_a_cut() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let (here, there) = (hand.open(), hand.open());
        hand.write(here, b"abc").unwrap();
        hand.finish(here);
        assert_eq!(hand.hear(), [data(here, *b"abc"), Frame::Fin { stream: here, final_size: 3 }]);
        hand.say_without_ack(&[Frame::Fin { stream: there, final_size: 0 }]);
        hand.session.link_down(hand.now);
        hand.session.link_up(hand.now, hand.heard - 1).unwrap();
        hand.heard -= 1;
        assert_eq!(hand.hear()[1..], [data(here, *b"abc"), Frame::Fin { stream: here, final_size: 3 }]);
        hand.say(&[data(here, *b"more")]).unwrap();
        assert_eq!(hand.read(here), Ok(Read::Bytes("more".into())));
        assert_eq!(hand.write(here, b"x"), Err(StreamError::Finished));
        assert_eq!(hand.read(there), Ok(Read::End));
        assert_eq!(hand.write(there, b"x"), Ok(Some(1)));
    }
}

//! How a session ends: by a close, a drain, or as lost.

use std::time::Duration;

use revdial::{
    frame::{CloseCode, Frame, Metadata, ResetCode},
    proto::{Event, OpenError, Opened, Read, Role, SessionEnd, StreamError},
};

use crate::hand::{Hand, ROLES, carried, data, open_frame};

const KIB: usize = 1024;

fn drain_frame(code: CloseCode) -> Frame {
    Frame::Drain { code, deadline_ms: 30_000, jitter_ms: 5_000, reason: "why".to_owned() }
}

#[test]
fn an_end_leaves_nothing_to_send_and_nothing_kept() {
    let mut hand = Hand::new(Role::Server);
    let id = hand.open();
    hand.write(id, b"abc").unwrap();
    hand.hear();
    hand.session.shutdown(CloseCode::NORMAL, "");
    hand.say_without_ack(&[Frame::Close { code: CloseCode::RESTART, reason: String::new() }]);
    assert!(!hand.session.wants_transmit());
    assert_eq!(hand.session.stats().buffered_bytes, 0);
}

#[test]
fn m52_b10_a_close_frame_ends_the_session() {
    for code in [CloseCode::NORMAL, CloseCode::OVER_BUDGET, CloseCode::new(4999)] {
        let mut hand = Hand::new(Role::Agent);
        hand.open();
        hand.say_apart(&[Frame::Close { code, reason: "why".to_owned() }, Frame::Ping([1; 8])]).unwrap();
        let end = SessionEnd::ClosedByPeer { code, reason: "why".into() };
        assert_eq!(hand.session.ended(), Some(&end));
        assert_eq!(hand.hear(), [], "not even the answer to what came behind it");
    }
    let mut hand = Hand::new(Role::Agent);
    hand.say_apart(&[Frame::Close { code: CloseCode::REPLACED, reason: String::new() }]).unwrap();
    assert_eq!(hand.session.ended(), Some(&SessionEnd::Replaced));
}

#[test]
fn orderly_close_flushes_what_was_accepted() {
    let mut hand = Hand::new(Role::Server);
    let ids = [(); 4].map(|()| hand.open());
    for id in ids {
        assert_eq!(hand.write(id, &[7; 50 * KIB]), Ok(Some(50 * KIB)));
    }
    hand.session.shutdown(CloseCode::NORMAL, "done");
    hand.session.shutdown(CloseCode::RESTART, "is too late");
    assert_eq!(hand.session.open(&"".parse().unwrap(), Metadata::default()), Err(OpenError::Draining));
    let heard = hand.hear();
    assert_eq!(ids.map(|id| carried(&heard, id)), [50 * KIB; 4]);
    assert!(!heard.iter().any(|frame| matches!(frame, Frame::Close { .. })), "m54: it waits for the acks");
    hand.heard -= 1;
    hand.say_apart(&[]).unwrap();
    assert!(!hand.session.wants_transmit());
    hand.heard += 1;
    hand.say_apart(&[]).unwrap();
    assert!(hand.session.wants_transmit());
    hand.closes_with(CloseCode::NORMAL, "done");
    assert_eq!(hand.session.ended(), Some(&SessionEnd::Shutdown));
    for id in ids {
        assert_eq!(hand.read(id), Err(StreamError::Session(SessionEnd::Shutdown)));
    }
}

#[test]
fn m54_a_close_in_haste_leaves_before_all_else() {
    let mut hand = Hand::new(Role::Server);
    for id in [(); 4].map(|()| hand.open()) {
        assert_eq!(hand.write(id, &[7; 50 * KIB]), Ok(Some(50 * KIB)));
    }
    hand.say_apart(&[Frame::Ping([1; 8])]).unwrap();
    hand.session.close(CloseCode::CREDENTIALS, "revoked", SessionEnd::Revoked);
    hand.session.end(SessionEnd::Lost);
    hand.closes_with(CloseCode::CREDENTIALS, "revoked");
    assert_eq!(hand.session.ended(), Some(&SessionEnd::Revoked), "the first end stands");
    assert_eq!(
        hand.session.open(&"".parse().unwrap(), Metadata::default()),
        Err(OpenError::Session(SessionEnd::Revoked))
    );
}

#[test]
fn m53_m73_b63_at_the_end_of_a_session_all_streams_fail_and_none_ends() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let (id, unread, finished, answerless) = (hand.open(), hand.open(), hand.open(), hand.open_only());
        hand.say(&[data(unread, *b"x"), Frame::Fin { stream: finished, final_size: 0 }]).unwrap();
        assert_eq!(hand.read(id), Ok(Read::Blocked));
        hand.write(id, &[7; 300 * KIB]).unwrap();
        assert_eq!(hand.write(id, b"x"), Ok(None));
        hand.session.end(SessionEnd::Lost);
        let error = StreamError::Session(SessionEnd::Lost);
        let events = hand.events();
        for event in [Event::Readable(id), Event::Writable(id), Event::Stopped(id), Event::Ended] {
            assert_eq!(events.iter().filter(|other| **other == event).count(), 1, "{event:?}");
        }
        assert_eq!(events.last(), Some(&Event::Ended));
        assert_eq!(hand.write(id, b"x"), Err(error.clone()));
        assert_eq!(hand.read(id), Err(error.clone()));
        assert_eq!(hand.read(unread), Ok(Read::Bytes("x".into())));
        assert_eq!(hand.read(unread), Err(error.clone()));
        assert_eq!(hand.read(finished), Ok(Read::End), "an end that was told stands");
        match role {
            Role::Server => {
                assert!(events.contains(&Event::Answered(answerless)));
                assert_eq!(hand.session.opened(answerless), Opened::Failed(error));
            }
            Role::Agent => assert_eq!(hand.session.accept(answerless), Err(error)),
        }
        for id in [id, unread, finished, answerless] {
            hand.session.detach(id);
        }
        let stats = hand.session.stats();
        assert_eq!((stats.streams, stats.buffered_bytes, stats.unread_bytes), (0, 0, 0));
        assert_eq!(hand.hear(), []);
    }
}

#[test]
fn m56_after_drain_nothing_is_opened_and_what_runs_goes_on() {
    let mut hand = Hand::new(Role::Server);
    let id = hand.open();
    hand.say_apart(&[drain_frame(CloseCode::RESTART)]).unwrap();
    let (deadline, jitter) = (Duration::from_secs(30), Duration::from_secs(5));
    let draining = Event::Draining { code: CloseCode::RESTART, deadline, jitter, reason: "why".into() };
    assert_eq!(hand.events(), [draining]);
    assert_eq!(hand.session.open(&"".parse().unwrap(), Metadata::default()), Err(OpenError::Draining));
    assert_eq!(hand.write(id, b"x"), Ok(Some(1)));
    assert_eq!(hand.hear(), [data(id, *b"x")]);

    let mut hand = Hand::new(Role::Agent);
    hand.session.drain(CloseCode::RESTART, deadline, jitter, "why");
    hand.say(&[open_frame(1)]).unwrap();
    assert!(hand.session.incoming().is_some(), "what was on its way is served");
}

#[test]
fn m57_drain_is_said_again_on_each_link() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        hand.hear();
        hand.session.drain(CloseCode::RESTART, Duration::from_secs(30), Duration::from_secs(5), "why");
        assert!(matches!(&hand.hear()[..], [drain, Frame::Ping(_)] if *drain == drain_frame(CloseCode::RESTART)));
        assert_eq!(hand.hear(), [], "and once on each");
        for _ in 0..2 {
            hand.session.link_down(hand.now);
            hand.session.drain(CloseCode::REPLACED, Duration::from_secs(30), Duration::from_secs(5), "why");
            assert_eq!(hand.hear(), []);
            hand.session.link_up(hand.now, 0).unwrap();
            assert_eq!(hand.hear()[0], drain_frame(CloseCode::REPLACED), "with the last words");
        }
        assert_eq!(
            hand.session.open(&"".parse().unwrap(), Metadata::default()),
            Err(if role == Role::Server { OpenError::Draining } else { OpenError::WrongSide })
        );
    }
}

#[test]
fn m56_a_session_that_drains_closes_itself_once_nothing_runs_and_the_peer_has_seen_it() {
    for (role, code, end) in [
        (Role::Agent, CloseCode::DRAINED, SessionEnd::Shutdown),
        (Role::Server, CloseCode::REPLACED, SessionEnd::Replaced),
    ] {
        let mut hand = Hand::new(role);
        let old_ping = ping_of(&hand.hear());
        let id = hand.open();
        hand.session.drain(code, Duration::from_secs(30), Duration::ZERO, "why");
        let ping = ping_of(&hand.hear());
        hand.say_apart(&[Frame::Pong(ping)]).unwrap();
        assert_eq!(hand.hear(), [], "a stream runs");
        hand.session.reset(id, ResetCode::INTERNAL, "");
        hand.hear();
        hand.say_apart(&[]).unwrap(); // acks the reset
        assert_eq!(hand.hear(), [Frame::Close { code, reason: "why".into() }]);
        assert_eq!(hand.session.ended(), Some(&end));

        let mut hand = Hand::new(role);
        hand.session.drain(code, Duration::from_secs(30), Duration::ZERO, "why");
        let ping = ping_of(&hand.hear());
        hand.say_apart(&[Frame::Pong(old_ping)]).unwrap();
        assert_eq!(hand.hear(), [], "an open may be on its way: the peer has not seen DRAIN");
        hand.session.link_down(hand.now);
        hand.session.link_up(hand.now, 0).unwrap();
        let new_ping = ping_of(&hand.hear());
        assert_ne!(ping, new_ping);
        hand.say_apart(&[Frame::Pong(new_ping)]).unwrap();
        assert_eq!(hand.hear(), [Frame::Close { code, reason: "why".into() }], "also on another link");
    }
}

/// The bytes of the PING among these frames.
fn ping_of(frames: &[Frame]) -> [u8; 8] {
    let ping = |frame: &Frame| if let Frame::Ping(bytes) = frame { Some(*bytes) } else { None };
    frames.iter().find_map(ping).expect("a PING")
}

//! What an owner may do beside the point: surplus and misplaced calls, and events that nobody asks for.

use std::time::Duration;

use revdial::{
    frame::{Bounds, CloseCode, Frame, Metadata, ResetCode},
    proto::{Event, Opened, Read, Role, SessionConfig, SessionEnd, StreamError},
};

use crate::hand::{Hand, ROLES, data, id, open_frame};

#[test]
fn surplus_calls_are_harmless() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let live = hand.open();
        assert_eq!(hand.session.accept(live).is_ok(), role == Role::Agent);
        for id in [id(77), id(u32::MAX)] {
            assert!(hand.session.accept(id).is_err());
            hand.session.reset(id, ResetCode::CANCELLED, "");
            hand.session.detach(id);
            assert!(hand.session.send(id).is_none() && hand.session.recv(id).is_none());
            assert!(hand.session.is_stopped(id));
            assert_eq!(hand.session.opened(id), Opened::Failed(StreamError::Finished));
        }
        hand.session.handle_timeout(hand.now);
        hand.session.handle_activity(hand.now);
        assert_eq!(hand.hear(), []);
        assert_eq!(hand.write(live, b""), Ok(Some(0)));
        assert_eq!(hand.write(live, b"x"), Ok(Some(1)));
        hand.finish(live);
        hand.finish(live);
        assert_eq!(hand.hear().len(), 2);
        hand.session.end(SessionEnd::Lost);
        hand.session.close(CloseCode::NORMAL, "", SessionEnd::Shutdown);
        hand.session.link_up(hand.now, 0).unwrap();
        hand.session.link_down(hand.now);
        assert_eq!(hand.session.ended(), Some(&SessionEnd::Lost));
        assert_eq!(hand.hear(), []);
    }
}

#[test]
fn each_event_waits_once_when_nobody_asks() {
    let mut hand = Hand::new(Role::Server);
    let stream = hand.open();
    for _ in 0..1000 {
        assert_eq!(hand.read(stream), Ok(Read::Blocked));
        hand.say(&[data(stream, *b"x")]).unwrap();
        hand.read(stream).unwrap();
        let drain = Frame::Drain { code: CloseCode::RESTART, deadline_ms: 0, jitter_ms: 0, reason: String::new() };
        hand.say_apart(&[drain]).unwrap();
        hand.advance(Duration::from_secs(46));
        hand.hear();
        hand.session.link_up(hand.now, hand.heard).unwrap();
    }
    let events = hand.events();
    assert!(matches!(events[..], [Event::Readable(_), Event::Draining { .. }]), "{events:?}");

    let mut hand = Hand::new(Role::Agent);
    for number in 1..1000 {
        let reset = Frame::Reset { stream: id(number), code: ResetCode::CANCELLED, reason: String::new() };
        hand.say(&[open_frame(number), reset]).unwrap();
    }
    assert_eq!(hand.events(), [Event::Opened]);

    let mut hand =
        Hand::with(Role::Server, SessionConfig { max_opens: 1, ..SessionConfig::default() }, Bounds::default());
    for _ in 0..1000 {
        let stream = hand.session.open(&"".parse().unwrap(), Metadata::default()).unwrap();
        assert!(hand.session.open(&"".parse().unwrap(), Metadata::default()).is_err());
        hand.hear();
        hand.say(&[Frame::Reset { stream, code: ResetCode::TARGET_DENIED, reason: String::new() }]).unwrap();
        hand.session.detach(stream);
    }
    assert_eq!(hand.events(), [Event::OpensAvailable], "what concerns streams that are gone is gone");
}

#[test]
fn an_event_waits_once_until_it_is_taken_and_comes_again_after_that() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let stream = hand.open();
        for _ in 0..2 {
            for _ in 0..3 {
                assert_eq!(hand.read(stream), Ok(Read::Blocked));
                hand.say(&[data(stream, *b"a")]).unwrap();
                assert_eq!(hand.read(stream), Ok(Read::Bytes("a".into())));
            }
            assert_eq!(hand.events(), [Event::Readable(stream)]);
        }
    }
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let run = || {
        let mut hand = Hand::new(Role::Server);
        let ids: Vec<_> = (0..150).map(|_| hand.open()).collect();
        for id in &ids {
            hand.read(*id).unwrap();
            while hand.write(*id, &[7; 64 * 1024]).unwrap().is_some() {}
        }
        let sent = hand.hear();
        hand.session.end(SessionEnd::Lost);
        (sent, hand.events())
    };
    assert_eq!(run(), run());
}

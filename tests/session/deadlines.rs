//! Links that are silent, or ack nothing: when they are dead, and when pings leave.

use std::time::Duration;

use revdial::{
    frame::Frame,
    proto::{DeadCause, Event, Role},
};

use crate::hand::{Hand, ROLES, data, message};

#[test]
fn m10_m50_b51_a_silent_link_is_dead_and_any_byte_shows_life() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        hand.advance(Duration::from_millis(44_999));
        hand.hear();
        hand.session.handle_activity(hand.now);
        let seen = hand.now;
        while hand.now < seen + Duration::from_secs(45) {
            assert_eq!(hand.events(), []);
            hand.now = hand.session.poll_timeout().unwrap();
            hand.session.handle_timeout(hand.now);
            hand.hear();
        }
        assert_eq!(hand.now, seen + Duration::from_secs(45));
        assert_eq!(hand.events(), [Event::LinkDead(DeadCause::Silent)]);
        assert_eq!(hand.session.ended(), None);
    }
}

#[test]
fn m50_b42_a_link_that_acks_nothing_new_is_dead() {
    let mut hand = Hand::new(Role::Server);
    let id = hand.open();
    let heard = hand.heard;
    let write_and_live = |hand: &mut Hand, seconds| {
        hand.write(id, b"x").unwrap();
        for _ in 0..seconds {
            hand.hear();
            hand.advance(Duration::from_secs(1));
            hand.session.handle_activity(hand.now);
        }
    };
    write_and_live(&mut hand, 40);
    write_and_live(&mut hand, 4); // does not start the time anew
    assert_eq!(hand.events(), []);
    hand.session.handle_message(hand.now, message(0, heard + 1, &[])).unwrap();
    write_and_live(&mut hand, 44); // but a new ack does
    hand.session.handle_message(hand.now, message(0, heard + 1, &[])).unwrap();
    assert_eq!(hand.events(), []);
    write_and_live(&mut hand, 1); // and an old one does not
    assert_eq!(hand.events(), [Event::LinkDead(DeadCause::NoAck)]);
    hand.session.link_down(hand.now);
    hand.session.link_up(hand.now, heard + 1).unwrap();
    write_and_live(&mut hand, 44); // a new link has its own time
    assert_eq!(hand.events(), []);
    write_and_live(&mut hand, 1);
    assert_eq!(hand.events(), [Event::LinkDead(DeadCause::NoAck)]);
}

#[test]
fn m50_nothing_outstanding_needs_no_ack() {
    let mut hand = Hand::new(Role::Server);
    let id = hand.open();
    hand.write(id, b"x").unwrap();
    hand.hear();
    hand.say_apart(&[]).unwrap();
    for _ in 0..100 {
        hand.advance(Duration::from_secs(1));
        hand.session.handle_activity(hand.now);
        hand.hear();
    }
    assert_eq!(hand.events(), []);
}

#[test]
fn m51_pings_leave_at_intervals_that_vary_by_a_fifth() {
    let mut hand = Hand::new(Role::Server);
    let mut intervals = Vec::new();
    let mut last = hand.now;
    assert!(matches!(hand.hear()[..], [Frame::Ping(_)]), "at once on a new link");
    while intervals.len() < 100 {
        hand.now = hand.session.poll_timeout().unwrap();
        hand.session.handle_timeout(hand.now);
        hand.session.handle_activity(hand.now);
        if hand.hear().iter().any(|frame| matches!(frame, Frame::Ping(_))) {
            intervals.push(hand.now - last);
            last = hand.now;
        }
    }
    let (least, most) = (intervals.iter().min().unwrap(), intervals.iter().max().unwrap());
    assert!(*least >= Duration::from_secs(12) && *least < Duration::from_millis(12_500), "{least:?}");
    assert!(*most <= Duration::from_secs(18) && *most > Duration::from_millis(17_500), "{most:?}");
}

#[test]
fn no_deadline_runs_without_a_link() {
    let mut hand = Hand::new(Role::Server);
    let id = hand.open();
    hand.say(&[data(id, *b"x")]).unwrap();
    hand.write(id, b"y").unwrap();
    hand.hear();
    hand.session.link_down(hand.now);
    hand.session.handle_activity(hand.now);
    assert_eq!(hand.session.poll_timeout(), None);
    assert!(!hand.session.wants_transmit());
}

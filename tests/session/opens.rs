//! Opens that are refused, given up, or never answered: what they may cost, and whom.

use std::time::Duration;

use revdial::{
    frame::{Frame, Metadata, ResetCode},
    proto::{Event, OpenError, Opened, Role, StreamError},
};

use crate::hand::Hand;

fn resets(frames: &[Frame]) -> usize {
    frames.iter().filter(|frame| matches!(frame, Frame::Reset { .. })).count()
}

#[test]
fn m63_an_open_that_is_not_answered_in_time_fails_tells_the_peer_and_makes_room() {
    let mut hand = Hand::new(Role::Server);
    let id = hand.open_only();
    hand.write(id, b"early").unwrap();
    hand.hear();
    hand.advance(Duration::from_millis(9_999));
    assert_eq!(hand.session.opened(id), Opened::Waiting);
    assert_eq!(hand.session.poll_timeout(), Some(hand.now + Duration::from_millis(1)));
    hand.advance(Duration::from_millis(1));
    assert_eq!(hand.session.opened(id), Opened::Failed(StreamError::Unanswered));
    assert!(hand.events().contains(&Event::Answered(id)));
    assert_eq!(hand.read(id), Err(StreamError::Unanswered), "whoever wrote early learns it as well");
    assert_eq!(resets(&hand.hear()), 1);
    assert_eq!(hand.say(&[Frame::Accept { stream: id, credit: 1 << 20 }]), Ok(()), "late, and ignored");
    hand.session.detach(id);
    assert_eq!(hand.session.stats().streams, 0);
}

#[test]
fn an_answer_has_its_whole_time_again_on_the_next_link() {
    let mut hand = Hand::new(Role::Server);
    let id = hand.open_only();
    hand.advance(Duration::from_secs(9));
    hand.session.link_down(hand.now);
    hand.advance(Duration::from_secs(20));
    hand.session.link_up(hand.now, hand.heard).unwrap();
    hand.advance(Duration::from_secs(9));
    assert_eq!(hand.session.opened(id), Opened::Waiting);
    hand.advance(Duration::from_secs(1));
    assert_eq!(hand.session.opened(id), Opened::Failed(StreamError::Unanswered));
}

#[test]
fn m79_refusals_of_ones_own_opens_are_no_flood() {
    let mut hand = Hand::new(Role::Server);
    for _ in 0..10_000 {
        let id = hand.open_only();
        let refusal = Frame::Reset { stream: id, code: ResetCode::TARGET_UNKNOWN, reason: String::new() };
        hand.say(&[refusal]).unwrap();
        hand.session.detach(id);
    }
    assert_eq!(hand.session.ended(), None);
}

#[test]
fn m79_b45_ones_own_resets_are_put_off_before_the_peer_takes_them_for_a_flood_and_opens_wait_for_them() {
    let mut hand = Hand::new(Role::Server);
    let target = "".parse().unwrap();
    let (mut opened, mut sent) = (0, 0);
    let blocked = loop {
        match hand.session.open(&target, Metadata::default()) {
            Ok(id) => {
                opened += 1;
                hand.hear();
                hand.session.reset(id, ResetCode::CANCELLED, "");
                sent += resets(&hand.hear());
                hand.say_apart(&[]).unwrap();
            }
            Err(error) => break error,
        }
        assert!(opened < 10_000, "nothing holds it up");
    };
    assert_eq!(blocked, OpenError::TooManyOpens);
    assert_eq!((sent, opened - sent), (2_500, 64), "five seconds' worth, and the opens of one target");
    hand.events();
    // 20 ms are worth ten of them.
    hand.advance(Duration::from_millis(20));
    assert_eq!(resets(&hand.hear()), 10);
    assert!(hand.events().contains(&Event::OpensAvailable));
    assert!(hand.session.open(&target, Metadata::default()).is_ok());
    for _ in 0..6 {
        hand.advance(Duration::from_millis(20));
        sent += resets(&hand.hear());
    }
    assert_eq!(sent + 10, opened, "all have left");
}

#[test]
fn a_refusal_behind_accept_does_not_claim_that_nothing_reached_the_target() {
    let mut hand = Hand::new(Role::Server);
    let id = hand.open();
    let refusal = Frame::Reset { stream: id, code: ResetCode::TARGET_REFUSED, reason: String::new() };
    hand.say(&[refusal]).unwrap();
    let Err(error) = hand.read(id) else { panic!("an error expected") };
    assert!(!revdial::Error::from(error).is_retry_safe());
}

//! What is kept until the peer has it, how much that may be, and when acks leave.

use std::time::Duration;

use bytes::Bytes;
use revdial::{
    frame::{Bounds, Frame, Metadata, ResetCode, StreamId, decode},
    proto::{Event, Role, Session, SessionConfig},
};

use crate::hand::{Hand, ROLES, carried, data, frames, message, open_frame};

const KIB: usize = 1024;

/// The numbers of the messages that are counted.
pub(crate) fn numbers(messages: &[Bytes]) -> Vec<u64> {
    messages.iter().map(|message| decode(message.clone()).unwrap().0.number).filter(|number| *number > 0).collect()
}

/// Opens a stream and writes until the bound is reached, and gives the stream, whose writer found no room.
pub(crate) fn fill(hand: &mut Hand) -> StreamId {
    let id = hand.session.open(&"".parse().unwrap(), Metadata::default()).unwrap();
    hand.hear_messages();
    hand.say_without_ack(&[Frame::Accept { stream: id, credit: 8 << 20 }]);
    loop {
        let written = hand.write(id, &[7; 64 * KIB]).unwrap();
        if hand.hear_messages().is_empty() && written.is_none() {
            return id;
        }
    }
}

#[test]
fn m48_b42_a_peer_that_never_acks_bounds_memory_and_frames_without_data_still_leave() {
    let mut hand = Hand::new(Role::Server);
    let id = fill(&mut hand);
    let bound = SessionConfig::default().send_bound;
    let kept = hand.session.stats().buffered_bytes;
    assert!(kept > bound - 256 * KIB - 66 * KIB && kept <= bound - 256 * KIB, "{kept}");
    assert_eq!(hand.write(id, b"x"), Ok(None));
    let other = hand.session.open(&"".parse().unwrap(), Metadata::default()).unwrap();
    assert!(matches!(hand.hear()[..], [Frame::Open { stream, .. }] if stream == other), "OPEN has a reserve");
    hand.session.reset(other, ResetCode::CANCELLED, "");
    hand.say_without_ack(&[Frame::Ping([1; 8])]);
    assert!(hand.hear().len() == 2, "RESET and PONG leave, too");
    for _ in 0..100_000 {
        if let Ok(other) = hand.session.open(&"".parse().unwrap(), Metadata::default()) {
            hand.session.detach(other);
            hand.session.reset(other, ResetCode::CANCELLED, "");
        }
        hand.hear_messages();
    }
    assert!(hand.session.stats().buffered_bytes <= bound, "the reserve has an end");
    hand.say_apart(&[]).unwrap();
    hand.hear_messages();
    hand.say_apart(&[]).unwrap();
    assert_eq!(hand.session.stats().buffered_bytes, 0, "and an ack frees it all");
    assert_eq!(hand.events().iter().filter(|event| **event == Event::Writable(id)).count(), 1);
}

#[test]
fn m48_small_messages_keep_within_the_bound_with_their_heads() {
    let mut bounds = Bounds::default();
    bounds.max_message = 1024;
    let mut hand = Hand::with(Role::Server, SessionConfig::default(), bounds);
    let ids: Vec<_> = (0..60).map(|_| hand.open()).collect();
    for _ in 0..100 {
        for id in &ids {
            while hand.write(*id, &[7; 64 * KIB]).unwrap().is_some() {}
        }
        hand.hear_messages();
        assert!(hand.session.stats().buffered_bytes <= SessionConfig::default().send_bound);
    }
}

#[test]
fn m45_m48_at_the_bound_replays_leave_then_acks_pass_then_new_messages_leave() {
    let mut hand = Hand::new(Role::Server);
    let id = fill(&mut hand);
    let sent = hand.heard;
    hand.session.link_down(hand.now);
    hand.session.link_up(hand.now, 0).unwrap();
    let again = hand.hear_messages();
    assert_eq!(numbers(&again), (1..=sent).collect::<Vec<_>>());
    assert_eq!(hand.write(id, b"x"), Ok(None));
    hand.events();
    hand.say_apart(&[]).unwrap();
    assert_eq!(hand.events(), [Event::Writable(id)]);
    assert_eq!(hand.write(id, b"x"), Ok(Some(1)));
    assert_eq!(numbers(&hand.hear_messages()).last(), Some(&(sent + 1)));
}

#[test]
fn m48_when_room_comes_another_writer_is_woken_first_each_time() {
    let mut hand = Hand::new(Role::Server);
    let mut ids: Vec<_> = (0..3).map(|_| hand.open()).collect();
    ids.push(fill(&mut hand));
    let mut first = Vec::new();
    for _ in 0..4 {
        for id in &ids {
            assert_eq!(hand.write(*id, b"x"), Ok(None));
        }
        hand.events();
        hand.say_apart(&[]).unwrap();
        let woken = hand.events();
        let Event::Writable(id) = woken[0] else { panic!("{woken:?}") };
        assert!(!first.contains(&id), "{id} is first again");
        assert!(ids.iter().all(|id| woken.contains(&Event::Writable(*id))));
        first.push(id);
        fill(&mut hand);
    }
}

#[test]
fn m49_an_ack_leaves_alone_after_40_ms() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let id = hand.open();
        hand.say(&[data(id, *b"x")]).unwrap();
        assert_eq!(hand.hear_messages().len(), 0);
        assert_eq!(hand.session.poll_timeout(), Some(hand.now + Duration::from_millis(40)));
        hand.advance(Duration::from_millis(39));
        hand.say(&[data(id, *b"does not put it off")]).unwrap();
        assert_eq!(hand.hear_messages().len(), 0);
        hand.advance(Duration::from_millis(1));
        assert_eq!(hand.hear_messages(), [message(0, hand.said, &[])]);
        assert!(hand.session.poll_timeout().unwrap() > hand.now + Duration::from_secs(1), "and once");
    }
}

#[test]
fn m49_an_ack_leaves_alone_after_512_kib() {
    let mut hand = Hand::new(Role::Server);
    let ids = [hand.open(), hand.open(), hand.open(), hand.open()];
    let mut acks = 0;
    for _ in 0..480 {
        for id in ids {
            hand.say(&[data(id, [7; 1000])]).unwrap(); // 1 KiB with its heads, and nobody reads
            let heard = hand.hear_messages();
            assert!(heard.iter().all(|ack| *ack == message(0, hand.said, &[])));
            acks += heard.len();
        }
    }
    assert_eq!(acks, 4 * 480 / 512);
}

#[test]
fn m49_an_ack_travels_with_any_message() {
    let mut hand = Hand::new(Role::Server);
    let id = hand.open();
    hand.say(&[data(id, *b"x")]).unwrap();
    hand.write(id, b"y").unwrap();
    let [message] = &hand.hear_messages()[..] else { panic!("one message") };
    assert_eq!(decode(message.clone()).unwrap().0.received, hand.said);
    hand.advance(Duration::from_millis(41));
    assert_eq!(hand.hear_messages().len(), 0, "so that none is due");
}

#[test]
fn m49_a_duplicate_is_acked_too() {
    let mut hand = Hand::new(Role::Agent);
    hand.open();
    hand.session.handle_message(hand.now, message(1, hand.heard, &[open_frame(1)])).unwrap();
    hand.advance(Duration::from_millis(40));
    assert_eq!(hand.hear_messages(), [message(0, 1, &[])]);
}

#[test]
fn m49_an_ack_is_not_held_up_or_swallowed_by_a_replay_whose_heads_are_old() {
    let mut hand = Hand::new(Role::Server);
    let id = hand.open();
    for _ in 0..3 {
        hand.write(id, b"x").unwrap();
        hand.hear();
    }
    hand.session.link_down(hand.now);
    hand.session.link_up(hand.now, hand.heard - 3).unwrap();
    assert!(matches!(frames(hand.session.poll_transmit(hand.now).map(Bytes::from).unwrap())[..], [Frame::Ping(_)]));
    hand.heard -= 3;
    hand.say(&[data(id, *b"y")]).unwrap();
    let old = hand.session.poll_transmit(hand.now).map(Bytes::from).unwrap();
    assert!(decode(old).unwrap().0.received < hand.said);
    hand.advance(Duration::from_millis(40));
    hand.write(id, b"new").unwrap();
    let ack = hand.session.poll_transmit(hand.now).map(Bytes::from).unwrap();
    assert_eq!(ack, message(0, hand.said, &[]));
    assert_eq!(hand.hear_messages().len(), 3, "the rest of the replay, and what is new");
}

#[test]
fn m48_with_nothing_kept_one_message_may_always_be_made() {
    let now = std::time::Instant::now();
    let config = SessionConfig { send_bound: 1024, send_reserve: 0, ..SessionConfig::default() }; // not a valid one
    let mut session = Session::new(Role::Server, config, Bounds::default(), 1);
    session.link_up(now, 0).unwrap();
    let id = session.open(&"".parse().unwrap(), Metadata::default()).unwrap();
    let written = session.send(id).unwrap().write(&[7; 1024]).unwrap().unwrap();
    assert!(written > 512);
    let sent = std::iter::from_fn(|| session.poll_transmit(now).map(Bytes::from)).flat_map(frames).collect::<Vec<_>>();
    assert_eq!(carried(&sent, id), written);
    assert_eq!(session.send(id).unwrap().write(&[7]), Ok(None));
    session.handle_message(now, message(0, 1, &[])).unwrap();
    session.reset(id, ResetCode::CANCELLED, "");
    assert!(session.poll_transmit(now).is_some());
}

#[test]
fn m48_the_reserve_is_not_for_data_and_what_waits_for_it_is_not_overtaken() {
    let config = SessionConfig { send_bound: 4096 + 131_120, send_reserve: 4096, ..SessionConfig::default() };
    for opens in [false, true] {
        let mut hand = Hand::with(Role::Server, config.clone(), Bounds::default());
        let bulk = [hand.open(), hand.open()];
        let bulk_in = |frames: &[Frame]| bulk.iter().map(|id| carried(frames, *id)).sum::<usize>();
        let others: Vec<_> = (0..40).map(|_| hand.open()).collect();
        hand.session.link_down(hand.now);
        let written: usize = bulk.iter().map(|id| hand.write(*id, &[7; 256 * KIB]).unwrap().unwrap()).sum();
        assert_eq!(hand.write(bulk[1], b"x"), Ok(None));
        for id in others {
            hand.session.reset(id, ResetCode::INTERNAL, &"r".repeat(256));
        }
        hand.session.link_up(hand.now, hand.heard).unwrap();
        let [ping, resets] = [(), ()].map(|()| frames(hand.session.poll_transmit(hand.now).map(Bytes::from).unwrap()));
        assert!(ping.len() == 1 && resets.len() == 40 + 4 && bulk_in(&resets) > 0, "each of the two has two turns");
        if opens {
            let id = hand.session.open(&"".parse().unwrap(), Metadata::default()).unwrap();
            assert_eq!(hand.hear(), [], "more than the reserve is kept");
            hand.heard += 1;
            hand.say_apart(&[]).unwrap();
            assert!(matches!(hand.hear()[0], Frame::Open { stream, .. } if stream == id));
        } else {
            let queued = written - bulk_in(&resets) - bulk_in(&hand.hear());
            assert!(queued > 0 && hand.session.stats().buffered_bytes - queued <= 131_120);
        }
    }
}

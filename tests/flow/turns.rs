//! Whose turn it is to send, how much is queued, and when a writer is woken.

use std::time::Duration;

use bytes::Bytes;
use revdial::{
    frame::{Bounds, FRAME_HEAD, Frame, MAX_PAYLOAD, MESSAGE_HEAD, Metadata, ResetCode, StreamId},
    proto::{Event, Read, Role, SessionConfig},
};

use crate::{
    KIB, QUEUE,
    hand::{Hand, ROLES, carried, data, frames},
    pair::{Pair, Side, tight},
    write_all,
};

#[test]
fn m70_a_stream_that_nobody_reads_holds_up_no_other() {
    let mut pair = Pair::new(tight());
    for _ in 0..2 {
        pair.try_open(0).unwrap();
    }
    pair.pump();
    pair.accept();
    pair.pump();
    let (unread, read) = (pair.streams[0], pair.streams[1]);
    let mut total = 0;
    for _ in 0..200 {
        while pair.write(unread, Side::Server, 16 * KIB).unwrap() > 0 {}
        total += pair.write(read, Side::Server, 16 * KIB).unwrap();
        pair.pump();
        pair.advance(Duration::from_millis(40));
        pair.pump();
        while pair.read(read, Side::Agent, 1 << 20).unwrap().is_some() {}
    }
    assert_eq!(total, 200 * 16 * KIB);
}

#[test]
fn keepalive_passes_during_bulk_transfer() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let ids = [(); 4].map(|()| hand.open());
        let carried = |frames: &[Frame]| ids.iter().map(|id| carried(frames, *id)).sum::<usize>();
        for id in ids {
            assert_eq!(hand.write(id, &[7; QUEUE]), Ok(Some(QUEUE)));
        }
        let first = frames(hand.session.poll_transmit(hand.now).map(Bytes::from).unwrap());
        assert!(carried(&first) > 0);
        hand.say_without_ack(&[Frame::Ping([5; 8])]);
        hand.advance(Duration::from_secs(18)); // its own PING is due, too
        let next = frames(hand.session.poll_transmit(hand.now).map(Bytes::from).unwrap());
        assert!(matches!(next[..], [Frame::Pong([5, ..]), Frame::Ping(_)]), "{next:?}");
        assert!(carried(&hand.hear()) > 0);
    }
}

#[test]
fn m76_streams_are_served_in_turn_and_a_small_request_overtakes_a_large_transfer() {
    let mut hand = Hand::new(Role::Server);
    let (one, two) = (hand.open(), hand.open());
    let fill = |hand: &mut Hand| {
        for id in [one, two] {
            hand.write(id, &[7; QUEUE]).unwrap();
            assert_eq!(hand.write(id, b"x"), Ok(None), "as much as it queues");
        }
    };
    fill(&mut hand);
    let sizes = |frames: &[Frame]| -> Vec<(StreamId, usize)> {
        let of = |frame: &Frame| match frame {
            Frame::Data { stream, payload } => (*stream, payload.len()),
            other => panic!("{other:?}"),
        };
        frames.iter().map(of).collect()
    };
    let first = sizes(&frames(hand.session.poll_transmit(hand.now).map(Bytes::from).unwrap()));
    assert_eq!(first[..3], [(one, 16 * KIB), (two, 16 * KIB), (one, 16 * KIB)]);
    fill(&mut hand);
    let small = hand.session.open(&"".parse().unwrap(), Metadata::default()).unwrap();
    hand.write(small, b"GET /").unwrap();
    hand.finish(small);
    let next = frames(hand.session.poll_transmit(hand.now).map(Bytes::from).unwrap());
    assert!(matches!(next[0], Frame::Open { stream, .. } if stream == small), "control frames go first");
    let at = next.iter().position(|frame| *frame == data(small, *b"GET /")).expect("in the same message");
    assert!(at <= 3 && matches!(next[at + 1], Frame::Fin { stream, .. } if stream == small));
}

#[test]
fn m76_credit_goes_before_data() {
    let mut hand = Hand::new(Role::Agent);
    let (one, two) = (hand.open(), hand.open());
    for _ in 0..5 {
        hand.say(&[data(two, [7; MAX_PAYLOAD])]).unwrap();
    }
    hand.hear();
    hand.write(one, b"bulk").unwrap();
    while hand.read(two) != Ok(Read::Blocked) {}
    assert!(matches!(hand.hear()[..], [Frame::Credit { .. }, Frame::Data { .. }]));
}

#[test]
fn a_stream_alone_fills_whole_messages() {
    let mut hand = Hand::new(Role::Server);
    let id = hand.open();
    for _ in 0..4 {
        assert_eq!(hand.write(id, &[7; MAX_PAYLOAD]), Ok(Some(MAX_PAYLOAD)));
        assert_eq!(hand.hear_messages().len(), 1);
    }
}

#[test]
fn a_stream_queues_its_cap_and_its_writer_is_woken_when_half_of_it_has_left() {
    let mut bounds = Bounds::default();
    bounds.max_message = (MESSAGE_HEAD + FRAME_HEAD + QUEUE / 4) as u32;
    let mut hand = Hand::with(Role::Server, SessionConfig::default(), bounds);
    let id = hand.open();
    hand.say(&[Frame::Credit { stream: id, offset: 1 << 20 }]).unwrap();
    assert_eq!(hand.write(id, &[7; 1 << 20]), Ok(Some(QUEUE)), "of the bound, one stream gets no more");
    assert_eq!(hand.write(id, b"x"), Ok(None));
    hand.session.poll_transmit(hand.now).map(Bytes::from).unwrap();
    assert_eq!(hand.events(), []);
    hand.session.poll_transmit(hand.now).map(Bytes::from).unwrap();
    assert_eq!(hand.events(), [Event::Writable(id)]);
    hand.hear();
    assert_eq!(hand.events(), [], "once");
    assert_eq!(hand.write(id, &[7; 1 << 20]), Ok(Some(QUEUE)));
}

#[test]
fn a_writer_that_waits_for_the_bound_is_not_woken_by_its_queue() {
    let config = SessionConfig { send_bound: 512 * KIB, ..SessionConfig::default() };
    let mut hand = Hand::with(Role::Server, config, Bounds::default());
    let id = hand.open();
    write_all(&mut hand, id, 256 * KIB - QUEUE);
    hand.hear();
    assert!(hand.write(id, &[7; 300 * KIB]).unwrap().unwrap() < QUEUE);
    assert_eq!(hand.write(id, b"x"), Ok(None));
    hand.hear();
    assert_eq!(hand.events(), []);
    hand.say_apart(&[]).unwrap();
    assert_eq!(hand.events(), [Event::Writable(id)]);
}

#[test]
fn writers_are_woken_when_there_is_room_worth_it() {
    let mut bounds = Bounds::default();
    bounds.max_message = 1024;
    let mut hand =
        Hand::with(Role::Server, SessionConfig { send_bound: 512 * KIB, ..SessionConfig::default() }, bounds);
    let id = hand.open();
    let acked = hand.heard;
    while hand.write(id, &[7; KIB]).unwrap().is_some() {
        hand.hear();
    }
    let heard = std::mem::replace(&mut hand.heard, acked + 40);
    hand.say_apart(&[]).unwrap();
    assert_eq!(hand.events(), []);
    assert_eq!(hand.write(id, b"x"), Ok(None), "and until then it is nobody's");
    hand.heard = heard;
    hand.say_apart(&[]).unwrap();
    assert_eq!(hand.events(), [Event::Writable(id)]);
}

#[test]
fn a_writer_without_credit_is_not_woken_by_its_queue() {
    let mut hand = Hand::new(Role::Server);
    let id = hand.open();
    write_all(&mut hand, id, 256 * KIB);
    assert_eq!(hand.write(id, b"x"), Ok(None));
    assert!(carried(&hand.hear(), id) > 0);
    assert_eq!(hand.events(), []);
}

#[test]
fn a_reset_gives_its_room_to_parked_writers() {
    let bound = 512 * KIB;
    let config = SessionConfig { send_bound: bound, ..SessionConfig::default() };
    for stopped in [false, true] {
        let mut hand = Hand::with(Role::Server, config.clone(), Bounds::default());
        let full = [(); 4].map(|()| hand.open());
        let (two, three) = (hand.open(), hand.open());
        hand.session.link_down(hand.now);
        let taken: usize = full.iter().map(|id| hand.write(*id, &[7; 1 << 20]).unwrap().unwrap()).sum();
        assert!(taken > 250 * KIB, "{taken}");
        assert_eq!(hand.write(two, b"x"), Ok(None));
        assert_eq!(hand.write(three, b"x"), Ok(None));
        if stopped {
            hand.session.link_up(hand.now, hand.heard).unwrap();
            hand.say(&full.map(|stream| Frame::Stop { stream, code: ResetCode::CANCELLED })).unwrap();
        } else {
            for id in full {
                hand.session.reset(id, ResetCode::CANCELLED, "");
            }
        }
        let woken: Vec<_> = hand.events().into_iter().filter(|event| matches!(event, Event::Writable(_))).collect();
        assert_eq!(woken, [Event::Writable(two), Event::Writable(three)]);
        assert_eq!(hand.write(two, b"x"), Ok(Some(1)));
    }
}

#[test]
fn order_is_kept_and_bytes_are_counted() {
    let mut hand = Hand::new(Role::Server);
    let id = hand.open();
    hand.say(&[data(id, *b"ab"), data(id, vec![b'c'; 2000]), data(id, *b"d")]).unwrap();
    assert_eq!(hand.session.stats().unread_bytes, 2003);
    let mut all = Vec::new();
    while let Ok(Read::Bytes(bytes)) = hand.session.recv(id).unwrap().read(7) {
        assert!((1..=7).contains(&bytes.len()));
        all.extend(bytes);
    }
    assert_eq!(all, [&b"ab"[..], &[b'c'; 2000], b"d"].concat());
    hand.write(id, b"abc").unwrap();
    hand.hear();
    let stats = hand.session.stats();
    assert_eq!((stats.unread_bytes, stats.received_bytes, stats.sent_bytes), (0, 2003, 3));
}

//! Links that come and go: replay, acks, deadlines, drains and ends.

use std::time::Duration;

use bytes::Bytes;
use revdial::{
    frame::{Bounds, CloseCode, Frame, Metadata, ResetCode, decode},
    proto::{DeadCause, Event, OpenError, Opened, Read, Role, Session, SessionConfig, SessionEnd, StreamError},
};

use crate::hand::{Hand, ROLES, carried, data, frames, message, open_frame};

const KIB: usize = 1024;

fn numbers(messages: &[Bytes]) -> Vec<u64> {
    messages.iter().map(|message| decode(message.clone()).unwrap().0.number).filter(|number| *number > 0).collect()
}

fn drain_frame(code: CloseCode) -> Frame {
    Frame::Drain { code, deadline_ms: 30_000, jitter_ms: 5_000, reason: "why".to_owned() }
}

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

/// Opens a stream and writes until the bound is reached, and gives the stream, whose writer found no room.
fn fill(hand: &mut Hand) -> revdial::frame::StreamId {
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
fn a_word_about_a_link_that_is_gone_is_not_taken_for_one_about_the_next() {
    let mut hand = Hand::new(Role::Agent);
    hand.advance(Duration::from_secs(45));
    hand.session.link_up(hand.now, 0).unwrap();
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

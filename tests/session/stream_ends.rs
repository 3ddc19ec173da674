//! How streams end: at their end, stopped, or reset.

use revdial::{
    frame::{CloseCode, ResetCode, StreamId},
    proto::{Event, Read, Role, StreamError},
};

use crate::{
    hand::{Hand, ROLES, data, id, open_frame},
    streams::{fin, reset, reset_error, stop},
};

#[test]
fn m28_m72_b34_data_of_no_byte_data_after_fin_and_a_final_size_that_does_not_match_are_violations() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let stream = hand.open();
        hand.say(&[data(stream, *b"abc"), fin(stream, 3)]).unwrap();
        assert_eq!(hand.say(&[fin(stream, 3)]), Ok(()), "the same again");
        let result = hand.say(&[data(stream, *b"d")]);
        hand.ended_by(result, CloseCode::FORBIDDEN);
        for size in [0, 2, 4, u64::MAX] {
            let mut hand = Hand::new(role);
            let stream = hand.open();
            let result = hand.say(&[data(stream, *b"abc"), fin(stream, size)]);
            hand.ended_by(result, CloseCode::FORBIDDEN);
            let mut hand = Hand::new(role);
            let stream = hand.open();
            let result = hand.say(&[data(stream, *b"abc"), fin(stream, 3), fin(stream, size)]);
            hand.ended_by(result, CloseCode::FORBIDDEN);
        }
        let mut hand = Hand::new(role);
        let stream = hand.open();
        let empty = empty_data(hand.said + 1, hand.heard, stream);
        let result = hand.session.handle_message(hand.now, empty);
        hand.ended_by(result, CloseCode::FORBIDDEN);
    }
}

/// A message with a DATA frame of no byte, which the codec does not make.
fn empty_data(number: u64, received: u64, stream: StreamId) -> Vec<u8> {
    let mut message = [number.to_be_bytes(), received.to_be_bytes()].concat();
    message.extend([0x12, 0, 0, 0]);
    message.extend(stream.number().to_be_bytes());
    message
}

#[test]
fn m73_fin_wakes_parked_reader_exactly_once() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let stream = hand.open();
        assert_eq!(hand.read(stream), Ok(Read::Blocked));
        hand.say(&[fin(stream, 0)]).unwrap();
        assert_eq!(hand.events(), [Event::Readable(stream)]);
        assert_eq!(hand.read(stream), Ok(Read::End));
        assert_eq!(hand.read(stream), Ok(Read::End));
        hand.say(&[fin(stream, 0)]).unwrap();
        assert_eq!(hand.events(), []);

        let stream = hand.open();
        assert_eq!(hand.read(stream), Ok(Read::Blocked));
        hand.say(&[data(stream, *b"a"), data(stream, *b"b"), fin(stream, 2)]).unwrap();
        assert_eq!(hand.events(), [Event::Readable(stream)], "with data before it, too");
        assert_eq!(hand.read(stream), Ok(Read::Bytes("ab".into())));
        assert_eq!(hand.read(stream), Ok(Read::End));
    }
}

#[test]
fn m74_after_stop_an_early_answer_is_read_before_the_writer_fails() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let stream = hand.open();
        hand.write(stream, b"sent").unwrap();
        hand.hear();
        hand.write(stream, &[7; 64 * 1024]).unwrap();
        assert_eq!(hand.write(stream, b"x"), Ok(None));
        hand.say(&[stop(stream), data(stream, *b"413")]).unwrap();
        assert_eq!(hand.events(), [Event::Stopped(stream), Event::Writable(stream)]);
        assert!(hand.session.is_stopped(stream));
        assert_eq!(hand.hear(), [fin(stream, 4)], "what it queued is dropped");
        for _ in 0..3 {
            assert_eq!(hand.write(stream, &[7; 1 << 20]), Ok(Some(1 << 20)), "swallowed");
        }
        hand.say(&[stop(stream), fin(stream, 3)]).unwrap();
        assert_eq!(hand.events(), [], "stopped once");
        assert_eq!(hand.write(stream, b"x"), Ok(Some(1)));
        assert_eq!(hand.read(stream), Ok(Read::Bytes("413".into())));
        assert_eq!(hand.write(stream, b"x"), Err(StreamError::Stopped(ResetCode::CANCELLED)));
        assert_eq!(hand.read(stream), Ok(Read::End));
        hand.session.detach(stream);
        assert_eq!(hand.session.stats().streams, 0);
        assert_eq!(hand.hear(), [], "both ends were said");
    }
}

#[test]
fn m74_stop_leaves_the_other_direction_alone_and_comes_too_late_for_an_end() {
    let mut hand = Hand::new(Role::Agent);
    let stream = hand.open();
    hand.write(stream, b"abc").unwrap();
    hand.finish(stream);
    hand.hear();
    hand.say(&[stop(stream)]).unwrap();
    assert_eq!(hand.hear(), []);
    assert_eq!(hand.write(stream, b"x"), Err(StreamError::Finished));
    hand.say(&[data(stream, *b"more"), fin(stream, 4)]).unwrap();
    assert_eq!(hand.read(stream), Ok(Read::Bytes("more".into())));
    assert_eq!(hand.read(stream), Ok(Read::End));
}

#[test]
fn m74_dropping_a_handle_delivers_what_was_written_then_the_end_and_stops_the_peer() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let stream = hand.open();
        hand.write(stream, b"abc").unwrap();
        hand.session.detach(stream);
        hand.session.detach(stream);
        assert_eq!(hand.hear(), [stop(stream), data(stream, *b"abc"), fin(stream, 3)]);
        hand.say(&[data(stream, [7; 1000])]).unwrap();
        assert_eq!(hand.session.stats().unread_bytes, 0, "what is on its way is dropped");
        hand.say(&[fin(stream, 1000)]).unwrap();
        assert_eq!(hand.session.stats().streams, 0);

        let stream = hand.open();
        hand.say(&[fin(stream, 0)]).unwrap();
        hand.session.detach(stream);
        assert_eq!(hand.hear(), [fin(stream, 0)], "a peer that has finished is not stopped");
        assert_eq!(hand.session.stats().streams, 0);
    }
}

#[test]
fn m74_stop_of_a_stream_without_data_ends_it_at_what_was_sent() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let stream = hand.open();
        hand.write(stream, b"abc").unwrap();
        hand.hear();
        hand.say(&[stop(stream)]).unwrap();
        assert_eq!(hand.hear(), [fin(stream, 3)]);
    }
}

#[test]
fn m74_a_peer_that_finishes_meanwhile_is_not_stopped() {
    let mut hand = Hand::new(Role::Server);
    let stream = hand.open();
    hand.session.detach(stream);
    hand.say(&[fin(stream, 0)]).unwrap();
    assert_eq!(hand.hear(), [fin(stream, 0)]);
    assert_eq!(hand.session.stats().streams, 0);
}

#[test]
fn m75_reset_destroys_nothing_that_arrived_and_is_not_answered() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let (cut, over) = (hand.open(), hand.open());
        hand.write(cut, &[7; 64 * 1024]).unwrap();
        assert_eq!(hand.write(cut, b"x"), Ok(None));
        assert_eq!(hand.read(over), Ok(Read::Blocked));
        hand.say(&[data(cut, *b"abc"), reset(cut, ResetCode::TARGET_RESET)]).unwrap();
        assert_eq!(hand.events(), [Event::Writable(cut), Event::Stopped(cut)]);
        assert_eq!(hand.write(cut, b"x"), Err(reset_error(ResetCode::TARGET_RESET)));
        assert_eq!(hand.session.send(cut).unwrap().finish(), Err(reset_error(ResetCode::TARGET_RESET)));
        assert_eq!(hand.read(cut), Ok(Read::Bytes("abc".into())));
        assert_eq!(hand.read(cut), Err(reset_error(ResetCode::TARGET_RESET)));
        hand.say(&[data(over, *b"abc"), fin(over, 3), reset(over, ResetCode::INTERNAL)]).unwrap();
        assert_eq!(hand.read(over), Ok(Read::Bytes("abc".into())));
        assert_eq!(hand.read(over), Ok(Read::End), "FIN came before");
        assert_eq!(hand.write(over, b"x"), Err(reset_error(ResetCode::INTERNAL)));
        hand.session.reset(cut, ResetCode::CANCELLED, "");
        hand.session.detach(over);
        assert_eq!(hand.hear(), []);
        assert_eq!(hand.session.stats().streams, 0);
    }
}

#[test]
fn m75_b47_a_reset_of_an_unknown_code_is_a_reset() {
    let mut hand = Hand::new(Role::Server);
    let stream = hand.open();
    hand.say(&[reset(stream, ResetCode::new(999))]).unwrap();
    assert_eq!(hand.read(stream), Err(reset_error(ResetCode::new(999))));
}

#[test]
fn m75_nothing_follows_a_reset_of_the_peer() {
    let mut hand = Hand::new(Role::Agent);
    let (taken, dropped) = (hand.open_only(), hand.open());
    hand.hear();
    hand.session.accept(taken).unwrap();
    hand.session.detach(dropped);
    hand.say(&[reset(taken, ResetCode::CANCELLED), reset(dropped, ResetCode::CANCELLED)]).unwrap();
    assert_eq!(hand.hear(), [], "neither ACCEPT nor STOP");
    assert_eq!(hand.session.stats().streams, 1, "one is held");
}

#[test]
fn nobody_is_told_of_a_stream_that_nobody_holds() {
    let mut hand = Hand::new(Role::Server);
    let stream = hand.open();
    assert_eq!(hand.read(stream), Ok(Read::Blocked));
    hand.session.detach(stream);
    hand.say(&[stop(stream), fin(stream, 0)]).unwrap();
    assert_eq!(hand.events(), []);
}

#[test]
fn m75_a_reset_that_crosses_another_leaves_once() {
    for role in ROLES {
        let mut hand = Hand::new(role);
        let stream = hand.open();
        hand.session.reset(stream, ResetCode::CANCELLED, "");
        hand.session.reset(stream, ResetCode::INTERNAL, "");
        hand.say(&[reset(stream, ResetCode::CANCELLED)]).unwrap();
        assert_eq!(hand.hear(), [], "both sides know");
        assert_eq!(hand.session.stats().streams, 0);

        let stream = hand.open();
        hand.session.detach(stream);
        hand.session.reset(stream, ResetCode::INTERNAL, "why");
        assert_eq!(hand.hear(), [reset(stream, ResetCode::INTERNAL)], "and says all there is to say");

        let stream = hand.open();
        hand.finish(stream);
        hand.hear();
        hand.say(&[fin(stream, 0)]).unwrap();
        hand.session.reset(stream, ResetCode::CANCELLED, "");
        assert_eq!(hand.hear(), [], "nothing is left to reset");
    }
}

#[test]
fn b48_a_reset_leaves_other_streams_alone() {
    let mut hand = Hand::new(Role::Server);
    let (one, two) = (hand.open(), hand.open());
    hand.write(one, b"dropped").unwrap();
    hand.write(two, b"sent").unwrap();
    hand.session.reset(one, ResetCode::INTERNAL, "why");
    assert_eq!(hand.hear(), [reset(one, ResetCode::INTERNAL), data(two, *b"sent")]);
    hand.say(&[data(two, *b"x")]).unwrap();
    assert_eq!(hand.read(two), Ok(Read::Bytes("x".into())));
}

#[test]
fn a_stream_that_is_reset_untaken_hides_none_behind_it() {
    let mut hand = Hand::new(Role::Agent);
    hand.say(&[open_frame(1), open_frame(2)]).unwrap();
    hand.session.reset(id(1), ResetCode::CANCELLED, "");
    hand.hear();
    assert_eq!(hand.session.incoming().unwrap().stream, id(2));
}

#[test]
fn a_reset_before_the_owner_took_a_stream_withdraws_it() {
    let mut hand = Hand::new(Role::Agent);
    hand.say(&[open_frame(1), open_frame(2), data(id(1), *b"x"), reset(id(1), ResetCode::CANCELLED)]).unwrap();
    assert_eq!(hand.session.incoming().unwrap().stream, id(2));
    assert_eq!(hand.session.incoming(), None);
    assert_eq!((hand.session.stats().streams, hand.session.stats().unread_bytes), (1, 0));
    hand.say(&[reset(id(2), ResetCode::CANCELLED)]).unwrap();
    assert_eq!(hand.session.accept(id(2)), Err(reset_error(ResetCode::CANCELLED)));
    assert_eq!(hand.session.stats().streams, 0);
}

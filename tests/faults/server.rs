//! Frames by which an agent ends its session.

use bytes::Bytes;
use revdial::{
    ErrorKind,
    frame::{CloseCode, Frame, MAX_MESSAGE, Metadata, ResetCode},
    proto::SessionConfig,
};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    Live, closing, data, id, message, message_of,
    raw::hello,
    support::{end, key},
};

#[tokio::test(start_paused = true)]
async fn b23_a_text_message_ends_the_session_with_1003() {
    let mut live = Live::new().await;
    live.send(Message::text("hi")).await;
    live.ends(CloseCode::TEXT).await;
}

#[tokio::test(start_paused = true)]
async fn b24_a_message_over_the_limit_ends_the_session_with_1009() {
    let mut live = Live::new().await;
    live.send(Message::Binary(Bytes::from(vec![0; MAX_MESSAGE + 1]))).await;
    live.ends(CloseCode::TOO_BIG).await;
}

#[tokio::test(start_paused = true)]
async fn b25_what_does_not_parse_ends_the_session_with_1002() {
    // Cut short; a length beyond the message; a PING of another length than it has; bytes behind the last frame.
    for bytes in [
        &[0x05, 0, 0][..],
        &[0x12, 0, 0, 9, 0, 0, 0, 1, 7],
        &[0x05, 0, 0, 1, 0, 0, 0, 0, 7],
        &[0x80, 0, 0, 0, 0, 0, 0, 0, 1],
    ] {
        let mut live = Live::new().await;
        live.send(message_of(0, 0, bytes)).await;
        live.ends(CloseCode::MALFORMED).await;
    }
    let mut live = Live::new().await;
    live.send(Message::Binary(Bytes::from_static(b"no head"))).await;
    live.ends(CloseCode::MALFORMED).await;
}

#[tokio::test(start_paused = true)]
async fn b26_an_unknown_frame_below_0x80_ends_the_session_with_4420() {
    let mut live = Live::new().await;
    live.say(&[Frame::Unknown { kind: 0x7f }]).await;
    live.ends(CloseCode::FORBIDDEN).await;
}

#[tokio::test(start_paused = true)]
async fn b29_an_open_of_the_agents_ends_the_session_with_4420() {
    let mut live = Live::new().await;
    let (target, metadata) = (key().as_str().parse().unwrap(), Metadata::default());
    live.say(&[Frame::Open { stream: id(9), credit: 1 << 16, target, metadata }]).await;
    live.ends(CloseCode::FORBIDDEN).await;
}

#[tokio::test(start_paused = true)]
async fn b32_a_frame_of_a_stream_that_never_was_ends_the_session_with_4420() {
    let stream = id(99);
    for frame in [
        data(stream, *b"x"),
        Frame::Accept { stream, credit: 1 << 16 },
        Frame::Credit { stream, offset: 1 << 16 },
        Frame::Fin { stream, final_size: 0 },
        Frame::Stop { stream, code: ResetCode::CANCELLED },
        Frame::Reset { stream, code: ResetCode::CANCELLED, reason: String::new() },
    ] {
        let mut live = Live::new().await;
        live.say(&[frame]).await;
        live.ends(CloseCode::FORBIDDEN).await;
    }
}

#[tokio::test(start_paused = true)]
async fn b34_empty_data_data_behind_the_end_and_a_final_size_that_is_none_end_the_session_with_4420() {
    let mut live = Live::new().await;
    let empty = [&[0x12, 0, 0, 0], &live.id.number().to_be_bytes()[..]].concat();
    live.send(message_of(live.next(), 0, &empty)).await;
    live.ends(CloseCode::FORBIDDEN).await;

    let mut live = Live::new().await;
    let stream = live.id;
    live.say(&[data(stream, *b"abc"), Frame::Fin { stream, final_size: 3 }, data(stream, *b"d")]).await;
    assert_eq!(closing(&mut live.agent).await, CloseCode::FORBIDDEN);
    live.stream.read_exact(&mut [0; 3]).await.unwrap();
    assert_eq!(end(&mut live.stream).await, None, "the end was told before");

    for final_size in [0, 2, 4, u64::MAX] {
        let mut live = Live::new().await;
        let stream = live.id;
        live.say(&[data(stream, *b"abc"), Frame::Fin { stream, final_size }]).await;
        // What arrived is read before the error.
        live.stream.read_exact(&mut [0; 3]).await.unwrap();
        live.ends(CloseCode::FORBIDDEN).await;
    }
}

#[tokio::test(start_paused = true)]
async fn b35_a_number_beyond_the_next_ends_the_session_with_4420() {
    let mut live = Live::new().await;
    live.send(message(live.next() + 1, 0, &[data(live.id, *b"x")])).await;
    live.ends(CloseCode::FORBIDDEN).await;
}

#[tokio::test(start_paused = true)]
async fn b37_frames_in_messages_of_the_wrong_sort_end_the_session_with_4420() {
    let close = Frame::Close { code: CloseCode::NORMAL, reason: String::new() };
    for frame in [close, Frame::Hello(hello(1)), Frame::Ping([0; 8])] {
        let mut live = Live::new().await;
        live.send(message(live.next(), 0, &[frame])).await;
        live.ends(CloseCode::FORBIDDEN).await;
    }
    let mut live = Live::new().await;
    live.send(message(0, 0, &[data(live.id, *b"x")])).await;
    live.ends(CloseCode::FORBIDDEN).await;
}

#[tokio::test(start_paused = true)]
async fn b38_data_beyond_the_credit_ends_the_session_with_4421() {
    let mut live = Live::new().await;
    // Nobody reads: the first window is all that it has.
    let SessionConfig { base_credit, lent_credit, .. } = SessionConfig::default();
    let window = (base_credit + lent_credit) as usize;
    let full = 32 * 1024;
    for _ in 0..window / full {
        live.agent.send(data(live.id, vec![7; full])).await;
    }
    live.agent.send(data(live.id, *b"x")).await;
    assert_eq!(closing(&mut live.agent).await, CloseCode::CREDIT);
    // What was within the credit is read before the error.
    live.stream.read_exact(&mut vec![0; window]).await.unwrap();
    assert_eq!(end(&mut live.stream).await, Some(ErrorKind::Protocol));
    assert_eq!(live.world.counted.sum("revdial_protocol_errors_total{4421}"), 1);
}

#[tokio::test(start_paused = true)]
async fn b39_more_received_than_was_sent_ends_the_session_with_4420() {
    for received in [1000, u64::MAX] {
        let mut live = Live::new().await;
        live.send(message(0, received, &[])).await;
        live.ends(CloseCode::FORBIDDEN).await;
    }
}

#[tokio::test(start_paused = true)]
async fn b41_credit_above_what_was_announced_ends_the_session_with_4420() {
    let mut live = Live::new().await;
    live.say(&[Frame::Credit { stream: live.id, offset: u64::MAX }]).await;
    live.ends(CloseCode::FORBIDDEN).await;
}

#[tokio::test(start_paused = true)]
async fn b43_a_flood_of_tiny_frames_ends_the_session_with_4429() {
    let mut live = Live::of(SessionConfig { tiny_frames: 300, ..SessionConfig::default() }).await;
    let tiny = vec![data(live.id, *b"x"); 301];
    live.say(&tiny).await;
    live.stream.read_exact(&mut [0; 301]).await.unwrap();
    live.ends(CloseCode::FLOOD).await;
}

#[tokio::test(start_paused = true)]
async fn b45_a_flood_of_resets_ends_the_session_with_4429() {
    let mut live = Live::of(SessionConfig { resets_per_second: 10, ..SessionConfig::default() }).await;
    let (past, stream) = crate::open(&live.world, &mut live.agent).await;
    drop(stream);
    let reset = Frame::Reset { stream: past, code: ResetCode::CANCELLED, reason: String::new() };
    live.say(&vec![reset; 60]).await;
    live.ends(CloseCode::FLOOD).await;
}

#[tokio::test(start_paused = true)]
async fn b45_by_default_five_thousand_resets_at_once_are_borne_and_more_are_a_flood() {
    let mut live = Live::new().await;
    let (past, stream) = crate::open(&live.world, &mut live.agent).await;
    drop(stream);
    let resets = |n| vec![Frame::Reset { stream: past, code: ResetCode::CANCELLED, reason: String::new() }; n];
    for _ in 0..5 {
        live.say(&resets(1000)).await;
    }
    live.lives().await;
    live.say(&resets(1000)).await;
    live.ends(CloseCode::FLOOD).await;
}

#[tokio::test(start_paused = true)]
async fn b46_a_second_accept_ends_the_session_with_4420() {
    let mut live = Live::new().await;
    live.say(&[Frame::Accept { stream: live.id, credit: 1 << 17 }]).await;
    live.ends(CloseCode::FORBIDDEN).await;
}

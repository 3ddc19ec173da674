//! Frames that a session bears: ignored and counted, or the matter of one stream, until they are a flood.

use std::time::Duration;

use revdial::{
    ErrorKind, TargetName,
    frame::{CloseCode, Frame, ResetCode},
    proto::SessionConfig,
    proxy::status_of,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use crate::{
    Live, closing, data, message,
    raw::Arrived,
    support::{World, end, key, talk, until, write_end},
};

#[tokio::test(start_paused = true)]
async fn b27_unknown_frames_from_0x80_on_are_skipped_and_counted_until_they_are_a_flood() {
    let mut live = Live::new().await;
    let unknown = Frame::Unknown { kind: 0x80 };
    live.say(&vec![unknown.clone(); 1000]).await;
    live.lives().await;
    let counted = |live: &Live| live.world.counted.sum("revdial_unknown_frames_total");
    until("counted", || counted(&live) == 1000).await;
    live.say(&vec![unknown; 100]).await;
    live.ends(CloseCode::FLOOD).await;
}

#[tokio::test(start_paused = true)]
async fn b33_frames_of_a_past_stream_are_ignored_and_counted() {
    let mut live = Live::new().await;
    let stream = live.id;
    live.say(&[Frame::Reset { stream, code: ResetCode::TARGET_RESET, reason: String::new() }]).await;
    assert_eq!(end(&mut live.stream).await, Some(ErrorKind::PeerReset));
    drop(std::mem::replace(&mut live.stream, crate::open(&live.world, &mut live.agent).await.1));
    let late = [data(stream, *b"x"), Frame::Credit { stream, offset: 1 }, Frame::Fin { stream, final_size: 1 }];
    live.say(&late).await;
    live.lives().await;
    until("counted", || live.world.counted.sum("revdial_late_frames_total") == 3).await;
}

#[tokio::test(start_paused = true)]
async fn b36_a_message_that_came_before_is_ignored_whole_and_counted() {
    let mut live = Live::new().await;
    live.agent.send(data(live.id, *b"x")).await;
    assert_eq!(live.stream.read_u8().await.unwrap(), b'x');
    let (sent, received) = live.agent.counts();
    // Another word under an old number, and what would be a violation under the next one.
    for frame in [data(live.id, *b"y"), Frame::Accept { stream: live.id, credit: 1 << 17 }] {
        live.send(message(sent, received, &[frame])).await;
    }
    live.agent.send(data(live.id, *b"z")).await;
    assert_eq!(live.stream.read_u8().await.unwrap(), b'z');
    until("counted", || live.world.counted.sum("revdial_duplicate_messages_total") == 2).await;
    live.lives().await;
}

#[tokio::test(start_paused = true)]
async fn b40_acks_that_go_backwards_and_lower_credit_are_ignored_and_counted() {
    let mut live = Live::new().await;
    let (_, received) = live.agent.counts();
    assert!(received > 0, "it has had an OPEN");
    let word = b"as much as the first credit allows";
    live.send(message(0, received, &[])).await;
    live.send(message(0, 0, &[])).await;
    live.send(message(0, received - 1, &[Frame::Pong([0; 8])])).await;
    live.agent.send(Frame::Credit { stream: live.id, offset: 1 }).await;
    AsyncWriteExt::write_all(&mut live.stream, word).await.unwrap();
    let arrived = live.agent.recv().await;
    assert!(matches!(&arrived, Arrived::Frames(_, frames) if frames[..] == [data(live.id, *word)]), "{arrived:?}");
    live.lives().await;
    until("counted", || live.world.counted.sum("revdial_stale_acks_total") == 3).await;
}

#[tokio::test(start_paused = true)]
async fn b42_a_peer_that_never_acks_bounds_memory_and_loses_its_link() {
    let mut live = Live::new().await;
    live.agent.send(Frame::Credit { stream: live.id, offset: 8 << 20 }).await;
    let start = Instant::now();
    let mut writer = std::mem::replace(&mut live.stream, crate::open(&live.world, &mut live.agent).await.1);
    let writing = tokio::spawn(async move {
        let mut written = 0;
        loop {
            match timeout(Duration::from_secs(60), AsyncWriteExt::write(&mut writer, &[7; 64 * 1024])).await {
                Ok(taken) => written += taken.unwrap(),
                Err(_) => return (written, writer),
            }
        }
    });
    // It takes all and acks nothing: its PONGs say what they said in the beginning.
    let closed = loop {
        match live.agent.recv().await {
            Arrived::Closed(code) => break code,
            Arrived::Frames(..) => {}
        }
    };
    assert_eq!(closed, Some(CloseCode::DEAD_PEER));
    assert_eq!(start.elapsed().as_secs(), 45, "the dead-peer time");
    let (written, writer) = writing.await.unwrap();
    assert!((4 << 20..=8 << 20).contains(&written), "{written}");
    // It never came back: what was taken of its writer is lost, and the writer is told.
    let (mut written_to, over) = (writer, start + Duration::from_secs(45 + 30));
    assert_eq!(write_end(&mut written_to).await, ErrorKind::SessionLost);
    assert!(Instant::now() >= over, "{:?}", start.elapsed());
    assert_eq!(end(&mut written_to).await, Some(ErrorKind::SessionLost));
    assert_eq!(live.world.connman.stats().grace_period_entries, 0);
    drop(written_to);
    let counted = &live.world.counted;
    assert_eq!(counted.sum("revdial_dead_peer_total"), 1);
    let blocked = counted.sum("revdial_flow_blocked_seconds_total");
    assert!((74..=76).contains(&blocked), "{blocked}");
}

#[tokio::test(start_paused = true)]
async fn b44_pings_at_once_are_one_pong_and_a_flood_of_them_ends_the_session_with_4429() {
    let mut live = Live::new().await;
    let ping = |n: u8| Frame::Ping([n; 8]);
    live.say(&(0..50).map(ping).collect::<Vec<_>>()).await;
    let pongs = loop {
        match live.agent.recv().await {
            Arrived::Frames(_, frames) if frames.iter().any(|frame| matches!(frame, Frame::Pong(_))) => break frames,
            Arrived::Frames(..) => {}
            closed => panic!("{closed:?}"),
        }
    };
    assert_eq!(pongs, [Frame::Pong([49; 8])]);
    live.say(&(0..60).map(ping).collect::<Vec<_>>()).await;
    live.ends(CloseCode::FLOOD).await;
}

#[tokio::test(start_paused = true)]
async fn b46_an_accept_for_an_open_that_was_given_up_is_ignored_and_counted() {
    let mut live = Live::new().await;
    let dial = live.world.connman.dial(&key(), &TargetName::default()).timeout(Duration::from_secs(1));
    let dial = tokio::spawn(dial);
    let (stream, _) = live.agent.opened().await;
    assert_eq!(dial.await.unwrap().unwrap_err().kind(), ErrorKind::DialTimeout);
    let told = live.agent.recv().await;
    assert!(matches!(&told, Arrived::Frames(_, frames) if matches!(frames[..], [Frame::Reset { .. }])), "{told:?}");
    live.agent.send(Frame::Accept { stream, credit: 1 << 16 }).await;
    live.lives().await;
    until("counted", || live.world.counted.sum("revdial_late_frames_total") == 1).await;
}

#[tokio::test(start_paused = true)]
async fn b47_a_reset_of_an_unknown_code_is_a_reset_of_that_stream() {
    let mut live = Live::new().await;
    live.agent.send(Frame::Reset { stream: live.id, code: ResetCode::new(9999), reason: "why".into() }).await;
    let error = live.stream.read_u8().await.unwrap_err();
    let error = revdial::Error::find(&error).unwrap();
    assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::PeerReset, false));
    live.lives().await;
    drop(live.stream);
    assert_eq!(live.world.counted.sum("revdial_streams_errors_total{peer_reset}"), 1);
}

#[tokio::test(start_paused = true)]
async fn b48_a_handler_that_panics_resets_its_stream_and_no_other() {
    let world = World::new();
    let mut agent = world.agent().await;
    let (mut other, mut others) = world.pair(&mut agent).await;
    let (mut here, there) = world.pair(&mut agent).await;
    let panicked = tokio::spawn(async move {
        let _stream = there;
        panic!("as a handler may");
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert_eq!(end(&mut here).await, Some(ErrorKind::PeerReset));
    assert_eq!(status_of(ErrorKind::PeerReset), 502);
    talk((&mut other, &mut others)).await;
    drop(here);
    assert_eq!(world.counted.sum("revdial_streams_errors_total{peer_reset}"), 1);
    assert_eq!(world.counted.sum("revdial_streams_total{reset}"), 1, "as the agent has it");
}

#[tokio::test(start_paused = true)]
async fn b83_a_reader_that_is_slow_holds_up_its_writer_and_no_other() {
    let world = World::new();
    let mut agent = world.agent().await;
    let (mut here, there) = world.pair(&mut agent).await;
    let (mut other, mut others) = world.pair(&mut agent).await;
    let mut written = 0;
    while let Ok(taken) = timeout(Duration::from_secs(10), AsyncWriteExt::write(&mut here, &[7; 16 * 1024])).await {
        written += taken.unwrap();
    }
    let SessionConfig { base_credit, lent_credit, .. } = SessionConfig::default();
    assert_eq!(written, (base_credit + lent_credit) as usize, "its credit, and no more");
    talk((&mut other, &mut others)).await;
    drop((here, there));
    sleep(Duration::from_secs(1)).await;
    assert!((9..=11).contains(&world.counted.sum("revdial_flow_blocked_seconds_total")));
}

#[tokio::test(start_paused = true)]
async fn a_violation_is_told_to_who_broke_the_rule_alone() {
    let mut live = Live::new().await;
    let bystander = World::new();
    let mut agent = bystander.agent().await;
    live.say(&[Frame::Unknown { kind: 0x01 + 0x40 }]).await;
    assert_eq!(closing(&mut live.agent).await, CloseCode::FORBIDDEN);
    let (mut here, mut there) = bystander.pair(&mut agent).await;
    talk((&mut here, &mut there)).await;
}

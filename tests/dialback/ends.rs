//! How dial-back streams end: what can be told of an end, and who ends them with the tunnel.

use std::{io, time::Duration};

use http::request::Parts;
use revdial::{Error, ErrorKind, TargetName, TunnelStream, connman::ConnectionManager, frame::CloseCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

use crate::{
    classic::{Arrived, Peer, soon},
    until,
    world::{Ours, Pipe, Server, by_name, ends, hear, opened, say},
};

/// The error of the next read.
async fn fails(stream: &mut TunnelStream) -> (io::ErrorKind, ErrorKind) {
    let error = soon(stream.read(&mut [0; 8])).await.expect_err("an error");
    (error.kind(), Error::find(&error).expect("an error of ours").kind())
}

/// The stream's connection ends by a close frame, which no peer takes for the end of a stream.
async fn is_broken_off(there: &mut Pipe) {
    there.closed_with(CloseCode::INTERNAL.number()).await;
}

#[tokio::test(start_paused = true)]
async fn an_end_cannot_be_told_from_a_loss_which_is_an_error_for_who_asks() {
    for (strict_manager, strict_dial) in [(false, None), (false, Some(true)), (true, None), (true, Some(false))] {
        let server = Server::of(ConnectionManager::builder().strict_eof(strict_manager), by_name);
        let mut control = server.control().await;
        let dial = server.connman.dial(&"a".parse().unwrap(), &TargetName::default());
        let dial = strict_dial.into_iter().fold(dial, |dial, strict| dial.strict_eof(strict));
        let dialled = tokio::spawn(dial);
        let mut there = server.pick_up(&control.conn_ready().await).await;
        let mut here = opened(dialled).await;
        assert!(!here.eof_is_verified());
        there.say("all").await;
        there.finish().await;
        hear(&mut here, b"all").await;
        if strict_dial.unwrap_or(strict_manager) {
            for _ in 0..2 {
                assert_eq!(fails(&mut here).await.1, ErrorKind::SessionLost);
            }
        } else {
            ends(&mut here).await;
            ends(&mut here).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_in_order_is_one_also_for_who_is_strict_and_another_close_is_an_error_for_all() {
    for (code, clean) in [(1000_u16, true), (1011, false), (4410, false)] {
        let server = Server::of(ConnectionManager::builder().strict_eof(true), by_name);
        let mut control = server.control().await;
        let (mut here, mut there) = server.joined(&mut control).await;
        there.say("all").await;
        there.send(8, code.to_be_bytes()).await;
        hear(&mut here, b"all").await;
        if clean {
            ends(&mut here).await;
        } else {
            for _ in 0..2 {
                assert_eq!(fails(&mut here).await, (io::ErrorKind::ConnectionReset, ErrorKind::PeerReset));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn b73_only_the_default_target_can_be_asked_for() {
    let server = Server::new();
    let mut control = server.control().await;
    let error = server.connman.dial(&"a".parse().unwrap(), &"vnc".parse().unwrap()).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::TargetUnknown, true));
    server.works(&mut control).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_delivers_what_was_written_and_ends_and_one_that_is_reset_is_no_end() {
    let server = Server::new();
    let mut control = server.control().await;
    let (mut here, mut there) = server.joined(&mut control).await;
    there.say("never read").await;
    // More than the pipe between them holds.
    say(&mut here, &[7; 300_000]).await;
    drop(here);
    assert_eq!(there.bytes(300_000).await, [7; 300_000]);
    assert_eq!(there.next().await, Arrived::End);

    let (mut here, mut there) = server.joined(&mut control).await;
    say(&mut here, b"part").await;
    here.reset();
    assert_eq!(there.bytes(4).await, b"part");
    is_broken_off(&mut there).await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_here_leaves_the_answer_its_way() {
    let server = Server::new();
    let mut control = server.control().await;
    let (mut here, mut there) = server.joined(&mut control).await;
    say(&mut here, b"question").await;
    AsyncWriteExt::shutdown(&mut here).await.unwrap();
    assert_eq!(there.bytes(8).await, b"question");
    // The deployed agents would take the end of this direction for that of both.
    assert!(timeout(Duration::from_secs(10), there.frame()).await.is_err());
    there.say("answer").await;
    hear(&mut here, b"answer").await;
    let error = AsyncWriteExt::write_all(&mut here, b"more").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    there.finish().await;
    ends(&mut here).await;
    drop(here);
    assert_eq!(there.next().await, Arrived::End);
}

#[tokio::test(start_paused = true)]
async fn the_agents_half_can_end_first() {
    let mut ours = Ours::with(|mut listener| async move {
        let mut stream = listener.accept().await.unwrap();
        AsyncWriteExt::write_all(&mut stream, b"said").await.unwrap();
        AsyncWriteExt::shutdown(&mut stream).await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"heard");
    });
    let mut control = ours.control().await;
    let mut there = ours.dial(&mut control).await;
    assert_eq!(there.bytes(4).await, b"said");
    assert_eq!(there.next().await, Arrived::End);
    there.say("heard").await;
    there.finish().await;
    ours.connected().await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_ends_streams_also_those_of_earlier_control_connections() {
    let server = Server::new();
    let mut control = server.control().await;
    let (mut first, mut first_there) = server.joined(&mut control).await;
    drop(control);
    server.in_grace().await;
    let mut control = server.control().await;
    let (mut second, mut second_there) = server.joined(&mut control).await;
    // So that the first control connection's task is over.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let revoked = Instant::now();
    assert!(server.connman.disconnect(&"a".parse().unwrap()));
    // Nobody polls the streams meanwhile.
    is_broken_off(&mut first_there).await;
    is_broken_off(&mut second_there).await;
    control.closed_with(CloseCode::CREDENTIALS.number()).await;
    for stream in [&mut first, &mut second] {
        assert_eq!(fails(stream).await.1, ErrorKind::SessionLost);
    }
    assert!(revoked.elapsed() < Duration::from_secs(1), "{:?}", revoked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_streams_finish_in_its_time_and_no_longer() {
    for (finishes_after, in_time) in [(3, true), (10, false)] {
        let server = Server::new();
        let mut control = server.control().await;
        let (mut here, mut there) = server.joined(&mut control).await;
        let connman = server.connman.clone();
        let asked = Instant::now();
        let drain = tokio::spawn(async move { connman.drain(Duration::from_secs(5)).await });
        control.closed_with(CloseCode::RESTART.number()).await;
        assert!(asked.elapsed() < Duration::from_secs(1));
        say(&mut here, b"still").await;
        assert_eq!(there.bytes(5).await, b"still");
        let over = timeout(Duration::from_secs(finishes_after), here.read(&mut [0; 8])).await;
        if in_time {
            assert!(over.is_err(), "ended before its time: {over:?}");
            drop(here);
            assert_eq!(there.next().await, Arrived::End);
            drop(there);
        } else {
            let error = over.expect("cut at the deadline").expect_err("no end");
            assert_eq!(Error::find(&error).unwrap().kind(), ErrorKind::Shutdown);
            assert_eq!(asked.elapsed().as_secs(), 5);
        }
        soon(drain).await.unwrap();
        assert_eq!(asked.elapsed().as_secs(), if in_time { 3 } else { 5 });
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_told_to_stop_lets_streams_finish_in_its_time_and_breaks_the_rest_off() {
    for (finishes, taken) in [(true, 2), (false, 5)] {
        let mut ours = Ours::echoing();
        let mut control = ours.control().await;
        let mut there = ours.dial(&mut control).await;
        there.say("?").await;
        assert_eq!(there.bytes(1).await, b"?");
        let asked = Instant::now();
        ours.shutdown.shutdown(Duration::from_secs(5));
        control.closed_with(CloseCode::DRAINED.number()).await;
        there.say("still").await;
        assert_eq!(there.bytes(5).await, b"still");
        if finishes {
            tokio::time::sleep(Duration::from_secs(2)).await;
            there.finish().await;
            assert_eq!(there.next().await, Arrived::End);
        } else {
            is_broken_off(&mut there).await;
        }
        drop(there);
        until("the agent has ended", || ours.run.is_finished()).await;
        assert_eq!(asked.elapsed().as_secs(), taken);
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_ends_leaves_no_pick_up_under_way() {
    let mut ours = Ours::echoing();
    let mut control = ours.control().await;
    let path = ours.path();
    control.say_ready(&path).await;
    let (mut unanswered, _) = Peer::asked(ours.connects().await).await;
    let asked = Instant::now();
    ours.shutdown.shutdown(Duration::ZERO);
    control.closed_with(CloseCode::DRAINED.number()).await;
    assert_eq!(unanswered.next().await, Arrived::End);
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

/// Before the server has noticed that the earlier control connection is dead.
#[tokio::test(start_paused = true)]
async fn streams_of_an_agent_that_comes_back_early_go_on() {
    let server = Server::new();
    let mut earlier = server.control().await;
    let (mut here, mut there) = server.joined(&mut earlier).await;
    let mut control = server.control().await;
    earlier.closed_with(CloseCode::REPLACED.number()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    say(&mut here, b"still").await;
    assert_eq!(there.bytes(5).await, b"still");
    server.works(&mut control).await;
}

#[tokio::test(start_paused = true)]
async fn credentials_that_expire_end_streams_also_without_a_control_connection() {
    let for_ten_seconds = |parts: &Parts| by_name(parts).map(|grant| grant.expires_in(Duration::from_secs(10)));
    for loses_control in [false, true] {
        let server = Server::of(ConnectionManager::builder(), for_ten_seconds);
        let granted = Instant::now();
        let mut control = server.control().await;
        let (mut here, mut there) = server.joined(&mut control).await;
        if loses_control {
            drop(control);
            server.in_grace().await;
        }
        is_broken_off(&mut there).await;
        assert_eq!(granted.elapsed().as_secs(), 10);
        assert_eq!(fails(&mut here).await.1, ErrorKind::SessionLost);
    }
}

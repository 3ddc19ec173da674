use std::{
    io::ErrorKind as IoKind,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::poll_fn;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{Pair, Wakes, drain, fill, idle, open, open_early};
use crate::{
    error::{Error, ErrorKind},
    frame::{CloseCode, ResetCode},
    mux::MuxStream,
    proto::{SessionConfig, SessionEnd},
};

fn poll_read(stream: &mut MuxStream, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
    let mut buffer = [0; 1024];
    let mut buffer = ReadBuf::new(&mut buffer);
    Pin::new(stream).poll_read(cx, &mut buffer).map_ok(|()| buffer.filled().len())
}

/// Writes until there is no room, and leaves the waker there.
fn fill_up(stream: &mut MuxStream, cx: &mut Context<'_>) -> usize {
    let mut written = 0;
    while let Poll::Ready(n) = Pin::new(&mut *stream).poll_write(cx, &[7; 8192]) {
        written += n.unwrap();
    }
    written
}

fn kind(error: &std::io::Error) -> Option<ErrorKind> {
    Error::find(error).map(Error::kind)
}

#[tokio::test(start_paused = true)]
async fn fin_wakes_parked_reader_exactly_once() {
    let pair = Pair::new();
    let (mut near, mut far) = pair.stream().await;
    let (wakes, waker) = Wakes::new();
    let mut cx = Context::from_waker(&waker);
    assert!(poll_read(&mut near, &mut cx).is_pending());
    idle().await;
    assert_eq!(wakes.count(), 0);
    far.shutdown().await.unwrap();
    idle().await;
    assert_eq!(wakes.count(), 1);
    assert!(matches!(poll_read(&mut near, &mut cx), Poll::Ready(Ok(0))));
    near.write_all(b"still open this way").await.unwrap();
    idle().await;
    assert_eq!(wakes.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn credit_arriving_while_parking_wakes_writer() {
    let pair = Pair::new();
    let (mut near, mut far) = pair.stream().await;
    let (wakes, waker) = Wakes::new();
    let mut cx = Context::from_waker(&waker);
    // Until the window is spent, not only the queue full.
    let mut written = 0;
    loop {
        let more = fill_up(&mut near, &mut cx);
        written += more;
        idle().await;
        if more == 0 {
            break;
        }
    }
    let before = wakes.count();
    let mut buffer = vec![0; written];
    far.read_exact(&mut buffer).await.unwrap();
    idle().await;
    assert_eq!(wakes.count(), before + 1);
    assert!(fill_up(&mut near, &mut cx) > 0);
}

/// Where all run on threads of their own, a wake-up that can be lost is lost some time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_is_lost_between_threads() {
    let pair = Pair::with(&SessionConfig { lent_credit: 0, ..SessionConfig::default() }, 4096);
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 0..8 {
        let (near, far) = pair.stream().await;
        for (stream, seed) in [(near, seed), (far, seed + 100)] {
            tasks.spawn(async move {
                let (mut read, mut write) = tokio::io::split(stream);
                let (written, read) = tokio::join!(fill(&mut write, seed, 512 * 1024), drain(&mut read));
                (written, read.unwrap())
            });
        }
    }
    let done = tokio::time::timeout(Duration::from_secs(60), tasks.join_all()).await.expect("a task hangs");
    assert!(done.iter().all(|(_, (_, total))| *total == 512 * 1024));
}

#[tokio::test(start_paused = true)]
async fn eight_mebibytes_cross_a_narrow_pipe_both_ways() {
    const TOTAL: usize = 8 << 20;
    let pair = Pair::with(&SessionConfig::default(), 4096);
    let (near, far) = pair.stream().await;
    let ((mut near_read, mut near_write), (mut far_read, mut far_write)) =
        (tokio::io::split(near), tokio::io::split(far));
    let (down, up, down_read, up_read) = tokio::join!(
        fill(&mut near_write, 1, TOTAL),
        fill(&mut far_write, 2, TOTAL),
        drain(&mut far_read),
        drain(&mut near_read)
    );
    assert_eq!(down_read.unwrap(), (down, TOTAL));
    assert_eq!(up_read.unwrap(), (up, TOTAL));
    assert_eq!(pair.server.stats().duplicate_messages, 0);
    drop((near_read, near_write, far_read, far_write));
    idle().await;
    assert_eq!(pair.streams(), (0, 0));
    assert_eq!(pair.agent.stats().received_bytes, TOTAL as u64);
}

#[tokio::test(start_paused = true)]
async fn slow_reader_of_one_stream_does_not_hold_up_another() {
    let pair = Pair::with(&SessionConfig::default(), 4096);
    let (mut stuck, _never_read) = pair.stream().await;
    let (_, waker) = Wakes::new();
    let mut cx = Context::from_waker(&waker);
    while fill_up(&mut stuck, &mut cx) > 0 {
        idle().await;
    }
    let (mut near, mut far) = pair.stream().await;
    let (written, read) = tokio::join!(fill(&mut near, 3, 4 << 20), drain(&mut far));
    assert_eq!(read.unwrap(), (written, 4 << 20));
}

#[tokio::test(start_paused = true)]
async fn ended_session_fails_readers_and_writers_at_once() {
    let pair = Pair::new();
    let ((mut near, _far), (mut other, _keep)) = (pair.stream().await, pair.stream().await);
    let ((reads, read_waker), (writes, write_waker)) = (Wakes::new(), Wakes::new());
    let (mut read_cx, mut write_cx) = (Context::from_waker(&read_waker), Context::from_waker(&write_waker));
    assert!(poll_read(&mut near, &mut read_cx).is_pending());
    while fill_up(&mut other, &mut write_cx) > 0 {
        idle().await;
    }
    let (read_before, write_before) = (reads.count(), writes.count());
    pair.agent_end.abort();
    idle().await;
    assert!(poll_read(&mut near, &mut read_cx).is_pending(), "a lost link alone fails nothing");
    assert_eq!(pair.server_end.await.unwrap(), crate::link::LinkEnd::Lost);
    assert_eq!(pair.server.ended(), None);

    pair.server.end(SessionEnd::Lost);
    assert_eq!((reads.count(), writes.count()), (read_before + 1, write_before + 1));
    let Poll::Ready(Err(read)) = poll_read(&mut near, &mut read_cx) else { panic!("the reader waits") };
    let Poll::Ready(Err(write)) = Pin::new(&mut other).poll_write(&mut write_cx, b"x") else { panic!("writer waits") };
    assert_eq!((kind(&read), kind(&write)), (Some(ErrorKind::SessionLost), Some(ErrorKind::SessionLost)));
    assert_eq!(read.kind(), IoKind::ConnectionReset);
    drop((near, other));
    assert_eq!(pair.server.stats().streams, 0);
}

#[tokio::test(start_paused = true)]
async fn writer_waits_while_the_link_is_down() {
    let pair = Pair::new();
    let (mut near, _far) = pair.stream().await;
    pair.agent_end.abort();
    assert_eq!(pair.server_end.await.unwrap(), crate::link::LinkEnd::Lost);
    let (wakes, waker) = Wakes::new();
    let mut cx = Context::from_waker(&waker);
    assert!(fill_up(&mut near, &mut cx) > 0);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(wakes.count(), 0);
    near.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn dropped_stream_delivers_what_was_written_then_the_end() {
    let pair = Pair::new();
    let (mut near, mut far) = pair.stream().await;
    near.write_all(b"last words").await.unwrap();
    drop(near);
    let mut text = String::new();
    far.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "last words");
    poll_fn(|cx| far.poll_stopped(cx)).await;
    let error = far.write_all(b"nobody reads").await.unwrap_err();
    assert_eq!((error.kind(), kind(&error)), (IoKind::BrokenPipe, Some(ErrorKind::PeerReset)));
    far.shutdown().await.unwrap();
    drop(far);
    idle().await;
    assert_eq!(pair.streams(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn stream_dropped_by_a_panic_is_reset() {
    let pair = Pair::new();
    let (mut near, mut far) = pair.stream().await;
    far.write_all(b"half of it").await.unwrap();
    idle().await;
    let handler = tokio::spawn(async move {
        let _held = far;
        panic!("on purpose");
    });
    assert!(handler.await.unwrap_err().is_panic());
    let mut got = Vec::new();
    let error = near.read_to_end(&mut got).await.unwrap_err();
    assert_eq!(got, b"half of it", "what arrived is read first");
    assert_eq!(kind(&error), Some(ErrorKind::PeerReset));
}

#[tokio::test(start_paused = true)]
async fn refused_open_is_an_error_with_its_kind() {
    let pair = Pair::new();
    for (code, expected) in [
        (ResetCode::TARGET_UNKNOWN, ErrorKind::TargetUnknown),
        (ResetCode::TARGET_REFUSED, ErrorKind::TargetRefused),
        (ResetCode::TOO_MANY_STREAMS, ErrorKind::Overloaded),
    ] {
        let (opened, ()) =
            tokio::join!(open(&pair.server), async { pair.agent.incoming().await.unwrap().refuse(code, "no") });
        assert_eq!(opened.unwrap_err().kind(), expected);
    }
    let (opened, ()) = tokio::join!(open(&pair.server), async { drop(pair.agent.incoming().await.unwrap()) });
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::PeerReset);
    idle().await;
    assert_eq!(pair.streams(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn early_data_arrives_with_the_open_and_a_refusal_fails_the_stream() {
    let pair = Pair::new();
    let mut early = open_early(&pair.server).await.unwrap();
    early.write_all(b"GET /").await.unwrap();
    let mut far = pair.agent.incoming().await.unwrap().accept().unwrap();
    let mut request = [0; 5];
    far.read_exact(&mut request).await.unwrap();
    assert_eq!(&request, b"GET /");

    let mut early = open_early(&pair.server).await.unwrap();
    pair.agent.incoming().await.unwrap().refuse(ResetCode::TARGET_DENIED, "no");
    let error = early.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(kind(&error), Some(ErrorKind::TargetDenied));
}

#[tokio::test(start_paused = true)]
async fn opens_beyond_the_bound_wait_and_are_answered_in_order() {
    let pair = Pair::with(&SessionConfig { max_opens: 1, max_opens_per_target: 1, ..SessionConfig::default() }, 4096);
    let mut opens = Vec::new();
    for _ in 0..3 {
        let mut opening = Box::pin(open(&pair.server));
        assert!(futures_util::poll!(&mut opening).is_pending());
        opens.push(opening);
    }
    for opening in &mut opens {
        let far = pair.agent.incoming().await.unwrap();
        assert!(futures_util::poll!(&mut *opening).is_pending());
        let _far = far.accept().unwrap();
        opening.as_mut().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn opening_dropped_after_any_number_of_polls_leaves_no_stream_behind() {
    for early_data in [false, true] {
        for queued in [false, true] {
            for accepts in [false, true] {
                for polls in 0..6 {
                    cancel(early_data, queued, accepts, polls).await;
                }
            }
        }
    }
}

/// Drops an open after so many polls, which stand behind another one if `queued`.
async fn cancel(early_data: bool, queued: bool, accepts: bool, polls: usize) {
    let pair = Pair::with(&SessionConfig { max_opens: 1, max_opens_per_target: 1, ..SessionConfig::default() }, 4096);
    let mut first = Box::pin(open(&pair.server));
    if queued {
        assert!(futures_util::poll!(&mut first).is_pending());
    }
    let opening = if early_data { open_early(&pair.server) } else { open(&pair.server) };
    let mut opening = Some(Box::pin(opening));
    for n in 0..polls {
        if let Some(running) = &mut opening
            && futures_util::poll!(running).is_ready()
        {
            opening = None;
        }
        idle().await;
        if accepts && n >= 1 {
            let mut incoming = pin!(pair.agent.incoming());
            if let Poll::Ready(Ok(incoming)) = futures_util::poll!(&mut incoming) {
                let _ = incoming.accept();
            }
        }
        if n == 3 {
            let _ = futures_util::poll!(&mut first);
        }
    }
    drop(opening);
    drop(first);
    idle().await;
    assert_eq!(pair.streams(), (0, 0), "early {early_data}, queued {queued}, accepts {accepts}, {polls} polls");
    // The session still works.
    pair.stream().await;
}

#[tokio::test(start_paused = true)]
async fn dropped_waits_leave_no_waker_behind() {
    let pair = Pair::new();
    let (wakes, waker) = Wakes::new();
    let mut cx = Context::from_waker(&waker);
    {
        let (mut incoming, mut closed) = (pin!(pair.agent.incoming()), pin!(pair.agent.closed()));
        assert!(incoming.as_mut().poll(&mut cx).is_pending() && closed.as_mut().poll(&mut cx).is_pending());
    }
    let _streams = pair.stream().await;
    pair.agent.end(SessionEnd::Lost);
    assert_eq!(wakes.count(), 0);
    assert_eq!(std::sync::Arc::strong_count(&wakes), 2, "the test's own and its waker's");
}

#[tokio::test(start_paused = true)]
async fn end_of_the_session_reaches_all_who_wait() {
    let pair = Pair::with(&SessionConfig { max_opens: 1, max_opens_per_target: 1, ..SessionConfig::default() }, 4096);
    let server = pair.server.clone();
    let opens = [open(&pair.server), open(&pair.server)].map(tokio::spawn);
    let closed = tokio::spawn(async move { server.closed().await });
    idle().await;
    pair.server.close(CloseCode::REPLACED, "another came", SessionEnd::Replaced);
    for opening in opens {
        assert_eq!(opening.await.unwrap().unwrap_err().kind(), ErrorKind::Replaced);
    }
    assert_eq!(closed.await.unwrap(), SessionEnd::Replaced);
    assert_eq!(open(&pair.server).await.unwrap_err().kind(), ErrorKind::Replaced);
    assert_eq!(pair.agent.closed().await, SessionEnd::Replaced);
    // What the agent's application had not taken yet is withdrawn.
    assert_eq!(pair.agent.incoming().await.unwrap_err().kind(), ErrorKind::Replaced);
}

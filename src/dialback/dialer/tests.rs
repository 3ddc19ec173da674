//! A tunnel of the dial-back protocol whose agent reads nothing, and what is kept of streams that outlive theirs.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::{
    io::{DuplexStream, duplex},
    task::{JoinHandle, yield_now},
    time::{advance, timeout},
};

use super::{driver::KEEP_ALIVE, *};
use crate::{
    key::TargetName,
    link::{ByteLink, MessageLink, Side},
};

fn tunnel(dialers: &Arc<Dialers>, key: &str) -> DialbackTunnel {
    DialbackTunnel::new(dialers, key.parse().unwrap(), "somebody".to_owned(), Epoch::new(1))
}

/// A tunnel at work whose agent does not read, what counts the polls of its link's task, and that task.
async fn unread() -> (DialbackTunnel, DuplexStream, Arc<AtomicUsize>, JoinHandle<ControlEnd>) {
    let (near, far) = duplex(64);
    let tunnel = tunnel(&Arc::default(), "a");
    let mut link = ControlLink::new(MessageLink::new(near, Side::Server, 4096));
    let polls = Arc::new(AtomicUsize::new(0));
    let (counted, driven) = (Arc::clone(&polls), tunnel.clone());
    let task = tokio::spawn(async move {
        let mut drive = std::pin::pin!(driven.drive(&mut link));
        poll_fn(|cx| {
            counted.fetch_add(1, Ordering::Relaxed);
            drive.as_mut().poll(cx)
        })
        .await
    });
    // Far more than the write buffer takes.
    for _ in 0..8 {
        let opens: Vec<_> = (0..MAX_PENDING).map(|_| tunnel.open(&TargetName::default())).collect();
        yield_now().await;
        drop(opens);
        yield_now().await;
    }
    (tunnel, far, polls, task)
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_is_closed_though_its_agent_reads_nothing() {
    let (tunnel, _far, _, task) = unread().await;
    tunnel.close(CloseCode::RESTART, "", SessionEnd::Shutdown);
    let end = timeout(Duration::from_secs(1), task).await.expect("the link goes on").unwrap();
    assert_eq!(end, ControlEnd::local(CloseCode::RESTART));
}

#[tokio::test(start_paused = true)]
async fn a_keep_alive_that_cannot_leave_does_not_spin() {
    let (_tunnel, _far, polls, task) = unread().await;
    advance(KEEP_ALIVE).await;
    let before = polls.load(Ordering::Relaxed);
    for _ in 0..100 {
        yield_now().await;
    }
    assert!(polls.load(Ordering::Relaxed) - before < 10, "{polls:?}");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn streams_that_outlived_their_tunnels_are_forgotten_when_they_end() {
    let dialers = Arc::default();
    for n in 0..1000 {
        let tunnel = tunnel(&dialers, &format!("k{n}"));
        let link = MessageLink::new(duplex(64).0, Side::Server, 64);
        let tie = tunnel.0.ties.tie(ByteLink::new(link));
        drop(tunnel);
        drop(tie);
    }
    let known = dialers.lock();
    assert!(known.tunnels.is_empty());
    assert!(known.orphans.len() < 100, "{}", known.orphans.len());
}

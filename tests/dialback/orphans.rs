//! Streams that outlived their control connection: a drain waits for them, and a disconnect ends them.

use std::time::Duration;

use revdial::{Error, ErrorKind, frame::CloseCode};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, sleep},
};

use crate::{
    classic::soon,
    until,
    world::{Pipe, Server, hear},
};

const SECOND: Duration = Duration::from_secs(1);

/// A stream of a key that is absent: its control connection is lost, and the grace over.
async fn orphan(server: &Server) -> (revdial::TunnelStream, Pipe) {
    let mut control = server.control().await;
    let joined = server.joined(&mut control).await;
    drop(control);
    server.in_grace().await;
    sleep(31 * SECOND).await;
    until("absent", || server.connman.list().is_empty()).await;
    joined
}

#[tokio::test(start_paused = true)]
async fn b84_a_drain_waits_for_streams_whose_control_connection_was_lost_before() {
    let server = Server::new();
    let (mut here, mut there) = orphan(&server).await;
    let connman = server.connman.clone();
    let start = Instant::now();
    let drain = tokio::spawn(async move { connman.drain(60 * SECOND).await });
    sleep(10 * SECOND).await;
    assert!(!drain.is_finished());
    there.say("the last").await;
    there.finish().await;
    hear(&mut here, b"the last").await;
    drop((here, there));
    drain.await.unwrap();
    assert!(start.elapsed() < 11 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn b84_a_drain_cuts_such_streams_at_its_deadline() {
    let server = Server::new();
    let (mut here, _there) = orphan(&server).await;
    let start = Instant::now();
    server.connman.drain(5 * SECOND).await;
    assert_eq!(start.elapsed(), 5 * SECOND);
    let error = soon(here.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(Error::find(&error).unwrap().kind(), ErrorKind::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn b22_a_disconnect_ends_streams_whose_control_connection_was_lost_before() {
    let server = Server::new();
    let (mut here, mut there) = orphan(&server).await;
    assert!(!server.connman.disconnect(&"m".parse().unwrap()), "of somebody else");
    let start = Instant::now();
    assert!(server.connman.disconnect(&"a".parse().unwrap()));
    let error = soon(here.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(Error::find(&error).unwrap().kind(), ErrorKind::SessionLost);
    there.closed_with(CloseCode::INTERNAL.number()).await;
    assert!(start.elapsed() <= SECOND, "{:?}", start.elapsed());
    assert_eq!(server.counted.sum("revdial_auth_failures_total{revoked}"), 1);
    assert!(!server.connman.disconnect(&"a".parse().unwrap()), "there is nothing left");
}

//! How an agent reaches its server, comes back, gives up and stops.
#![cfg(all(feature = "agent", feature = "connector"))]

mod callbacks;
#[path = "../support/counted.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod counted;
mod life;
#[path = "../support/net.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod net;
mod pace;
mod rows;

use std::time::Duration;

use net::Net;
use revdial::{
    AgentKey, Error, ErrorKind, TunnelStream,
    agent::{AgentStatus, Listener},
    connman::ConnectionManager,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    task::JoinHandle,
    time::Instant,
};

fn key() -> AgentKey {
    "a".parse().unwrap()
}

async fn dial(connman: &ConnectionManager, target: &str) -> Result<TunnelStream, Error> {
    connman.dial(&key(), &target.parse().unwrap()).await
}

async fn connected(status: &mut watch::Receiver<AgentStatus>) {
    status.wait_for(AgentStatus::is_connected).await.unwrap();
}

/// The next status that is neither an attempt nor a link: what went wrong, until when it waits, whether it is refused.
async fn setback(status: &mut watch::Receiver<AgentStatus>) -> (ErrorKind, Duration, bool, String) {
    let status = status.wait_for(|status| matches!(status, AgentStatus::Waiting { .. } | AgentStatus::Refused { .. }));
    match &*status.await.unwrap() {
        AgentStatus::Waiting { until, cause, text } => (*cause, *until - Instant::now(), false, text.to_string()),
        AgentStatus::Refused { until, cause, text } => (*cause, *until - Instant::now(), true, text.to_string()),
        other => panic!("{other:?}"),
    }
}

/// Serves every stream by sending back what comes.
async fn echo(mut listener: Listener) {
    while let Some(stream) = listener.accept().await {
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = AsyncWriteExt::shutdown(&mut write).await;
        });
    }
}

/// A running agent `a` whose listener echoes.
fn echoing(net: &Net) -> (watch::Receiver<AgentStatus>, JoinHandle<Result<(), Error>>) {
    let agent = net.agent();
    let status = agent.status();
    let (listener, run) = agent.listen();
    tokio::spawn(echo(listener));
    (status, tokio::spawn(run))
}

async fn round_trip(stream: &mut TunnelStream) {
    AsyncWriteExt::write_all(stream, b"ping").await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
}

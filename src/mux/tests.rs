//! Two sessions over real links on pipes in memory, in paused time.

mod drivers;
mod establish;
mod streams;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::JoinHandle,
};

use super::{BindError, Driver, MuxStream, MuxTunnel};
use crate::{
    frame::Metadata,
    key::{Epoch, TargetName},
    link::{LinkEnd, MessageLink, Side},
    proto::{Role, Session, SessionConfig},
    spans::SessionSpan,
};

const MAX_MESSAGE: usize = crate::frame::MAX_MESSAGE;

/// A server's and an agent's tunnel, with their drivers running.
struct Pair {
    server: MuxTunnel,
    agent: MuxTunnel,
    server_end: JoinHandle<LinkEnd>,
    agent_end: JoinHandle<LinkEnd>,
    /// How often the two drivers were polled.
    polls: Arc<AtomicUsize>,
}

impl Pair {
    fn new() -> Self {
        Self::with(&SessionConfig::default(), 64 * 1024)
    }

    fn with(config: &SessionConfig, pipe: usize) -> Self {
        let (near, far) = tokio::io::duplex(pipe);
        Self::over(config, near, far)
    }

    fn over(config: &SessionConfig, near: DuplexStream, far: DuplexStream) -> Self {
        let (server, agent) = (tunnel(Role::Server, config), tunnel(Role::Agent, config));
        let server_driver = server.link_up(link(near, Side::Server), Epoch::new(1), 0).unwrap();
        let agent_driver = agent.link_up(link(far, Side::Client), Epoch::new(1), 0).unwrap();
        let polls = Arc::new(AtomicUsize::new(0));
        let server_end = tokio::spawn(Counted { driver: server_driver, polls: Arc::clone(&polls) });
        let agent_end = tokio::spawn(Counted { driver: agent_driver, polls: Arc::clone(&polls) });
        Self { server, agent, server_end, agent_end, polls }
    }

    /// An open stream: the server's end and the agent's.
    async fn stream(&self) -> (MuxStream, MuxStream) {
        let opening = open(&self.server);
        let (near, far) = tokio::join!(opening, async { self.agent.incoming().await.unwrap().accept() });
        (near.unwrap(), far.unwrap())
    }

    fn polls(&self) -> usize {
        self.polls.load(Ordering::Relaxed)
    }

    fn streams(&self) -> (usize, usize) {
        (self.server.stats().streams, self.agent.stats().streams)
    }
}

impl MuxTunnel {
    /// Binds a link and gives its driver.
    pub(crate) fn link_up(&self, link: MessageLink, epoch: Epoch, peer_has: u64) -> Result<Driver, BindError> {
        Ok(Driver::new(link, self.bind(epoch, peer_has).wake()?))
    }
}

/// A driver that counts its polls.
struct Counted {
    driver: Driver,
    polls: Arc<AtomicUsize>,
}

impl Future for Counted {
    type Output = LinkEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LinkEnd> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.driver).poll(cx)
    }
}

/// A waker that counts.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Wakes {
    fn new() -> (Arc<Self>, Waker) {
        let wakes = Arc::new(Self::default());
        (Arc::clone(&wakes), Arc::clone(&wakes).into())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn tunnel(role: Role, config: &SessionConfig) -> MuxTunnel {
    let span = SessionSpan::new("a".parse().unwrap(), 1);
    MuxTunnel::new(Session::new(role, config.clone(), config.bounds(), 7), Epoch::new(1), span)
}

fn link(io: DuplexStream, side: Side) -> MessageLink {
    MessageLink::new(io, side, MAX_MESSAGE)
}

fn open(tunnel: &MuxTunnel) -> super::Opening {
    tunnel.open(TargetName::default(), Metadata::default(), false)
}

fn open_early(tunnel: &MuxTunnel) -> super::Opening {
    tunnel.open(TargetName::default(), Metadata::default(), true)
}

/// Lets all tasks run until each waits, without time passing.
async fn idle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// A hash over all bytes to the end of the stream, and how many they were.
async fn drain(stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<(u64, usize)> {
    let (mut hash, mut total, mut buffer) = (FNV, 0, vec![0; 37 * 1024]);
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok((hash, total)),
            n => {
                hash = fnv(hash, &buffer[..n]);
                total += n;
            }
        }
    }
}

/// Writes `total` bytes that depend on `seed`, then the end; gives their hash.
async fn fill(stream: &mut (impl AsyncWriteExt + Unpin), seed: u64, total: usize) -> u64 {
    let (mut hash, mut state, mut left) = (FNV, seed, total);
    while left > 0 {
        let chunk: Vec<u8> = (0..left.min(50_000))
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 56) as u8
            })
            .collect();
        hash = fnv(hash, &chunk);
        stream.write_all(&chunk).await.unwrap();
        left -= chunk.len();
    }
    stream.shutdown().await.unwrap();
    hash
}

const FNV: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Two ends of a pipe that carries `rate` bytes each 10 ms, each way.
fn throttled(rate: usize) -> (DuplexStream, DuplexStream) {
    let (near, near_inner) = tokio::io::duplex(4096);
    let (far, far_inner) = tokio::io::duplex(4096);
    let (mut near_read, mut near_write) = tokio::io::split(near_inner);
    let (mut far_read, mut far_write) = tokio::io::split(far_inner);
    tokio::spawn(async move { trickle(&mut near_read, &mut far_write, rate).await });
    tokio::spawn(async move { trickle(&mut far_read, &mut near_write, rate).await });
    (near, far)
}

async fn trickle(from: &mut (impl AsyncReadExt + Unpin), to: &mut (impl AsyncWriteExt + Unpin), rate: usize) {
    let mut buffer = vec![0; rate];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

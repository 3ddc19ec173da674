//! What is measured: pieces of work that the near side does with a carrier.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, future::join_all};
use http_body_util::BodyExt;
use hyper::Uri;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::near::{Carrier, Near};
use crate::{
    commands::{CHUNK, Command},
    gateway::{Pipe, Way, ask, echo, transfer},
};

/// A piece of work that can be done `n` times.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    /// [`round_trips`].
    RoundTrips(Carrier),
    /// [`dials`].
    Dials(Carrier),
    /// [`bulk`] of so many bytes.
    Bulk { carrier: Carrier, pipes: usize, way: Way, bytes: u64 },
    /// [`requests`].
    Requests { carrier: Carrier, connections: u64 },
}

impl Work {
    pub(crate) async fn run(self, near: &mut Near, n: u64) {
        match self {
            Self::RoundTrips(carrier) => round_trips(near, carrier, n).await,
            Self::Dials(carrier) => dials(near, carrier, n).await,
            Self::Bulk { carrier, pipes, way, bytes } => bulk(near, carrier, pipes, way, bytes * n).await,
            Self::Requests { carrier, connections } => requests(near, carrier, connections, n).await,
        }
    }
}

/// One byte there and back on an open pipe, `n` times.
pub(crate) async fn round_trips(near: &mut Near, carrier: Carrier, n: u64) {
    if carrier == Carrier::WebSocket {
        let byte = Bytes::from(vec![Command::Echo.byte()]);
        for _ in 0..n {
            near.websocket.send(Message::Binary(byte.clone())).await.expect("an open socket");
            next_message(&mut near.websocket).await;
        }
        return;
    }
    let pipe = &mut near.pipes(carrier)[0];
    for _ in 0..n {
        echo(pipe).await;
    }
}

/// A new pipe, one byte there and back, and dropped, `n` times.
pub(crate) async fn dials(near: &Near, carrier: Carrier, n: u64) {
    for _ in 0..n {
        let mut pipe = near.dial(carrier).await;
        echo(&mut pipe).await;
    }
}

/// The same, by so many tasks at once.
pub(crate) async fn dials_at_once(near: &Near, carrier: Carrier, tasks: u64, n: u64) {
    join_all((0..tasks).map(|_| dials(near, carrier, n / tasks))).await;
}

/// So many bytes, over so many pipes at once.
pub(crate) async fn bulk(near: &mut Near, carrier: Carrier, pipes: usize, way: Way, bytes: u64) {
    if carrier == Carrier::WebSocket {
        return bulk_messages(&mut near.websocket, way, bytes).await;
    }
    let each = bytes / pipes as u64;
    join_all(near.pipes(carrier).iter_mut().take(pipes).map(|pipe| transfer(pipe, way, each))).await;
}

/// `n` GETs over so many connections at once, which are kept alive.
pub(crate) async fn requests(near: &Near, carrier: Carrier, connections: u64, n: u64) {
    let uri = near.uri(carrier);
    let share = |i| n / connections + u64::from(i < n % connections);
    join_all((0..connections).map(|i| {
        let uri = &uri;
        async move {
            for _ in 0..share(i) {
                get(near, carrier, uri).await;
            }
        }
    }))
    .await;
}

/// GETs one after the other for some time on an otherwise free near side, and how long each took, sorted.
pub(crate) async fn latencies(near: &Near, carrier: Carrier, during: Duration) -> Vec<Duration> {
    let uri = near.uri(carrier);
    let start = Instant::now();
    let mut taken = Vec::new();
    while start.elapsed() < during {
        let sent = Instant::now();
        get(near, carrier, &uri).await;
        taken.push(sent.elapsed());
    }
    taken.sort_unstable();
    taken
}

/// The same, while bulk data goes over another stream of the same tunnel, or another TCP connection.
pub(crate) async fn latencies_beside_bulk(near: &Near, carrier: Carrier, way: Way, during: Duration) -> Vec<Duration> {
    const PIECE: u64 = 4 * 1024 * 1024;
    let mut pipe = near.dial(carrier).await;
    let stop = AtomicBool::new(false);
    let bulk = async {
        while !stop.load(Ordering::Relaxed) {
            transfer(&mut pipe, way, PIECE).await;
        }
    };
    let measured = async {
        tokio::time::sleep(during / 10).await; // until it flows
        let taken = latencies(near, carrier, during).await;
        stop.store(true, Ordering::Relaxed);
        taken
    };
    tokio::join!(bulk, measured).1
}

/// Two streams that are full because nobody reads them, one in each direction; they last until dropped.
pub(crate) async fn stuck(near: &Near) -> [Box<dyn Pipe>; 2] {
    const FOR_EVER: u64 = 1 << 30;
    let mut unread_there = near.dial(Carrier::Tunnel).await;
    unread_there.write_u8(Command::Ignore.byte()).await.expect("an open pipe");
    let chunk = vec![0x5a; CHUNK];
    // Full when a write does not end for long.
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(50), unread_there.write_all(&chunk)).await {
        written.expect("an open pipe");
    }
    let mut unread_here = near.dial(Carrier::Tunnel).await;
    ask(&mut unread_here, Command::Source, FOR_EVER).await;
    [unread_there, unread_here]
}

async fn get(near: &Near, carrier: Carrier, uri: &Uri) {
    let response = match carrier {
        Carrier::Tcp => near.tcp_client.get(uri.clone()).await,
        _ => near.tunnel_client.get(uri.clone()).await,
    };
    let body = response.expect("an answer").into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(body.len(), 100);
}

async fn bulk_messages(socket: &mut WebSocketStream<tokio::net::TcpStream>, way: Way, bytes: u64) {
    let mut message = vec![way.command().byte()];
    message.extend(bytes.to_be_bytes());
    socket.send(Message::Binary(message.into())).await.expect("an open socket");
    let chunk = Bytes::from(vec![0x5a; CHUNK]);
    let mut left = bytes;
    while left > 0 {
        left -= match way {
            Way::Up => {
                let most = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
                socket.send(Message::Binary(chunk.slice(..most))).await.expect("an open socket");
                most
            }
            Way::Down => next_message(socket).await,
        } as u64;
    }
    if way == Way::Up {
        next_message(socket).await;
    }
}

/// The length of the next message.
async fn next_message(socket: &mut WebSocketStream<tokio::net::TcpStream>) -> usize {
    socket.next().await.expect("an open socket").expect("an open socket").len()
}

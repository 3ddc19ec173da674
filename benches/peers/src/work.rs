//! The pieces of work that are measured, as a server does them with its streams.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::join_all;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    spawn,
    time::sleep,
};

use crate::{
    carriers::server::{Opener, Pipe},
    commands::{BODY, CHUNK, Command, Turn, piece},
    task::{Taken, Way},
};

/// A connection that is kept alive.
pub(crate) type Client = SendRequest<Empty<Bytes>>;

/// What single pieces took, in the order of their ends.
#[derive(Default)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn add(&mut self, since: Instant) {
        self.0.push(since.elapsed());
    }

    /// All of it took so long.
    pub(crate) fn taken(mut self, whole: Duration) -> Taken {
        self.0.sort_unstable();
        let at = |part: f64| {
            let last = self.0.len().saturating_sub(1);
            self.0.get((last as f64 * part).round() as usize).map_or(0.0, Duration::as_secs_f64)
        };
        Taken { seconds: whole.as_secs_f64(), p50: at(0.5), p99: at(0.99) }
    }
}

/// One byte there and back.
pub(crate) async fn echo(pipe: &mut Box<dyn Pipe>) {
    pipe.write_u8(Command::Echo.byte()).await.expect("an open stream");
    pipe.flush().await.expect("an open stream");
    assert_eq!(pipe.read_u8().await.expect("an open stream"), Command::Echo.byte());
}

/// New streams, one byte there and back on each, by so many tasks at once.
pub(crate) async fn dials(opener: &Opener, n: u64, at_once: u64, early: bool) {
    let tasks = (0..at_once).map(|i| {
        let opener = opener.clone();
        spawn(async move {
            for _ in 0..share(n, at_once, i) {
                echo(&mut opener.dial(early).await).await;
            }
        })
    });
    for task in join_all(tasks).await {
        task.expect("the task goes on");
    }
}

/// A stream on which HTTP is spoken.
pub(crate) async fn client(opener: &Opener) -> Client {
    let mut pipe = opener.dial(true).await;
    // Yamux opens no more than 256 streams on which nothing has come back yet.
    echo(&mut pipe).await;
    pipe.write_u8(Command::Http.byte()).await.expect("an open stream");
    let (client, connection) = handshake(TokioIo::new(pipe)).await.expect("a stream");
    spawn(connection);
    client
}

/// GETs over each of these at once, and what each GET took.
pub(crate) async fn requests(clients: &mut Vec<Client>, connections: u64, n: u64) -> Latencies {
    let taken: Vec<Client> = clients.drain(..usize::try_from(connections).expect("so many there are")).collect();
    let tasks = taken.into_iter().zip(0..).map(|(mut client, i)| {
        spawn(async move {
            let mut latencies = Latencies::default();
            for _ in 0..share(n, connections, i) {
                let sent = Instant::now();
                get(&mut client).await;
                latencies.add(sent);
            }
            (client, latencies)
        })
    });
    let mut all = Latencies::default();
    for task in join_all(tasks).await {
        let (client, latencies) = task.expect("the task goes on");
        clients.push(client);
        all.0.extend(latencies.0);
    }
    all
}

/// GETs one after the other for so long, beside bulk data on `bulk` if there is a way for it.
pub(crate) async fn beside(
    client: &mut Client,
    bulk: &mut Box<dyn Pipe>,
    way: Option<Way>,
    during: Duration,
) -> Latencies {
    const PIECE: u64 = 4 * 1024 * 1024;
    let stop = AtomicBool::new(false);
    let flow = async {
        while let Some(way) = way
            && !stop.load(Ordering::Relaxed)
        {
            transfer(bulk, way, PIECE).await;
        }
    };
    let measured = async {
        sleep(during / 10).await; // until it flows
        let start = Instant::now();
        let mut latencies = Latencies::default();
        while start.elapsed() < during {
            let sent = Instant::now();
            get(client).await;
            latencies.add(sent);
        }
        stop.store(true, Ordering::Relaxed);
        latencies
    };
    tokio::join!(flow, measured).1
}

/// So many bytes over an open stream, until the reader has them.
pub(crate) async fn transfer(pipe: &mut Box<dyn Pipe>, way: Way, bytes: u64) {
    ask(pipe, way, bytes).await;
    if way == Way::Up {
        give(pipe, bytes).await;
    }
    arrival(pipe, way, bytes).await;
}

/// Three transfers without a pause between them. What is measured is from the end of the first to that of the second, where
/// both are seen: over a long link it is neither the way there nor the growth of windows, and as data flows before and
/// after it, nothing that a carrier has read ahead counts as if it had come meanwhile.
pub(crate) async fn flow(pipe: &mut Box<dyn Pipe>, way: Way, bytes: u64) -> Latencies {
    let (mut reader, mut writer) = split(pipe);
    let write = async {
        for _ in 0..3 {
            ask(&mut writer, way, bytes).await;
            if way == Way::Up {
                give(&mut writer, bytes).await;
            }
        }
    };
    let read = async {
        let mut latencies = Latencies::default();
        arrival(&mut reader, way, bytes).await;
        let first = Instant::now();
        arrival(&mut reader, way, bytes).await;
        latencies.add(first);
        arrival(&mut reader, way, bytes).await;
        latencies
    };
    tokio::join!(write, read).1
}

/// Until the reader of a transfer has all of it.
async fn arrival(pipe: &mut (impl AsyncRead + Unpin), way: Way, bytes: u64) {
    match way {
        Way::Up => drop(pipe.read_u8().await.expect("an open stream")),
        Way::Down => take(pipe, bytes).await,
    }
}

async fn ask(pipe: &mut (impl AsyncWrite + Unpin), way: Way, bytes: u64) {
    let mut message = [0; 9];
    message[0] = match way {
        Way::Up => Command::Sink.byte(),
        Way::Down => Command::Source.byte(),
    };
    message[1..].copy_from_slice(&bytes.to_be_bytes());
    pipe.write_all(&message).await.expect("an open stream");
    pipe.flush().await.expect("an open stream");
}

async fn give(pipe: &mut (impl AsyncWrite + Unpin), bytes: u64) {
    let buffer = vec![0x5a; CHUNK];
    let (mut left, mut turn) = (bytes, Turn::default());
    while left > 0 {
        let moved = pipe.write(&buffer[..piece(left)]).await.ok().filter(|n| *n > 0).expect("an open stream");
        left -= moved as u64;
        turn.took(moved).await;
    }
    pipe.flush().await.expect("an open stream");
}

async fn take(pipe: &mut (impl AsyncRead + Unpin), bytes: u64) {
    let mut buffer = vec![0; CHUNK];
    let (mut left, mut turn) = (bytes, Turn::default());
    while left > 0 {
        let moved = pipe.read(&mut buffer[..piece(left)]).await.ok().filter(|n| *n > 0).expect("an open stream");
        left -= moved as u64;
        turn.took(moved).await;
    }
}

async fn get(client: &mut Client) {
    client.ready().await.expect("an open connection");
    let request = Request::get("/").header("host", "agent").body(Empty::new()).expect("a request");
    let response = client.send_request(request).await.expect("an answer");
    assert_eq!(response.into_body().collect().await.expect("a body").to_bytes().len(), BODY);
}

/// What the `i`th of so many has to do.
fn share(n: u64, of: u64, i: u64) -> u64 {
    n / of + u64::from(i < n % of)
}

//! The whole way but the sockets: the gateway's layer, the agent, their drivers and WebSockets, over a pipe in memory.
//!
//! One thread, and a clock that stands still: what runs when is the same each time. Masks are random, and so is the
//! hash of the drivers' tables; both cost the same whatever they are.

use std::convert::Infallible;

use gungraun::prelude::*;
use http::Uri;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use revdial::{
    AgentKey, TargetName, TunnelStream,
    agent::{Agent, AgentStatus},
    connman::ConnectionManager,
    server::{RevDialLayer, SharedBearer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    runtime::Runtime,
};
use tower::service_fn;

use crate::TIMES;

const TOKEN: &str = "token";

/// What the pipe holds: more than a driver writes at once.
const PIPE: usize = 256 * 1024;

/// What is moved where it is about bytes.
const BULK: usize = 16 * 1024 * 1024;

/// What is read and written in.
const CHUNK: usize = 64 * 1024;

/// A gateway and an agent, and a stream from the one to the other.
struct World {
    runtime: Runtime,
    connman: ConnectionManager,
    key: AgentKey,
    stream: TunnelStream,
}

// One byte there and back on an open stream.
#[library_benchmark]
#[bench::open_stream(setup = world)]
fn trip(mut world: World) -> World {
    let World { runtime, stream, .. } = &mut world;
    runtime.block_on(async {
        for _ in 0..TIMES {
            echo(stream).await;
        }
    });
    world
}

// A stream opened with a byte behind, which comes back, and closed.
#[library_benchmark]
#[bench::early_data(setup = world)]
fn dial(world: World) -> World {
    world.runtime.block_on(async {
        for _ in 0..TIMES {
            echo(&mut open(&world.connman, &world.key).await).await;
        }
    });
    world
}

// Bytes there and back, so that both directions count: only the agent masks.
#[library_benchmark]
#[bench::both_ways(setup = world)]
fn transfer(mut world: World) -> World {
    let World { runtime, stream, .. } = &mut world;
    runtime.block_on(async {
        let (mut chunk, mut back) = (vec![0x5a; CHUNK], vec![0; CHUNK]);
        for _ in 0..BULK / CHUNK {
            stream.write_all(&chunk).await.expect("an open stream");
            stream.read_exact(&mut back).await.expect("an open stream");
            std::mem::swap(&mut chunk, &mut back);
        }
    });
    world
}

library_benchmark_group!(name = drivers, benchmarks = [trip, dial, transfer]);

fn world() -> World {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let (connman, key) = (ConnectionManager::new(), "desktop-7".parse().expect("a key"));
    let stream = runtime.block_on(async {
        start(&connman, &key).await;
        let mut stream = open(&connman, &key).await;
        echo(&mut stream).await;
        stream
    });
    World { runtime, connman, key, stream }
}

/// Starts an agent that gives back what it is sent; there once it is connected.
async fn start(connman: &ConnectionManager, key: &AgentKey) {
    let layer = RevDialLayer::new(connman.clone(), SharedBearer::new(TOKEN).expect("a token"));
    let service = layer.into_service();
    let connect = service_fn(move |_: Uri| {
        let (near, far) = tokio::io::duplex(PIPE);
        let connection = http1::Builder::new()
            .serve_connection(TokioIo::new(far), TowerToHyperService::new(service.clone()))
            .with_upgrades();
        tokio::spawn(connection);
        async { Ok::<TokioIo<DuplexStream>, Infallible>(TokioIo::new(near)) }
    });
    let agent = Agent::builder("http://gateway", key.clone()).token(TOKEN).build_with(connect);
    let agent = agent.expect("settings that can be");
    let mut status = agent.status();
    let (mut listener, run) = agent.listen();
    tokio::spawn(run);
    tokio::spawn(async move {
        while let Some(stream) = listener.accept().await {
            tokio::spawn(give_back(stream));
        }
    });
    status.wait_for(AgentStatus::is_connected).await.expect("the agent runs");
}

async fn give_back(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) {
    let mut buffer = vec![0; CHUNK];
    // What fails was given up by the other side.
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

async fn open(connman: &ConnectionManager, key: &AgentKey) -> TunnelStream {
    connman.dial(key, &TargetName::default()).early_data(true).await.expect("the agent is there")
}

async fn echo(stream: &mut TunnelStream) {
    stream.write_all(b"a").await.expect("an open stream");
    assert_eq!(stream.read_u8().await.expect("an open stream"), b'a');
}

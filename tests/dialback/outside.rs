//! What ends streams of the dial-back protocol from outside, and how that looks to the other side.

use std::{
    future::Future,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use revdial::{
    AgentKey, Error, ErrorKind, TargetName, TunnelStream,
    agent::{Agent, AgentStatus, ProtocolChoice},
    connman::{ConnectionManager, NoGrace},
    server::{RevDialLayer, SharedBearer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, duplex},
    runtime::{Builder, Handle},
    task::JoinHandle,
    time::timeout,
};

/// The connections that an agent has opened, the control link first.
type Wires = Arc<Mutex<Vec<JoinHandle<io::Result<(u64, u64)>>>>>;

/// An agent `a` of the dial-back protocol, the server's end of whose connections is served on this runtime.
fn agent(connman: &ConnectionManager) -> (Agent, Wires) {
    let service = RevDialLayer::new(connman.clone(), SharedBearer::new("token").unwrap()).into_service();
    let (runtime, wires) = (Handle::current(), Wires::default());
    let opened = Arc::clone(&wires);
    let connector = tower::service_fn(move |_: http::Uri| {
        let (near, mut middle) = duplex(64 * 1024);
        let (mut beyond, far) = duplex(64 * 1024);
        let wire = runtime.spawn(async move { copy_bidirectional(&mut middle, &mut beyond).await });
        opened.lock().unwrap().push(wire);
        let connection = http1::Builder::new()
            .serve_connection(TokioIo::new(far), TowerToHyperService::new(service.clone()))
            .with_upgrades();
        runtime.spawn(connection);
        std::future::ready(Ok::<_, io::Error>(TokioIo::new(near)))
    });
    let builder = Agent::builder("http://gateway", "a").token("token").protocol(ProtocolChoice::Dialback);
    (builder.build_with(connector).unwrap(), wires)
}

fn key() -> AgentKey {
    "a".parse().unwrap()
}

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}

/// How a stream ends that has brought `x`.
async fn end_of(stream: &mut TunnelStream) -> Option<ErrorKind> {
    let mut got = Vec::new();
    let end = soon(stream.read_to_end(&mut got)).await;
    assert!(got.is_empty() || got == b"x");
    end.err().map(|error| Error::find(&error).map_or(ErrorKind::Internal, Error::kind))
}

#[tokio::test]
async fn what_an_agent_cuts_when_it_ends_does_not_look_ended_though_its_process_ends_at_once() {
    let connman = ConnectionManager::new();
    let (agent, _wires) = agent(&connman);
    let (mut status, shutdown) = (agent.status(), agent.shutdown_handle());
    let process = std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (mut listener, run) = agent.listen();
        runtime.block_on(async {
            tokio::spawn(async move {
                while let Some(mut stream) = listener.accept().await {
                    tokio::spawn(async move {
                        stream.write_all(b"x").await.unwrap();
                        let _ = stream.read_u8().await;
                    });
                }
            });
            run.await
        })
    });
    soon(status.wait_for(AgentStatus::is_connected)).await.unwrap();
    let mut stream = soon(connman.dial(&key(), &TargetName::default())).await.unwrap();
    soon(stream.read_u8()).await.unwrap();
    shutdown.shutdown(Duration::ZERO);
    assert_eq!(end_of(&mut stream).await, Some(ErrorKind::PeerReset));
    drop(stream);
    let joined = soon(tokio::task::spawn_blocking(|| process.join())).await.unwrap();
    joined.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_of_the_manager_ends_streams_that_outlived_their_control_link() {
    let connman = ConnectionManager::builder().grace(NoGrace).build();
    let (agent, wires) = agent(&connman);
    let (mut listener, run) = agent.listen();
    let run = tokio::spawn(run);
    while connman.stats().active_connections == 0 {
        tokio::task::yield_now().await;
    }
    let (stream, _far) =
        soon(async { tokio::join!(connman.dial(&key(), &TargetName::default()), listener.accept()) }).await;
    let mut stream = stream.unwrap();
    run.abort();
    wires.lock().unwrap()[0].abort();
    while connman.stats().active_connections > 0 {
        tokio::task::yield_now().await;
    }
    // Aborted, the agent has cut its side; the server's is told of that by its manager alone.
    connman.shutdown();
    assert!(matches!(end_of(&mut stream).await, Some(ErrorKind::Shutdown)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_took_is_reset_and_does_not_look_ended() {
    let connman = ConnectionManager::new();
    let (agent, _wires) = agent(&connman);
    let mut status = agent.status();
    let (listener, run) = agent.listen();
    tokio::spawn(run);
    soon(status.wait_for(AgentStatus::is_connected)).await.unwrap();
    let mut stream = soon(connman.dial(&key(), &TargetName::default())).await.unwrap();
    // It waits for the listener by now.
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(listener);
    assert_eq!(end_of(&mut stream).await, Some(ErrorKind::PeerReset));
}

//! The gateway: an axum app with the layer, whose connection manager asks the agents.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use axum::{Router, serve::ListenerExt};
use bytes::Bytes;
use futures::future::join_all;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use revdial::{
    AgentKey, TargetName,
    connman::ConnectionManager,
    server::{RevDialLayer, SharedBearer},
};
use tokio::{
    net::{TcpListener, TcpSocket},
    spawn,
    time::timeout,
};

use crate::{
    Result,
    agents::{TOKEN, key},
    kernel,
    task::{Asked, GatewayTask, Line},
};

/// The longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Does what the conductor says, until it goes.
pub(crate) async fn run(address: SocketAddr, backlog: u32) -> Result<()> {
    kernel::raise_file_limit()?;
    let connman = ConnectionManager::new();
    let layer = RevDialLayer::new(connman.clone(), SharedBearer::new(TOKEN)?);
    let listener = listen(address, backlog)?;
    let address = listener.local_addr()?;
    let listener = listener.tap_io(|stream| {
        // Fails where the peer has gone already, which shows by itself.
        let _ = stream.set_nodelay(true);
    });
    spawn(async move { axum::serve(listener, Router::new().layer(layer)).await });
    let mut line = Line::new(Some(address)).await?;
    while let Some(GatewayTask::Ask { agents, at_once }) = line.next().await? {
        let asked = ask_all(&connman, agents, at_once).await;
        line.say(&asked).await?;
    }
    Ok(())
}

fn listen(address: SocketAddr, backlog: u32) -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // Connections of the gateway that was here before may not have left the kernel yet.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket.listen(backlog)?)
}

async fn ask_all(connman: &ConnectionManager, agents: usize, at_once: usize) -> Asked {
    let (start, next) = (Instant::now(), AtomicUsize::new(0));
    let askers = (0..at_once).map(|_| async {
        let (mut times, mut failures) = (Vec::new(), Vec::new());
        loop {
            let agent = next.fetch_add(1, Ordering::Relaxed);
            if agent >= agents {
                return (times, failures);
            }
            let asked = Instant::now();
            match timeout(PATIENCE, ask(connman, &key(agent))).await {
                Ok(Ok(())) => times.push(asked.elapsed()),
                Ok(Err(error)) => failures.push(error.to_string()),
                Err(_) => failures.push("no answer came".to_owned()),
            }
        }
    });
    let (times, failures): (Vec<_>, Vec<_>) = join_all(askers).await.into_iter().unzip();
    let (mut times, failures) = (times.concat(), failures.concat());
    times.sort_unstable();
    let at = |part: f64| {
        let last = times.len().saturating_sub(1);
        times.get((last as f64 * part).round() as usize).map_or(0.0, Duration::as_secs_f64)
    };
    Asked {
        seconds: start.elapsed().as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        failed: failures.len(),
        failure: failures.into_iter().next(),
    }
}

/// A GET on a stream of its own.
async fn ask(connman: &ConnectionManager, key: &AgentKey) -> Result<()> {
    let stream = connman.dial(key, &TargetName::default()).early_data(true).await?;
    let (mut client, connection) = handshake(TokioIo::new(stream)).await?;
    spawn(connection);
    let request = Request::get("/").header(header::HOST, key.as_str()).body(Empty::<Bytes>::new())?;
    let response = client.send_request(request).await?;
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    if head.status != StatusCode::OK || body.is_empty() {
        return Err(format!("{} with {} bytes", head.status, body.len()).into());
    }
    Ok(())
}

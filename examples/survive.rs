//! A download that outlives the connection below it: a gateway, an agent, and between them a proxy that keeps cutting.
//!
//! ```sh
//! cargo run --release --example survive
//! ```

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    routing::get,
    serve::ListenerExt,
};
use data_encoding::HEXLOWER;
use futures_util::stream;
use http_body_util::BodyExt;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use revdial::{
    agent::{Agent, AgentStatus},
    connector::RevDialConnector,
    connman::ConnectionManager,
    server::{KeyedBearer, RevDialLayer},
};
use sha2::{Digest, Sha256};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::Instant,
};

const CUTS: usize = 20;
const CHUNKS: usize = 512;
const CHUNK: usize = 64 * 1024;

/// The body, piece by piece: no two pieces are the same.
fn chunks() -> impl Iterator<Item = Bytes> {
    (0..CHUNKS).map(|n| (n as u64).to_be_bytes().repeat(CHUNK / 8).into())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A gateway: an app with the layer.
    let (connman, tokens) = (ConnectionManager::new(), KeyedBearer::new("a long random text")?);
    let token = tokens.token_for(&"desktop-1".parse()?);
    let gateway = TcpListener::bind("127.0.0.1:0").await?;
    let addr = gateway.local_addr()?;
    let app = Router::new().layer(RevDialLayer::new(connman.clone(), tokens));
    let gateway = gateway.tap_io(|stream| drop(stream.set_nodelay(true)));
    tokio::spawn(axum::serve(gateway, app).into_future());

    // An agent that serves one large body, and reaches the gateway through what cuts its connections.
    let (line, cut) = (TcpListener::bind("127.0.0.1:0").await?, Arc::new(Notify::new()));
    let agent = Agent::builder(format!("http://{}", line.local_addr()?), "desktop-1").token(token).build()?;
    tokio::spawn(proxy(line, addr, Arc::clone(&cut)));
    let mut status = agent.status();
    let (listener, run) = agent.listen();
    tokio::spawn(run);
    let body = || async { Body::from_stream(stream::iter(chunks().map(Ok::<_, Infallible>))) };
    tokio::spawn(axum::serve(listener, Router::new().route("/", get(body))).into_future());
    status.wait_for(AgentStatus::is_connected).await?;

    // One request. Its connection is cut under it 20 times.
    let client = Client::builder(TokioExecutor::new()).build::<_, Body>(RevDialConnector::new(connman));
    let mut body = client.get("http://desktop-1/".parse()?).await?.into_body();
    let (mut received, mut hash, mut cuts) = (0, Sha256::new(), 0);
    while let Some(frame) = body.frame().await {
        let data = frame?.into_data().unwrap_or_default();
        hash.update(&data);
        received += data.len();
        if cuts < CUTS && received > (cuts + 1) * CHUNKS * CHUNK / (CUTS + 1) {
            cuts += 1;
            let at = Instant::now();
            cut.notify_one();
            let is_back = |now: &AgentStatus| matches!(now, AgentStatus::Connected { since } if *since >= at);
            status.wait_for(is_back).await?;
            println!("cut {cuts:2}, {received:8} bytes in: back after {:.1?}", at.elapsed());
        }
    }

    let sent = HEXLOWER.encode(&chunks().fold(Sha256::new(), Sha256::chain_update).finalize());
    let got = HEXLOWER.encode(&hash.finalize());
    println!("sent     {} bytes, SHA-256 {sent}\nreceived {received} bytes, SHA-256 {got}", CHUNKS * CHUNK);
    if sent == got { Ok(()) } else { Err("they differ".into()) }
}

/// Passes connections on, one at a time, and resets the one that there is whenever it is told to.
async fn proxy(listener: TcpListener, gateway: SocketAddr, cut: Arc<Notify>) -> std::io::Result<()> {
    loop {
        let (mut agent, _) = listener.accept().await?;
        let mut server = TcpStream::connect(gateway).await?;
        for socket in [&agent, &server] {
            socket.set_nodelay(true)?;
            socket.set_zero_linger()?;
        }
        tokio::select! {
            _ = copy_bidirectional(&mut agent, &mut server) => {}
            () = cut.notified() => {}
        }
    }
}

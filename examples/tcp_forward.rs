//! A local port that leads through a tunnel to a TCP service beside an agent, for ssh, PostgreSQL, anything.
//!
//! ```sh
//! cargo run --example tcp_forward    # to a service of its own, to show it, and ends
//! cargo run --example tcp_forward -- --listen 127.0.0.1:2222 --service 127.0.0.1:22    # to one of this machine's
//! ```
//!
//! Gateway and agent are in its own process, so it reaches no sandbox. Where a gateway runs it is that one which forwards:
//! the example `gateway` does with `--forward desktop-1/ssh=127.0.0.1:2222`.

use axum::{Router, serve::ListenerExt};
use clap::Parser;
use revdial::{
    AgentKey, TargetName,
    agent::{Agent, AgentStatus, Targets},
    connman::{ConnectionManager, Dial},
    server::{RevDialLayer, SharedBearer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

/// Forwards a local port through a tunnel whose gateway and agent are in this process too: it reaches no sandbox.
#[derive(Parser)]
struct Args {
    /// The local port.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// The agent.
    #[arg(long, default_value = "desktop-1")]
    key: AgentKey,
    /// What to reach behind it.
    #[arg(long, default_value = "ssh")]
    target: TargetName,
    /// Where that is, seen from the agent. Without it there is one that answers once, and then all ends.
    #[arg(long)]
    service: Option<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Args { listen, key, target, service } = Args::parse();
    let port = TcpListener::bind(listen).await?;
    let addr = port.local_addr()?;
    let (is_shown, service) = (service.is_none(), service.map_or_else(answering, Ok)?);
    let connman = gateway_and_agent(&key, format!("{target}={service}")).await?;
    println!("{addr} leads to {target} of {key}");
    let forwarding = tokio::spawn(forward(port, connman, key, target));
    if !is_shown {
        return Ok(forwarding.await??);
    }
    let mut socket = TcpStream::connect(addr).await?;
    socket.write_all(b"a question").await?;
    socket.shutdown().await?; // of this half only: the answer is still to come
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    println!("{answer}");
    assert_eq!(answer, "an answer to a question");
    Ok(())
}

/// Has each connection to a port be a stream to a target.
async fn forward(
    port: TcpListener,
    connman: ConnectionManager,
    key: AgentKey,
    target: TargetName,
) -> std::io::Result<()> {
    loop {
        let (mut socket, _) = port.accept().await?;
        socket.set_nodelay(true)?;
        let dial = connman.dial(&key, &target);
        tokio::spawn(async move {
            if let Err(why) = pass(&mut socket, dial).await {
                eprintln!("a connection failed: {why}");
                let _ = socket.set_zero_linger(); // RST: dropped, it would end as if all had been said
            }
        });
    }
}

/// Copies both ways until both ends have said all.
async fn pass(socket: &mut TcpStream, dial: Dial) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut stream = dial.await?;
    let copied = copy_bidirectional(socket, &mut stream).await;
    if copied.is_err() {
        stream.reset(); // for the same reason
    }
    Ok(copied.map(drop)?)
}

/// An app that agents dial in to, and one that has, and forwards to this target.
async fn gateway_and_agent(key: &AgentKey, target: String) -> Result<ConnectionManager, Box<dyn std::error::Error>> {
    let connman = ConnectionManager::new();
    let app = Router::new().layer(RevDialLayer::new(connman.clone(), SharedBearer::new("secret")?));
    let gateway = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", gateway.local_addr()?);
    tokio::spawn(axum::serve(gateway.tap_io(|stream| drop(stream.set_nodelay(true))), app).into_future());

    let agent = Agent::builder(url, key.as_str()).token("secret").build()?;
    let mut status = agent.status();
    tokio::spawn(agent.forward(Targets::parse([target])?));
    status.wait_for(AgentStatus::is_connected).await?;
    Ok(connman)
}

/// A service that hears a question to its end before it answers.
fn answering() -> std::io::Result<String> {
    let service = std::net::TcpListener::bind("127.0.0.1:0")?;
    let addr = service.local_addr()?.to_string();
    std::thread::spawn(move || -> std::io::Result<()> {
        let mut socket = service.accept()?.0;
        let question = std::io::read_to_string(&socket)?;
        std::io::Write::write_all(&mut socket, format!("an answer to {question}").as_bytes())
    });
    Ok(addr)
}

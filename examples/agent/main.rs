//! The sandbox side as a program: forwards what the gateway asks for to local ports and sockets.
//!
//! ```sh
//! cargo run --example agent -- --server http://127.0.0.1:8080 --key sandbox-1 --token secret \
//!     --forward 127.0.0.1:3000 --forward docker=unix:///run/docker.sock
//! ```

use std::time::Duration;

use clap::Parser;
use revdial::{
    agent::{Agent, ProtocolChoice, Targets},
    proto::SessionConfig,
};

/// Dials out to a gateway and serves what it asks for.
#[derive(Parser)]
struct Args {
    /// The gateway's base, such as http://host:port; the endpoint's path is added unless it is there.
    #[arg(long)]
    server: String,
    /// The name of this sandbox.
    #[arg(long)]
    key: String,
    /// What the gateway lets it in by.
    #[arg(long, env = "RUNNER_TOKEN", hide_env_values = true)]
    token: String,
    /// [NAME=]ADDR: host:port or unix:///path; without a name it is the default target. May be given many times.
    #[arg(long, required = true)]
    forward: Vec<String>,
    /// How long the tunnel may be silent before it is asked for a sign of life.
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    ping_interval: Duration,
    /// How long without one until it is held for dead.
    #[arg(long, default_value = "45s", value_parser = humantime::parse_duration)]
    dead_after: Duration,
    /// How long running streams may finish when the agent is told to stop.
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    drain: Duration,
    /// What is spoken with the gateway: auto, native, or dialback.
    #[arg(long, default_value = "auto")]
    protocol: ProtocolChoice,
    /// Do not verify the gateway's certificate.
    #[arg(long)]
    insecure: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    let args = Args::parse();
    let session =
        SessionConfig { ping_interval: args.ping_interval, dead_after: args.dead_after, ..SessionConfig::default() };
    let agent = Agent::builder(args.server, args.key)
        .token(args.token)
        .agent_version(concat!("revdial-agent/", env!("CARGO_PKG_VERSION")))
        .session(session)
        .protocol(args.protocol)
        .insecure(args.insecure)
        .build()?;
    let (shutdown, terminated) = (agent.shutdown_handle(), terminated()?);
    tokio::spawn(async move {
        terminated.await;
        shutdown.shutdown(args.drain);
    });
    Ok(agent.forward(Targets::parse(args.forward)?).await?)
}

/// Resolves on SIGTERM and on Ctrl-C, which end the process in no other way from this call on.
fn terminated() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

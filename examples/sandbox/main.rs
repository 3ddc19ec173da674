//! A sandbox that has no port at all: an axum app served through the tunnel itself.
//!
//! ```sh
//! cargo run --example sandbox -- --server http://127.0.0.1:8080 --key desktop-1 --token secret
//! curl -o screenshot.png http://127.0.0.1:8080/api/v1/external-agents/1/screenshot
//! ```

mod app;
mod picture;
mod websocket;

use std::time::Duration;

use clap::Parser;
use revdial::agent::Agent;

/// How long running streams may finish when the sandbox is told to stop.
const DRAIN: Duration = Duration::from_secs(1);

/// A desktop's services, reached through a gateway.
#[derive(Parser)]
struct Args {
    /// The gateway's base, such as http://host:port.
    #[arg(long)]
    server: String,
    /// The name of this sandbox.
    #[arg(long)]
    key: String,
    /// What the gateway lets it in by.
    #[arg(long, env = "RUNNER_TOKEN", hide_env_values = true)]
    token: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    let args = Args::parse();
    let app = app::router(&args.key);
    let agent = Agent::builder(args.server, args.key)
        .token(args.token)
        .agent_version(concat!("revdial-sandbox/", env!("CARGO_PKG_VERSION")))
        .build()?;
    let (shutdown, terminated) = (agent.shutdown_handle(), terminated()?);
    tokio::spawn(async move {
        terminated.await;
        shutdown.shutdown(DRAIN);
    });
    let (listener, run) = agent.listen();
    tokio::spawn(axum::serve(listener, app).into_future());
    Ok(run.await?)
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

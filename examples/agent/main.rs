//! The sandbox side as a program: forwards what the gateway asks for to local ports and sockets.
//!
//! ```sh
//! cargo run --example agent -- --server http://127.0.0.1:8080 --key sandbox-1 --token secret \
//!     --forward 127.0.0.1:3000 --forward docker=unix:///run/docker.sock
//! ```
//!
//! As a service of systemd: `revdial-agent.service` beside this file is a unit for it. It ends with 0 when it was told to
//! stop by SIGTERM or Ctrl-C, with 2 when a setting cannot be, with 3 when another agent has taken its key, and with 1
//! otherwise.

mod args;
mod log;
mod metrics;
#[path = "../monitoring/recorder.rs"]
mod recorder;
mod systemd;

use std::process::ExitCode;

use args::Args;
use clap::Parser;
use revdial::{
    Error, ErrorKind,
    agent::{ShutdownHandle, Targets},
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    log::start(args.log_levels);
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            let why: &dyn std::error::Error = &failed;
            error!(why, "the agent ends");
            match failed.kind() {
                ErrorKind::InvalidInput => ExitCode::from(2),
                ErrorKind::Replaced => ExitCode::from(3),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

async fn run(args: Args) -> Result<(), Error> {
    let targets = Targets::parse(&args.forward)?;
    let drain = args.drain;
    if let Some(listen) = args.metrics_listen {
        let why =
            |why: String| Error::with_source(ErrorKind::InvalidInput, format!("--metrics-listen {listen}: {why}"));
        let recorder = recorder::install().map_err(|failed| why(failed.to_string()))?;
        metrics::serve(listen, recorder).await.map_err(|failed| why(failed.to_string()))?;
    }
    let agent = args.builder()?.build()?;
    // From here on, neither signal ends the process in another way.
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(term), Ok(int)) = signals else { return Err(Error::new(ErrorKind::Internal)) };
    tokio::spawn(stop_when_told(term, int, agent.shutdown_handle(), drain));
    let told = tokio::spawn(systemd::tell(agent.status()));
    let ended = agent.forward(targets).await;
    // It ends with the agent, and its last words are waited for.
    let _ = told.await;
    ended
}

/// The first signal has what runs finish, the second one has it end at once.
async fn stop_when_told(mut term: Signal, mut int: Signal, shutdown: ShutdownHandle, drain: std::time::Duration) {
    for drain in [drain, std::time::Duration::ZERO] {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        info!(?drain, "told to stop");
        systemd::notify("STOPPING=1");
        shutdown.shutdown(drain);
    }
}

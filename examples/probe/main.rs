//! Says what is wrong between a caller, a gateway and a sandbox, and looks through to the sandbox: a screenshot, a
//! stream's pace, the gateway's counts.
//!
//! ```sh
//! cargo run --example probe -- doctor --server http://127.0.0.1:8080 --key desktop-1
//! cargo run --example probe -- screenshot 1 -o screenshot.png
//! cargo run --example probe -- stream 1 --duration 10
//! cargo run --example probe -- stats
//! ```
//!
//! The doctor takes no sandbox's place: its upgrades are of a version that there is not, so that no server grants them.
//! It goes the way that an agent on the same machine goes, through the proxy of the environment too, so it is best run
//! where the trouble is. What it knows of sandboxes comes from the routes of the `gateway` example.
//!
#![doc = include_str!("exit_codes.md")]

mod ask;
mod doctor;
mod egress;
mod fault;
mod gateway;
mod meter;
mod progress;
mod report;
mod screenshot;
mod server;
mod session;
mod socket;
mod stats;
mod steps;
mod stream;
mod tls;
mod unverified;
mod way;
#[path = "../sandbox/websocket.rs"]
mod websocket;
mod words;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};
use fault::Failure;
use gateway::{Bearer, Gateway};
use server::Server;
use way::Way;

/// Says what is wrong between a caller, a gateway and a sandbox.
#[derive(Parser)]
#[command(after_help = include_str!("exit_codes.md"))]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Where the gateway is, and what is shown to it.
#[derive(Args)]
struct Common {
    /// The gateway's base, such as https://host:port.
    #[arg(long, global = true, default_value = "http://127.0.0.1:8080")]
    server: String,
    /// What sandboxes show, to see whether it is right.
    #[arg(long, global = true, env = "RUNNER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// What callers show, if the gateway asks for it.
    #[arg(long, global = true, env = "CALLER_TOKEN", hide_env_values = true)]
    caller_token: Option<String>,
    /// Certificates in PEM to trust instead of Mozilla's roots.
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Do not verify the gateway's certificate.
    #[arg(long, global = true)]
    insecure: bool,
    /// How long each step may take; longer than the gateway's --dial-timeout.
    #[arg(long, global = true, default_value = "15s", value_parser = duration)]
    timeout: Duration,
    /// JSON instead of text, on standard output.
    #[arg(long, global = true)]
    json: bool,
}

impl Common {
    /// Looks at what clap does not: its complaints would show a URL's password, or a token.
    fn gateway(self) -> Result<Gateway, String> {
        let server = self.server.parse::<Server>().map_err(|why| {
            format!("--server: {why}; it is the gateway's base, such as https://gateway.example:8443")
        })?;
        let bearer = |name: &str, token: Option<String>| {
            token.map(|token| Bearer::new(token).map_err(|why| format!("{name}: {why}"))).transpose()
        };
        let way = Way::new(server, self.ca.as_deref(), self.insecure, self.timeout).map_err(|why| why.to_string())?;
        Ok(Gateway {
            way,
            token: bearer("--token (RUNNER_TOKEN)", self.token)?,
            caller_token: bearer("--caller-token (CALLER_TOKEN)", self.caller_token)?,
        })
    }
}

#[derive(Subcommand)]
enum Command {
    /// Saves a picture of a desktop.
    Screenshot(screenshot::Options),
    /// Watches a desktop's stream: frames, gaps, jitter, bytes.
    Stream(stream::Options),
    /// Shows who is connected, and how much goes on.
    Stats,
    /// Goes from here to the sandbox, and names the first fault.
    Doctor(doctor::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { common, command } = Cli::parse();
    let json = common.json;
    let gateway = match common.gateway() {
        Ok(gateway) => gateway,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(2);
        }
    };
    let done = match command {
        Command::Screenshot(options) => screenshot::run(&gateway, &options, json).await,
        Command::Stream(options) => stream::run(&gateway, &options, json).await,
        Command::Stats => stats::run(&gateway, json).await,
        Command::Doctor(options) => return doctor::run(&gateway, &options, json).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fails(&failure),
    }
}

fn fails(failure: &Failure) -> ExitCode {
    eprintln!("{failure}");
    failure.fault.into()
}

/// `10`, in seconds, or with a unit as in `1m 30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse().map(Duration::from_secs).or_else(|_| humantime::parse_duration(text));
    match parsed {
        Ok(duration) if duration.is_zero() => Err("it is zero".to_owned()),
        Ok(duration) if duration > MAX_DURATION => Err("it is longer than an hour".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

/// What is measured is kept in memory.
const MAX_DURATION: Duration = Duration::from_secs(3600);

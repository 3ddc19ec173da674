//! An axum app that sandboxes dial into, and through which callers reach them.
//!
//! ```sh
//! cargo run --example gateway -- --listen 127.0.0.1:8080 --token secret
//! curl http://127.0.0.1:8080/proxy/sandbox-1/
//! ```
//!
//! Its status page is at <http://127.0.0.1:8080/>. With `--domain tunnels.example` each sandbox has a host name too:
//! `http://sandbox-1.tunnels.example:8080/`. The [app](app) says who may see what. With
//! `--forward sandbox-1/ssh=127.0.0.1:2222` a [port](forward) of this machine leads to the target `ssh`.

mod app;
mod forward;
#[path = "../monitoring/recorder.rs"]
mod recorder;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use axum::serve::ListenerExt;
use clap::{Parser, builder::NonEmptyStringValueParser};
use forward::Forward;
use tokio::net::TcpListener;

/// How long callers may take to read the end when the gateway is told to stop.
const OVERDUE: Duration = Duration::from_secs(5);

/// Reaches sandboxes that dial in over a WebSocket.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 picks one.
    #[arg(long)]
    listen: SocketAddr,
    /// What sandboxes show to be let in.
    #[arg(long, env = "RUNNER_TOKEN", hide_env_values = true, value_parser = NonEmptyStringValueParser::new())]
    token: String,
    /// What callers show to reach sandboxes; without it only callers from this machine do.
    #[arg(long, env = "CALLER_TOKEN", hide_env_values = true, value_parser = NonEmptyStringValueParser::new())]
    caller_token: Option<String>,
    /// Below which domain each sandbox has a host name, KEY.DOMAIN and TARGET__KEY.DOMAIN, beside its path.
    #[arg(long)]
    domain: Option<app::Domain>,
    /// The proxy in front, whose X-Forwarded-For says last who asks, and whose X-Forwarded-* services get; without it all
    /// callers who come through one are one.
    #[arg(long, value_name = "ADDRESS")]
    trusted_proxy: Option<IpAddr>,
    /// A port of this machine that leads to a TCP service beside a sandbox; more than one may be given.
    #[arg(long, value_name = "KEY/TARGET=ADDRESS:PORT")]
    forward: Vec<Forward>,
    /// Let --forward have ports that other machines reach: whoever does so reaches the service, and shows no token.
    #[arg(long)]
    forward_anywhere: bool,
    /// For how long a sandbox that drops off is waited for.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// How long a sandbox may take to answer an open.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    dial_timeout: Duration,
    /// How long a tunnel may be silent before it is asked for a sign of life.
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    ping_interval: Duration,
    /// How long without one until it is held for dead.
    #[arg(long, default_value = "45s", value_parser = humantime::parse_duration)]
    dead_after: Duration,
    /// How long running streams may finish when the gateway is told to stop.
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    drain: Duration,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter()).init();
    let args = Args::parse();
    if !args.forward_anywhere && !args.forward.iter().all(Forward::is_local) {
        return Err("--forward: other machines would reach that port, which takes --forward-anywhere".into());
    }
    let metrics = recorder::install()?;
    let gateway = app::Gateway::new(app::Settings {
        token: args.token,
        caller_token: args.caller_token,
        domain: args.domain,
        trusted_proxy: args.trusted_proxy,
        grace: args.grace,
        dial_timeout: args.dial_timeout,
        ping_interval: args.ping_interval,
        dead_after: args.dead_after,
        metrics,
    })?;
    let (terminated, overdue) = (terminated()?, terminated()?);
    let listener = TcpListener::bind(args.listen).await.map_err(|why| format!("--listen {}: {why}", args.listen))?;
    println!("listening on http://{}", listener.local_addr()?);
    for forward in args.forward {
        println!("{}", forward.start(gateway.connman.clone()).await?);
    }
    // Without it small answers wait up to 40 ms for the peer's delayed ACK.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let server = axum::serve(listener, gateway.router.clone().into_make_service_with_connect_info::<SocketAddr>());
    let graceful = server.with_graceful_shutdown(async move {
        terminated.await;
        gateway.drain(args.drain).await; // first, so that what runs through tunnels ends, and so its connections
    });
    // What is neither idle nor a tunnel by then is a caller that does not read.
    tokio::select! {
        ended = graceful => ended?,
        () = async { overdue.await; tokio::time::sleep(args.drain + OVERDUE).await } => {}
    }
    Ok(())
}

fn filter() -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into())
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

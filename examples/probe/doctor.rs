//! `probe doctor`: from here to the service behind a sandbox, step by step.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use http::uri::PathAndQuery;
use revdial::{AgentKey, TargetName};

use crate::{
    gateway::Gateway,
    report::Report,
    steps::{endpoint, idle, network, tunnel},
};

#[derive(Args)]
pub(crate) struct Options {
    /// The sandbox to look at; without it the steps end at the gateway.
    #[arg(long)]
    key: Option<AgentKey>,
    /// The target behind it, by name.
    #[arg(long, default_value = "", hide_default_value = true)]
    target: TargetName,
    /// What to ask of the target.
    #[arg(long, default_value = "/", value_parser = path)]
    path: String,
    /// Find out after how long a middlebox cuts an idle connection, up to this. It takes as long, and RUNNER_TOKEN has
    /// to be good for a key of the probe's own.
    #[arg(long, value_name = "DURATION", value_parser = crate::duration)]
    idle_up_to: Option<Duration>,
}

pub(crate) async fn run(gateway: &Gateway, options: &Options, json: bool) -> ExitCode {
    let mut report = Report::new(json);
    if examine(gateway, options, &mut report).await.is_some() {
        report.step("idle", idle::idle(gateway, options.idle_up_to)).await;
    }
    report.finish()
}

/// Everything but the idle time. `None` if the gateway is not reached.
async fn examine(gateway: &Gateway, options: &Options, report: &mut Report) -> Option<()> {
    let (way, key) = (&gateway.way, options.key.as_ref());
    let addrs = report.step("name", network::name(way)).await?;
    let tcp = report.step("tcp", network::tcp(way, &addrs)).await?;
    let io = report.step("proxy", network::proxy(way, tcp)).await?;
    let io = report.step("tls", network::tls(way, io)).await?;
    let plain = report.step("middlebox", endpoint::plain(gateway, io)).await?;
    let credentials = report.step("upgrade", endpoint::upgrade(gateway, key, &plain)).await?;
    report.step("auth", endpoint::auth(gateway, key, credentials)).await;
    let Some(key) = key else {
        report.step("tunnel", tunnel::keys(gateway)).await;
        return Some(());
    };
    if let Some(tunnel) = report.step("tunnel", tunnel::state(gateway, key)).await {
        report.step("target", tunnel.target(gateway, &options.target, &options.path)).await;
        report.step("round trip", tunnel.round_trip(gateway)).await;
    }
    Some(())
}

fn path(text: &str) -> Result<String, &'static str> {
    if !text.starts_with('/') || text.parse::<PathAndQuery>().is_err() {
        return Err("a path begins with / and has no spaces");
    }
    Ok(text.to_owned())
}

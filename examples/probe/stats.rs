//! `probe stats`: what the gateway says of itself, and a line for each sandbox.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use crate::{
    fault::{Failure, Fault},
    gateway::{Gateway, turned_away},
    progress::during,
    words::{say, shown, size, took},
};

const HEAD: [&str; 9] = ["KEY", "STATE", "SINCE", "RTT", "STREAMS", "SENT", "RECEIVED", "RECONNECTS", "LAST CAUSE"];

/// Lines that are asked for at once; a gateway with more tells what follows in `next`.
const LINES: usize = 1000;

/// The gateway's `/stats`, with the lines after a key; `None` where there is no such route.
pub(crate) async fn fetch(gateway: &Gateway, after: Option<&str>) -> Result<Option<Value>, Failure> {
    let after = after.map_or_else(String::new, |after| format!("&after={after}"));
    let request = gateway.call(&gateway.way.server.route(&format!("/stats?limit={LINES}{after}")))?;
    let next = gateway.command("doctor");
    let answer = gateway.ask(request).await;
    let answer = answer.map_err(|why| why.blamed(Fault::Upgrade, "the gateway hangs, or is none", &next))?;
    if answer.status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    if let Some(away) = turned_away(gateway, &answer) {
        return Err(away);
    }
    match serde_json::from_slice(&answer.body) {
        Ok(stats) if answer.status.is_success() => Ok(Some(stats)),
        _ => {
            let what = format!("/stats is answered with {} and no JSON", answer.status);
            Err(Failure::new(Fault::Upgrade, what, "something else than the gateway answers there", next))
        }
    }
}

/// The lines.
pub(crate) fn agents(stats: &Value) -> &[Value] {
    stats["agents"].as_array().map_or(&[], Vec::as_slice)
}

/// A field of seconds.
pub(crate) fn seconds(value: &Value) -> Option<Duration> {
    value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

/// A field of text, safe to show.
pub(crate) fn text(value: &Value) -> Option<String> {
    value.as_str().map(shown)
}

pub(crate) async fn run(gateway: &Gateway, json: bool) -> Result<(), Failure> {
    let Some(stats) = during("the gateway's counts", fetch(gateway, None)).await? else {
        let cause = "it is no gateway, or one without that route";
        return Err(Failure::new(Fault::Upgrade, "/stats is answered with 404", cause, gateway.command("doctor")));
    };
    if json {
        say(format_args!("{stats:#}"));
        return Ok(());
    }
    let count = |name: &str| stats[name].as_u64().unwrap_or_default();
    say(format_args!(
        "{} connected, {} in grace; {} dials wait for {} of them; {} streams; sent {}, received {}",
        count("active_connections"),
        count("grace_period_entries"),
        count("pending_dials_total"),
        count("pending_dials_keys"),
        count("streams"),
        size(count("sent_bytes")),
        size(count("received_bytes")),
    ));
    let agents = agents(&stats);
    if !agents.is_empty() {
        table(agents.iter().map(row));
    }
    if let Some(matching) = stats["matching"].as_u64().filter(|matching| *matching > agents.len() as u64) {
        say(format_args!("… and {} more", matching - agents.len() as u64));
    }
    Ok(())
}

fn row(agent: &Value) -> [String; 9] {
    let or_none = |shown: Option<String>| shown.unwrap_or_else(|| "-".to_owned());
    let count = |name: &str| agent[name].as_u64().unwrap_or_default();
    [
        or_none(text(&agent["key"])),
        or_none(text(&agent["state"])),
        or_none(seconds(&agent["since_seconds"]).map(took)),
        or_none(seconds(&agent["rtt_seconds"]).map(took)),
        count("streams").to_string(),
        size(count("sent_bytes")),
        size(count("received_bytes")),
        count("reconnects").to_string(),
        or_none(text(&agent["last_cause"])),
    ]
}

/// Prints rows below the head, each column as wide as its widest.
fn table(rows: impl Iterator<Item = [String; 9]>) {
    let rows: Vec<_> = std::iter::once(HEAD.map(str::to_owned)).chain(rows).collect();
    let widths: [usize; 9] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default());
    for row in rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        say(cells.join("  ").trim_end());
    }
}

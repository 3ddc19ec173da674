//! What `/stats` tells: counts, and a line for each sandbox.
//!
//! A million lines are for nobody. `limit` says how many there may be (100 unless told, 1,000 at most), `next` in the
//! answer is what to give as `after` for those that follow. `state` (`connected`, `grace`, `draining`) and `q` (part of a
//! key, a version or a label) choose; `matching` is how many there are then. Counts are those of the whole fleet.

use std::collections::HashMap;

use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
};
use revdial::connman::{AgentInfo, KeyState};
use serde_json::{Map, Value, json};

use super::App;

const LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// Which lines are asked for.
struct Choice {
    limit: usize,
    after: Option<String>,
    state: Option<Wanted>,
    text: String,
}

#[derive(Clone, Copy)]
enum Wanted {
    Connected,
    Grace,
    Draining,
}

impl Choice {
    fn of(mut query: HashMap<String, String>) -> Option<Self> {
        let limit = query.remove("limit").map_or(Ok(LIMIT), |limit| limit.parse()).ok()?;
        let state = match query.remove("state").as_deref() {
            None | Some("") => None,
            Some("connected") => Some(Wanted::Connected),
            Some("grace") => Some(Wanted::Grace),
            Some("draining") => Some(Wanted::Draining),
            Some(_) => return None,
        };
        let text = query.remove("q").unwrap_or_default().to_lowercase();
        Some(Self { limit: limit.min(MAX_LIMIT), after: query.remove("after"), state, text })
    }

    fn takes(&self, agent: &AgentInfo) -> bool {
        let state = match self.state {
            None => true,
            Some(Wanted::Connected) => agent.state == KeyState::Connected,
            Some(Wanted::Grace) => agent.state == KeyState::Grace,
            Some(Wanted::Draining) => agent.draining_sessions > 0,
        };
        let has = |text: &str| text.to_lowercase().contains(&self.text);
        state
            && (has(agent.key.as_str())
                || has(&agent.agent_version)
                || agent.labels.iter().any(|(name, value)| has(name) || has(value)))
    }
}

pub(crate) async fn stats(
    State(app): State<App>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Json<Value>, StatusCode> {
    Choice::of(query).map(|choice| Json(report(&app, &choice))).ok_or(StatusCode::BAD_REQUEST)
}

fn report(app: &App, choice: &Choice) -> Value {
    let stats = app.connman.stats();
    let mut agents = app.connman.list();
    agents.retain(|agent| choice.takes(agent));
    let matching = agents.len();
    if let Some(after) = &choice.after {
        agents.retain(|agent| agent.key.as_str() > after.as_str());
    }
    let more = agents.len() > choice.limit;
    agents.truncate(choice.limit);
    let next = agents.last().filter(|_| more).map(|last| last.key.to_string());
    json!({
        "gateway": {
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": app.started.elapsed().as_secs_f64(),
            "draining": !app.phase.is_serving(),
        },
        "active_connections": stats.active_connections,
        "grace_period_entries": stats.grace_period_entries,
        "pending_dials_total": stats.pending_dials_total,
        "pending_dials_keys": stats.pending_dials_keys,
        "waking_keys": stats.waking_keys,
        "draining_sessions": stats.draining_sessions,
        "streams": stats.streams,
        "sent_bytes": stats.sent_bytes,
        "received_bytes": stats.received_bytes,
        "matching": matching,
        "next": next,
        "agents": agents.into_iter().map(line).collect::<Vec<_>>(),
    })
}

fn line(agent: AgentInfo) -> Value {
    json!({
        "key": agent.key.as_str(),
        "state": agent.state.as_str(),
        "since_seconds": agent.since.as_secs_f64(),
        "grace_left_seconds": agent.grace_left.map(|left| left.as_secs_f64()),
        "epoch": agent.epoch.number(),
        "peer": agent.peer_addr.map(|addr| addr.to_string()),
        "protocol": agent.protocol.as_str(),
        "version": agent.agent_version,
        "labels": agent.labels.into_iter().map(|(name, value)| (name, Value::from(value))).collect::<Map<_, _>>(),
        "rtt_seconds": agent.rtt.map(|rtt| rtt.as_secs_f64()),
        "pending_dials": agent.pending_dials,
        "streams": agent.streams,
        "draining_sessions": agent.draining_sessions,
        "sent_bytes": agent.sent_bytes,
        "received_bytes": agent.received_bytes,
        "reconnects": agent.reconnects,
        "last_cause": agent.last_cause.map(|cause| cause.to_string()),
    })
}

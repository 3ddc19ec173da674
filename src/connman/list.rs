//! What operators see of a manager: counts, and a line for each key.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    connman::{handle::Handle, policy::LossCause, registry::Entry, state::Inner},
    frame::InstanceId,
    key::{AgentKey, Epoch},
    link::Protocol,
};

/// How much there is of everything, now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys with a tunnel.
    pub active_connections: usize,
    /// Keys in grace.
    pub grace_period_entries: usize,
    /// Dials that wait for a tunnel.
    pub pending_dials_total: usize,
    /// Keys that dials wait for.
    pub pending_dials_keys: usize,
    /// Absent keys whose agents are being [started](crate::connman::Wake), or were just now and are on their way.
    pub waking_keys: usize,
    /// Sessions that open nothing new and finish what runs.
    pub draining_sessions: usize,
    /// Open streams, those of sessions in grace and of draining ones included.
    pub streams: usize,
    /// Payload bytes sent to agents, by the sessions that there are now.
    pub sent_bytes: u64,
    /// Payload bytes received from agents, likewise.
    pub received_bytes: u64,
}

/// Whether a key has a tunnel. A key that is in no list is absent; whether it was there before,
/// [`gone`](crate::connman::ConnectionManager::gone) tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyState {
    /// It has one.
    Connected,
    /// Its link was lost, and may come back.
    Grace,
}

impl KeyState {
    /// The state as a word: `connected`, `grace`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Grace => "grace",
        }
    }
}

/// One key, and the agent that has it or had it last.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentInfo {
    /// The key.
    pub key: AgentKey,
    /// Whether it is connected.
    pub state: KeyState,
    /// For how long it has been in this state.
    pub since: Duration,
    /// How much of the grace is left; `None` when connected.
    pub grace_left: Option<Duration>,
    /// The epoch of its last link.
    pub epoch: Epoch,
    /// Who proved to be allowed the key.
    pub principal: String,
    /// The agent's run.
    pub instance: InstanceId,
    /// Where the link comes from, if the host's server tells.
    pub peer_addr: Option<SocketAddr>,
    /// What it speaks.
    pub protocol: Protocol,
    /// The agent's program and version: its own words.
    pub agent_version: String,
    /// The agent's labels: its own words.
    pub labels: Vec<(String, String)>,
    /// The last measured round trip, if any.
    pub rtt: Option<Duration>,
    /// Open streams. In grace those that wait for the agent's return.
    pub streams: usize,
    /// Dials that wait for its tunnel.
    pub pending_dials: usize,
    /// Earlier sessions of the key that open nothing new and finish what runs.
    pub draining_sessions: usize,
    /// Payload bytes sent to the agent in this session.
    pub sent_bytes: u64,
    /// Payload bytes received from the agent in this session.
    pub received_bytes: u64,
    /// How often an agent has taken the key anew since it was last absent.
    pub reconnects: u32,
    /// How the link before the last one ended, or the last one when in grace.
    pub last_cause: Option<LossCause>,
}

impl AgentInfo {
    fn of<T: Handle>(entry: &Entry<T>, now: Instant) -> Self {
        let stats = entry.tunnel.as_ref().map(Handle::stats).unwrap_or_default();
        let who = &*entry.registration;
        Self {
            key: who.key.clone(),
            state: if entry.until.is_none() { KeyState::Connected } else { KeyState::Grace },
            since: now.saturating_duration_since(entry.since),
            grace_left: entry.until.map(|until| until.saturating_duration_since(now)),
            epoch: who.epoch,
            principal: who.principal.clone(),
            instance: who.instance,
            peer_addr: who.peer_addr,
            protocol: who.protocol,
            agent_version: who.agent_version.clone(),
            labels: who.labels.clone(),
            rtt: stats.rtt,
            streams: stats.streams,
            pending_dials: entry.waiting,
            draining_sessions: entry.leaving.len(),
            sent_bytes: stats.sent_bytes,
            received_bytes: stats.received_bytes,
            reconnects: entry.reconnects,
            last_cause: entry.last_cause,
        }
    }
}

/// Every key that is connected or in grace. Sessions are asked outside the lock.
pub(super) fn list<T: Handle>(inner: &Arc<Inner<T>>) -> Vec<AgentInfo> {
    let (entries, now) = inner.with(|state, now| (state.registry.entries(now), now));
    let mut agents: Vec<AgentInfo> = entries.into_iter().map(|entry| AgentInfo::of(&entry, now)).collect();
    agents.sort_by(|a, b| a.key.cmp(&b.key));
    agents
}

/// How much there is of everything.
pub(super) fn stats<T: Handle>(inner: &Arc<Inner<T>>) -> Stats {
    let (tunnels, counts) = inner.with(|state, now| (state.registry.tunnels(now), state.registry.counts()));
    let mut stats = Stats {
        active_connections: counts.connected,
        grace_period_entries: counts.grace,
        pending_dials_total: counts.waiting,
        pending_dials_keys: counts.waiting_keys,
        waking_keys: counts.waking,
        draining_sessions: counts.leaving,
        ..Stats::default()
    };
    for session in tunnels.iter().map(Handle::stats) {
        stats.streams = stats.streams.saturating_add(session.streams);
        stats.sent_bytes = stats.sent_bytes.saturating_add(session.sent_bytes);
        stats.received_bytes = stats.received_bytes.saturating_add(session.received_bytes);
    }
    stats
}

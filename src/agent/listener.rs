//! How a program takes streams itself, with no port at all: a listener in the place of a TCP listener.

use std::{collections::BTreeSet, fmt};

use tokio::sync::mpsc;
use tracing::debug;

use crate::{
    frame::ResetCode,
    key::{AgentKey, TargetName},
    mux::MuxTunnel,
    tunnel::{Incoming, TunnelStream},
};

/// Streams that may wait for [`Listener::accept`]; further ones wait in the session, within its bounds.
const QUEUE: usize = 16;

/// Takes the streams that callers open to this agent, as a TCP listener takes connections.
///
/// Made by [`Agent::listen`](crate::agent::Agent::listen). It serves the default target, or those that
/// [`targets`](Self::targets) names; others are refused with [`ErrorKind::TargetUnknown`](crate::ErrorKind).
/// It outlives links: while the agent is away it waits. Dropping it refuses what comes from then on; streams that
/// were taken go on.
///
/// With the feature `axum` it is an `axum::serve::Listener`.
#[derive(Debug)]
pub struct Listener {
    queue: mpsc::Receiver<Incoming>,
    targets: BTreeSet<TargetName>,
    key: AgentKey,
}

/// The address of a stream's end at an agent: whose it is, and which target was asked for.
///
/// As text `KEY` or `TARGET~KEY`, as in URIs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AgentAddr {
    key: AgentKey,
    target: TargetName,
}

/// The run's end of a listener.
#[derive(Debug, Clone)]
pub(crate) struct Queue(mpsc::Sender<Incoming>);

/// A listener for `key`, and the end that fills it.
pub(crate) fn listener(key: AgentKey) -> (Queue, Listener) {
    let (sender, queue) = mpsc::channel(QUEUE);
    (Queue(sender), Listener { queue, targets: BTreeSet::from([TargetName::default()]), key })
}

impl Listener {
    /// Serves these targets and no other; [`TargetName::default`] is the default one.
    #[must_use]
    pub fn targets(mut self, targets: impl IntoIterator<Item = TargetName>) -> Self {
        self.targets = targets.into_iter().collect();
        self
    }

    /// The next stream, accepted; `None` when the agent's run has ended.
    ///
    /// A caller's dial succeeds when its stream is taken here, so that a program that is busy is a dial that waits.
    ///
    /// # Cancel safety
    /// Dropping the future loses no stream.
    pub async fn accept(&mut self) -> Option<TunnelStream> {
        loop {
            let incoming = self.queue.recv().await?;
            if !self.targets.contains(&incoming.target()) {
                debug!(target = %incoming.target(), "refused a stream: not a target of this listener");
                incoming.refuse(ResetCode::TARGET_UNKNOWN, "not a target of this agent");
                continue;
            }
            // The caller may have given up while the stream waited here.
            if let Ok(stream) = incoming.accept() {
                return Some(stream);
            }
        }
    }

    /// The agent's address, with the default target.
    #[must_use]
    pub fn addr(&self) -> AgentAddr {
        AgentAddr { key: self.key.clone(), target: TargetName::default() }
    }

    /// The address that the caller of `stream` asked for.
    #[must_use]
    pub fn addr_of(&self, stream: &TunnelStream) -> AgentAddr {
        AgentAddr { key: self.key.clone(), target: stream.target().clone() }
    }
}

impl Queue {
    /// Takes what the server opens until the session ends.
    pub(crate) async fn pump(&self, tunnel: &MuxTunnel) {
        while let Ok(incoming) = tunnel.incoming().await {
            self.send(Incoming::Mux(incoming)).await;
        }
    }

    /// Takes one stream, once there is room.
    pub(crate) async fn send(&self, incoming: Incoming) {
        if let Err(mpsc::error::SendError(incoming)) = self.0.send(incoming).await {
            incoming.refuse(ResetCode::TARGET_REFUSED, "nothing listens here any more");
        }
    }

    /// Whether nobody listens any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

impl AgentAddr {
    /// The agent's key.
    #[must_use]
    pub fn key(&self) -> &AgentKey {
        &self.key
    }

    /// The target that was asked for.
    #[must_use]
    pub fn target(&self) -> &TargetName {
        &self.target
    }
}

impl fmt::Display for AgentAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.target.is_default() { self.key.fmt(f) } else { write!(f, "{}~{}", self.target, self.key) }
    }
}

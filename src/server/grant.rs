//! What a request is granted: a key, on whose behalf, and for how long.

use std::{net::SocketAddr, time::Duration};

use crate::key::AgentKey;

/// Tunnels are judged again no more often: each costs the host a question.
const MIN_RECHECK: Duration = Duration::from_secs(1);

/// The longest drain, for the longest download.
pub(super) const MAX_DRAIN: Duration = Duration::from_secs(3600);

/// The leave to open a tunnel: under which key, and on whose behalf.
///
/// ```
/// use std::time::Duration;
/// use revdial::server::Grant;
///
/// let grant = Grant::new("desktop-7".parse()?, "alice").expires_in(Duration::from_secs(3600));
/// assert_eq!((grant.key().as_str(), grant.principal()), ("desktop-7", "alice"));
/// # Ok::<(), revdial::InvalidName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    key: AgentKey,
    principal: String,
    lifetime: Option<Duration>,
    drain: Duration,
    recheck: Option<Duration>,
    peer_addr: Option<SocketAddr>,
}

impl Grant {
    /// A grant without end. Two agents with one key are taken for the same if `principal` is equal, and the second
    /// is refused if not.
    #[must_use]
    pub fn new(key: AgentKey, principal: impl Into<String>) -> Self {
        Self { key, principal: principal.into(), lifetime: None, drain: Duration::ZERO, recheck: None, peer_addr: None }
    }

    /// Closes the tunnel with 4401 this long after it was granted, so that the agent comes back with new
    /// credentials. Zero grants nothing: the answer is 401. Default: it does not expire.
    ///
    /// An agent whose tunnel was closed comes back after 30 s or more, since it has to take its credentials for bad
    /// ones. For a change without a gap, [`drain_for`](Self::drain_for).
    #[must_use]
    pub fn expires_in(self, lifetime: Duration) -> Self {
        Self { lifetime: Some(lifetime), ..self }
    }

    /// Has the tunnel drain for the last part of its [lifetime](Self::expires_in), half of that and an hour at the most:
    /// the agent is told to connect anew, nothing new is opened on the old session, and what runs there may finish until it
    /// expires. Default zero: it is closed in the midst of what runs.
    #[must_use]
    pub fn drain_for(self, drain: Duration) -> Self {
        Self { drain, ..self }
    }

    /// Asks [`Authorize::recheck`](crate::server::Authorize::recheck) about the tunnel as often as this, at most once
    /// in a second. Default: never.
    #[must_use]
    pub fn recheck_every(self, interval: Duration) -> Self {
        Self { recheck: Some(interval.max(MIN_RECHECK)), ..self }
    }

    /// Where the agent connects from, for lists and logs; only the host's server knows. Default: what
    /// [`RevDialLayer::peer_addr`](crate::server::RevDialLayer::peer_addr) says.
    #[must_use]
    pub fn peer_addr(self, addr: SocketAddr) -> Self {
        Self { peer_addr: Some(addr), ..self }
    }

    /// The key under which the tunnel is registered.
    #[must_use]
    pub fn key(&self) -> &AgentKey {
        &self.key
    }

    /// On whose behalf.
    #[must_use]
    pub fn principal(&self) -> &str {
        &self.principal
    }

    pub(crate) fn lifetime(&self) -> Option<Duration> {
        self.lifetime
    }

    /// For how long it drains before it expires.
    pub(crate) fn drain(&self) -> Duration {
        self.lifetime.map_or(Duration::ZERO, |lifetime| self.drain.min(lifetime / 2).min(MAX_DRAIN))
    }

    pub(crate) fn recheck(&self) -> Option<Duration> {
        self.recheck
    }

    /// The same, from this address if it does not say.
    pub(crate) fn or_peer_addr(self, addr: Option<SocketAddr>) -> Self {
        Self { peer_addr: self.peer_addr.or(addr), ..self }
    }

    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.peer_addr
    }
}

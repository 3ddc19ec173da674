//! The handle on all of it: tunnels are registered, dialled, listed and closed here.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    connman::{
        builder::ConnectionManagerBuilder,
        dial::Dial,
        event::RegisterRefusal,
        handle::Handle,
        list::{self, AgentInfo, KeyState, Stats},
        policy::{LossCause, Registration},
        registry::{Found, Refusal},
        state::Inner,
    },
    frame::CloseCode,
    key::{AgentKey, Epoch, TargetName},
    link::LinkEnd,
    tunnel::Tunnel,
};

/// Knows which agents are connected, holds the keys of those that were lost, and lets dials wait for them.
///
/// Cheap to clone; clones are one manager. Give one clone to the
/// [`RevDialLayer`](crate::server::RevDialLayer), which registers tunnels, and others to what dials them.
///
/// ```
/// use std::time::Duration;
/// use revdial::connman::{ConnectionManager, FixedGrace};
///
/// let connman = ConnectionManager::builder()
///     .grace(FixedGrace::secs(60))
///     .dial_timeout(Duration::from_secs(5))
///     .observer(|event: &revdial::connman::TunnelEvent| println!("{}: {}", event.key(), event.name()))
///     .build();
/// assert_eq!(connman.stats().active_connections, 0);
/// ```
#[derive(Clone)]
pub struct ConnectionManager {
    inner: Arc<Inner<Tunnel>>,
}

impl ConnectionManager {
    /// A manager with every default; see [`builder`](Self::builder).
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Settings for a manager.
    pub fn builder() -> ConnectionManagerBuilder {
        ConnectionManagerBuilder::new()
    }

    pub(super) const fn from_inner(inner: Arc<Inner<Tunnel>>) -> Self {
        Self { inner }
    }

    /// The epoch of the next link: higher than all before.
    pub(crate) fn next_epoch(&self) -> Epoch {
        self.inner.next_epoch()
    }

    /// How long a lost key is held at most: announced in WELCOME.
    pub(crate) fn max_hold(&self) -> Duration {
        self.inner.max_hold()
    }

    /// Makes a fresh session's tunnel its key's current one: a displaced tunnel is closed, waiting dials are released.
    /// Metrics and observers learn of it here, also of a refusal; closing a refused link is the caller's.
    pub(crate) fn register(&self, registration: Registration, tunnel: Tunnel) -> Result<Lease, RegisterRefusal> {
        Lease::register(&self.inner, registration, tunnel)
    }

    /// Opens a stream to a target of the agent that has the key, or soon has it again.
    pub fn dial(&self, key: &AgentKey, target: &TargetName) -> Dial {
        Dial::new(&self.inner, key, target)
    }

    /// The epoch of a key's tunnel; `None` if the key is not connected.
    #[must_use]
    pub fn epoch(&self, key: &AgentKey) -> Option<Epoch> {
        match self.inner.with(|state, now| state.registry.find(key, Epoch::new(0), now)) {
            Found::Ready(epoch, _) => Some(epoch),
            Found::Held | Found::Absent => None,
        }
    }

    /// How much there is of everything.
    #[must_use]
    pub fn stats(&self) -> Stats {
        list::stats(&self.inner)
    }

    /// Every key that is connected or in grace, in the order of keys.
    #[must_use]
    pub fn list(&self) -> Vec<AgentInfo> {
        list::list(&self.inner)
    }

    /// Every key that is in grace, in the order of keys.
    #[must_use]
    pub fn list_grace(&self) -> Vec<AgentInfo> {
        let mut agents = self.list();
        agents.retain(|agent| agent.state == KeyState::Grace);
        agents
    }

    /// Takes a key from its agent: the session is closed with 4401, its streams fail with
    /// [`SessionLost`](crate::ErrorKind::SessionLost), dials that wait for the key fail with
    /// [`NoConnection`](crate::ErrorKind::NoConnection). Ends a grace likewise. False: the key was neither connected
    /// nor in grace.
    ///
    /// The agent comes back, slowly, if its credentials still hold.
    pub fn disconnect(&self, key: &AgentKey) -> bool {
        self.inner.with(|state, now| state.registry.close(key, CloseCode::CREDENTIALS, Refusal::NoConnection, now))
    }

    /// Closes every session with 1012, so that agents connect anew somewhere else, and refuses all registrations and
    /// dials from now on with [`Shutdown`](crate::ErrorKind::Shutdown). Running streams fail likewise.
    pub fn shutdown(&self) {
        self.inner.with(|state, now| state.registry.shut_down(CloseCode::RESTART, now));
    }
}

impl Default for ConnectionManager {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ConnectionManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionManager").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// Proof that a task owns the current link of a key.
///
/// Dropping it unreported reports "aborted", so that a task that is cancelled or panics cannot leave a dead tunnel
/// registered.
#[must_use = "dropping a lease reports its link as aborted"]
pub(crate) struct Lease<T: Handle = Tunnel> {
    inner: Arc<Inner<T>>,
    key: AgentKey,
    epoch: Epoch,
    reported: bool,
}

impl<T: Handle> Lease<T> {
    pub(super) fn register(
        inner: &Arc<Inner<T>>,
        registration: Registration,
        tunnel: T,
    ) -> Result<Self, RegisterRefusal> {
        let (key, epoch) = (registration.key.clone(), registration.epoch);
        inner.register(registration, tunnel)?;
        Ok(Self { inner: Arc::clone(inner), key, epoch, reported: false })
    }

    /// The link ended. Ignored if a newer one has the key.
    pub(crate) fn lost(mut self, end: LinkEnd) {
        self.report(end);
    }

    fn report(&mut self, end: LinkEnd) {
        if !std::mem::replace(&mut self.reported, true) {
            self.inner.lost(&self.key, self.epoch, LossCause::from(end));
        }
    }
}

impl<T: Handle> Drop for Lease<T> {
    fn drop(&mut self) {
        self.report(LinkEnd::Aborted);
    }
}

impl<T: Handle> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("key", &self.key).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

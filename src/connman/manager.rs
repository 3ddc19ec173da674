//! The handle on all of it: tunnels are registered, dialled, listed and closed here.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    connman::{
        attach::{Attached, Offer},
        builder::ConnectionManagerBuilder,
        dial::Dial,
        event::RegisterRefusal,
        gone::Gone,
        handle::Handle,
        list::{self, AgentInfo, KeyState, Stats},
        policy::{LossCause, Registration},
        registry::{Refusal, after},
        seek::WaitFor,
        state::Inner,
        subscribe::Events,
    },
    dialback::{Dialers, Orphans},
    error::ErrorKind,
    frame::{CloseCode, SessionId},
    key::{AgentKey, Epoch, TargetName},
    link::LinkEnd,
    metrics,
    mux::{Bound, Budget, PeerDrain},
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

    /// Where sessions without a link charge what they hold.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.inner.budget
    }

    /// The tunnels that pick-ups name.
    pub(crate) fn dialers(&self) -> &Arc<Dialers> {
        &self.inner.dialers
    }

    /// Whether there is a place for a tunnel of this key, as far as that can be said before it is registered. A refusal
    /// is counted and told here.
    pub(crate) fn has_room(&self, key: &AgentKey, epoch: Epoch) -> Result<(), RegisterRefusal> {
        self.inner.has_room(key, epoch)
    }

    /// Whether an agent that cannot be refused later may have its key, as far as that can be said before.
    pub(crate) fn admits(&self, registration: &Registration) -> Result<(), RegisterRefusal> {
        self.inner.admits(registration)
    }

    /// How long a lost key is held at most: announced in WELCOME.
    pub(crate) fn max_hold(&self) -> Duration {
        self.inner.max_hold()
    }

    /// Binds a link to the session that its HELLO names, or to the new one that `make` makes: a displaced session is
    /// drained, waiting dials are released. Metrics and observers learn of it here, also of a refusal; closing a
    /// refused link is the caller's.
    pub(crate) fn attach(
        &self,
        registration: Registration,
        offer: Offer,
        make: impl FnOnce() -> (SessionId, Tunnel, Option<Bound>),
    ) -> Result<Attachment, RegisterRefusal> {
        let (key, epoch) = (registration.key.clone(), registration.epoch);
        let Attached { session, tunnel, link, resumed } = self.inner.attach(registration, offer, make)?;
        Ok(Attachment { session, tunnel, link, resumed, lease: Lease::new(&self.inner, key, epoch) })
    }

    /// Opens a stream to a target of the agent that has the key, or soon has it again.
    pub fn dial(&self, key: &AgentKey, target: &TargetName) -> Dial {
        Dial::new(&self.inner, key, target)
    }

    /// Waits until the key is connected: as long as a dial would, and by starting its agent if a dial would.
    pub fn wait_for(&self, key: &AgentKey) -> WaitFor {
        WaitFor::new(&self.inner, key)
    }

    /// The epoch of a key's link; `None` if the key is not connected.
    #[must_use]
    pub fn epoch(&self, key: &AgentKey) -> Option<Epoch> {
        let incumbent = self.inner.with(|state, now| state.registry.incumbent(key, now));
        incumbent.filter(|incumbent| incumbent.connected).map(|incumbent| incumbent.registration.epoch)
    }

    /// What names a key's session for as long as it lives, over all its links; `None` if the key is not connected.
    #[cfg(feature = "proxy")]
    pub(crate) fn serial(&self, key: &AgentKey) -> Option<Epoch> {
        self.inner.with(|state, now| state.registry.serial(key, now))
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

    /// Since when a key is gone, and why; `None` if it is connected or in grace, or if it was never connected, as far as
    /// is [remembered](Gone).
    #[must_use]
    pub fn gone(&self, key: &AgentKey) -> Option<Gone> {
        self.inner.with(|state, now| Some(Gone::of(state.registry.gone(key, now)?, now)))
    }

    /// Every event from now on, for who takes them in its own time; see [`Events`]. What must not be missed is for an
    /// [`Observer`](crate::connman::Observer).
    ///
    /// ```
    /// use revdial::connman::ConnectionManager;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let connman = ConnectionManager::new();
    /// let mut events = connman.subscribe();
    /// let log = tokio::spawn(async move {
    ///     while let Some(event) = events.next().await {
    ///         match event {
    ///             Ok(event) => println!("{}: {}", event.key(), event.name()),
    ///             Err(missed) => println!("{missed}"),
    ///         }
    ///     }
    /// });
    /// # drop(connman);
    /// # log.await.unwrap();
    /// # }
    /// ```
    #[must_use]
    pub fn subscribe(&self) -> Events {
        self.inner.events.subscribe()
    }

    /// Takes a key from its agent, as when its credentials are revoked: the session is closed with 4401, its streams fail
    /// at once with [`SessionLost`](crate::ErrorKind::SessionLost), dials that wait for the key fail with
    /// [`NoConnection`](crate::ErrorKind::NoConnection). Ends a grace likewise, and streams of dial-back agents that
    /// have outlived their control link. False: there was nothing of it.
    ///
    /// The agent comes back, slowly, if its credentials still hold.
    pub fn disconnect(&self, key: &AgentKey) -> bool {
        let closed = self
            .inner
            .with(|state, now| state.registry.close(key, CloseCode::CREDENTIALS, &Refusal::NoConnection, now));
        let orphans = self.inner.dialers.end_orphans(Orphans::Under(key), ErrorKind::SessionLost);
        if closed || orphans {
            metrics::record_auth_failure("revoked");
        }
        closed || orphans
    }

    /// Lets what runs finish, then shuts down: for the way down of a server, before it stops to serve.
    ///
    /// Every agent is told to connect anew, at random within half of `deadline` and 5 s at most, to whoever answers
    /// under the server's name then; it leaves its session here once that has succeeded or this one is closed. Running
    /// streams go on, also over new links; a session without any is closed at once. New sessions are refused, and dials
    /// wait in vain until the end. Resolves when no session is left, nor any stream of a dial-back agent, at the
    /// deadline at the latest; what runs then fails as by [`shutdown`](Self::shutdown), which it ends with.
    ///
    /// # Cancel safety
    /// Dropping it leaves the manager draining: sessions are closed at their deadline all the same, but dials are not
    /// refused before. Called again, the newer deadline is that of the sessions that have none yet.
    pub async fn drain(&self, deadline: Duration) {
        let begin = Instant::now();
        self.inner.with(|state, now| state.registry.drain(CloseCode::RESTART, after(now, deadline), now));
        let finished = async {
            self.inner.all_left().await;
            self.inner.dialers.orphans_left().await;
        };
        let _ = tokio::time::timeout(deadline, finished).await;
        metrics::record_drain(begin.elapsed());
        self.shutdown();
    }

    /// Closes every session with 1012, so that agents connect anew somewhere else, and refuses all registrations and
    /// dials from now on with [`Shutdown`](crate::ErrorKind::Shutdown). Running streams fail likewise; to let them
    /// finish, [`drain`](Self::drain).
    pub fn shutdown(&self) {
        self.inner.with(|state, now| state.registry.shut_down(CloseCode::RESTART, now));
        self.inner.dialers.end_orphans(Orphans::All, ErrorKind::Shutdown);
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

/// A link that is bound to a session, under a key.
#[derive(Debug)]
pub(crate) struct Attachment {
    /// Its id, for WELCOME.
    pub(crate) session: SessionId,
    /// The session's tunnel.
    pub(crate) tunnel: Tunnel,
    /// The right to drive the link; `None` of a dial-back tunnel.
    pub(crate) link: Option<Bound>,
    /// Whether the session is the one that HELLO named.
    pub(crate) resumed: bool,
    /// The duty to report its end.
    pub(crate) lease: Lease,
}

/// Proof that a task owns the current link of a session.
///
/// Dropping it unreported reports "aborted", so that a task that is cancelled or panics cannot leave a dead link
/// registered.
#[must_use = "dropping a lease reports its link as aborted"]
pub(crate) struct Lease<T: Handle = Tunnel> {
    inner: Arc<Inner<T>>,
    key: AgentKey,
    epoch: Epoch,
    reported: bool,
}

impl<T: Handle> Lease<T> {
    pub(super) fn new(inner: &Arc<Inner<T>>, key: AgentKey, epoch: Epoch) -> Self {
        Self { inner: Arc::clone(inner), key, epoch, reported: false }
    }

    /// The agent drains the session: it is its key's current one no longer. Ignored if it is that no longer anyway.
    pub(crate) fn drained(&self, drain: PeerDrain) {
        self.inner.drained(&self.key, self.epoch, drain);
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

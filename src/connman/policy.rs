//! What the host decides about a key: how long a lost one is held, how many dials wait, who may take it over.
//!
//! Pure: no runtime, no clock.

use std::{fmt, net::SocketAddr, time::Duration};

use crate::{
    connman::wake::Wake,
    frame::{CloseCode, InstanceId},
    key::{AgentKey, Epoch},
    link::Protocol,
};

/// The default grace and the default cap on it: an agent whose machine or network restarts is back within it.
pub(super) const DEFAULT_HOLD: Duration = Duration::from_secs(30);

/// The default number of dials that wait for one key.
pub(super) const DEFAULT_WAITING: usize = 100;

/// What a host decides about keys whose tunnels come and go.
///
/// A closure from [`LinkLoss`] to [`Grace`] is a policy, with the defaults below for all else; [`FixedGrace`] and
/// [`NoGrace`] are ready-made. Each other decision can also be taken by a setting of the
/// [builder](crate::connman::ConnectionManagerBuilder), which then stands before the policy's.
///
/// ```
/// use std::time::Duration;
/// use revdial::connman::{ConnectionManager, Grace, LinkLoss, LossCause};
///
/// // An agent that broke the protocol is dropped; one whose link broke has ten seconds, a build machine ten minutes.
/// let connman = ConnectionManager::builder()
///     .grace(|loss: &LinkLoss<'_>| match loss.cause {
///         LossCause::Violation(_) => Grace::Drop,
///         _ if loss.key.as_str().starts_with("build-") => Grace::Hold(Duration::from_secs(600)),
///         _ => Grace::Hold(Duration::from_secs(10)),
///     })
///     .max_hold(Duration::from_secs(600))
///     .build();
/// # assert!(connman.list().is_empty());
/// ```
///
/// # Panics in callbacks
/// No method runs under a lock, and each may be called from any task of the server, also in the drop of one that was
/// cancelled: it must not block. One that panics is counted in `revdial_callback_failures_total`, and the default
/// decision stands in its place.
pub trait GracePolicy: Send + Sync + 'static {
    /// How long a key whose link was just lost is held. Asked once for each loss; capped to [`max_hold`](Self::max_hold).
    fn grace(&self, loss: &LinkLoss<'_>) -> Grace;

    /// The longest grace that this policy ever gives, which agents are told when they connect. Default 30 s. Asked
    /// once, when the manager is built.
    fn max_hold(&self) -> Duration {
        DEFAULT_HOLD
    }

    /// How many dials may wait for a key at once. Default 100; beyond, a dial fails with
    /// [`TooManyPendingDials`](crate::ErrorKind::TooManyPendingDials).
    fn waiting_limit(&self, key: &AgentKey) -> usize {
        let _ = key;
        DEFAULT_WAITING
    }

    /// What becomes of a dial to a key that is neither connected nor in grace. Default [`Absent::Refuse`].
    fn absent(&self, key: &AgentKey) -> Absent {
        let _ = key;
        Absent::Refuse
    }

    /// Whether another agent of the same principal takes a connected key over. Default [`Displace::Replace`].
    ///
    /// It is not asked when the same run of an agent comes back, when the key is in grace, or when the principals
    /// differ: the first two always replace, the last is always refused. If it panics, the old one keeps the key.
    fn displace(&self, old: &Registration, new: &Registration) -> Displace {
        let _ = (old, new);
        Displace::Replace
    }
}

impl<F> GracePolicy for F
where
    F: Fn(&LinkLoss<'_>) -> Grace + Send + Sync + 'static,
{
    fn grace(&self, loss: &LinkLoss<'_>) -> Grace {
        self(loss)
    }
}

/// Holds every lost key for the same time, whatever the cause. The default policy, with 30 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedGrace(Duration);

impl FixedGrace {
    /// Holds lost keys for `hold`.
    #[must_use]
    pub const fn new(hold: Duration) -> Self {
        Self(hold)
    }

    /// Holds lost keys for so many seconds.
    #[must_use]
    pub const fn secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl Default for FixedGrace {
    fn default() -> Self {
        Self(DEFAULT_HOLD)
    }
}

impl GracePolicy for FixedGrace {
    fn grace(&self, _: &LinkLoss<'_>) -> Grace {
        Grace::Hold(self.0)
    }

    fn max_hold(&self) -> Duration {
        self.0
    }
}

/// Holds nothing: a lost key is absent at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a name for a decision; there is nothing to add to it")]
pub struct NoGrace;

impl GracePolicy for NoGrace {
    fn grace(&self, _: &LinkLoss<'_>) -> Grace {
        Grace::Drop
    }

    fn max_hold(&self) -> Duration {
        Duration::ZERO
    }
}

/// A link that was lost, as a policy sees it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LinkLoss<'a> {
    /// The key whose link it was.
    pub key: &'a AgentKey,
    /// How the link ended.
    pub cause: LossCause,
    /// How long it had been up.
    pub up_for: Duration,
    /// How many losses came before this one since the key was last absent.
    pub losses: u32,
}

impl<'a> LinkLoss<'a> {
    /// A first loss, of a link that was up for no time; for tests of policies.
    #[must_use]
    pub const fn new(key: &'a AgentKey, cause: LossCause) -> Self {
        Self { key, cause, up_for: Duration::ZERO, losses: 0 }
    }
}

/// How a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LossCause {
    /// The connection below ended or failed.
    Lost,
    /// Nothing was heard, or nothing was acked, for the dead-peer time.
    Dead,
    /// The agent, or something between, closed the WebSocket, with this code if it gave one.
    Closed(Option<CloseCode>),
    /// The agent broke the protocol; closed with this code.
    Violation(CloseCode),
    /// The agent drains: it goes down, and a successor may come.
    Drained,
    /// This side closed the session, with this code.
    Local(CloseCode),
    /// The task that owned the link was cancelled or panicked.
    Aborted,
}

impl fmt::Display for LossCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost => f.write_str("the connection was lost"),
            Self::Dead => f.write_str("nothing was heard"),
            Self::Closed(Some(code)) => write!(f, "closed by the agent with {code}"),
            Self::Closed(None) => f.write_str("closed by the agent"),
            Self::Violation(code) => write!(f, "the agent broke the protocol, closed with {code}"),
            Self::Drained => f.write_str("the agent drains"),
            Self::Local(code) => write!(f, "closed here with {code}"),
            Self::Aborted => f.write_str("its task was aborted"),
        }
    }
}

/// How long a lost key is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Grace {
    /// Not at all: dials fail with [`NoConnection`](crate::ErrorKind::NoConnection) at once.
    Drop,
    /// For this long: dials wait for the agent's return.
    Hold(Duration),
}

/// What becomes of a dial to a key that is neither connected nor in grace.
#[derive(Debug)]
#[non_exhaustive]
pub enum Absent {
    /// It fails with [`NoConnection`](crate::ErrorKind::NoConnection) at once.
    Refuse,
    /// It waits this long for an agent, then fails likewise: for agents that are known to come. For a server that just
    /// started, see [`boot_grace`](crate::connman::ConnectionManagerBuilder::boot_grace).
    Wait(Duration),
    /// It has the agent started, unless that is under way, and waits for it.
    Wake(Wake),
}

/// Whether a second agent takes a connected key over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Displace {
    /// The new one gets the key, the old one is closed with 4410 and does not come back.
    Replace,
    /// The old one keeps the key, the new one is closed with 4411 and tries again, slowly.
    Reject,
}

/// Who registers: the facts of one link, as policies, observers and lists see them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registration {
    /// The key.
    pub key: AgentKey,
    /// Who proved to be allowed it.
    pub principal: String,
    /// The link's epoch.
    pub epoch: Epoch,
    /// The agent's run: the same when one agent comes back, another for another agent. Agents of the dial-back protocol
    /// do not say, and have a new one each time.
    pub instance: InstanceId,
    /// What it speaks.
    pub protocol: Protocol,
    /// Where the link comes from, if the host's server tells.
    pub peer_addr: Option<SocketAddr>,
    /// The agent's program and version: its own words, for people.
    pub agent_version: String,
    /// The agent's labels: its own words, likewise.
    pub labels: Vec<(String, String)>,
}

impl Registration {
    /// With the required facts, for the native protocol; the others are empty.
    #[must_use]
    pub const fn new(key: AgentKey, principal: String, epoch: Epoch, instance: InstanceId) -> Self {
        Self {
            key,
            principal,
            epoch,
            instance,
            protocol: Protocol::Native,
            peer_addr: None,
            agent_version: String::new(),
            labels: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closure_is_a_policy_with_the_default_decisions() {
        let key: AgentKey = "a".parse().unwrap();
        let policy = |loss: &LinkLoss<'_>| match loss.cause {
            LossCause::Dead => Grace::Drop,
            _ => Grace::Hold(Duration::from_secs(7)),
        };
        assert_eq!(policy.grace(&LinkLoss::new(&key, LossCause::Dead)), Grace::Drop);
        assert_eq!(policy.grace(&LinkLoss::new(&key, LossCause::Lost)), Grace::Hold(Duration::from_secs(7)));
        let policy: Box<dyn GracePolicy> = Box::new(policy);
        assert_eq!(policy.max_hold(), Duration::from_secs(30));
        assert!(matches!((policy.waiting_limit(&key), policy.absent(&key)), (100, Absent::Refuse)));
    }

    #[test]
    fn a_fixed_grace_announces_what_it_gives() {
        assert_eq!(FixedGrace::secs(90).max_hold(), Duration::from_secs(90));
        assert_eq!(FixedGrace::default(), FixedGrace::new(Duration::from_secs(30)));
        assert_eq!(NoGrace.max_hold(), Duration::ZERO);
    }
}

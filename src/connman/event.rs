//! What happened to keys, as observers are told it.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    connman::policy::{LossCause, Registration},
    frame::CloseCode,
    key::{AgentKey, Epoch},
    link::LinkEnd,
};

/// Something that happened to a key.
///
/// Each link is told by one of [`Connected`](Self::Connected), [`Reconnected`](Self::Reconnected) and
/// [`Resumed`](Self::Resumed). Events
/// come from the tasks on which they happen, so two of them may overtake each other; epochs, which rise for each key,
/// tell which is newer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TunnelEvent {
    /// An agent has taken a key that was not in grace.
    #[non_exhaustive]
    Connected {
        /// Who.
        registration: Arc<Registration>,
    },
    /// An agent has taken a key that was in grace.
    #[non_exhaustive]
    Reconnected {
        /// Who.
        registration: Arc<Registration>,
        /// How long the key was without a link.
        after: Duration,
    },
    /// An agent has come back, and its session goes on with all its streams.
    #[non_exhaustive]
    Resumed {
        /// Who.
        registration: Arc<Registration>,
        /// How long the session was without a link; `None`: the one before was still held for alive.
        after: Option<Duration>,
    },
    /// A session opens nothing new and finishes what runs: its agent goes down, or this side does.
    #[non_exhaustive]
    Draining {
        /// The key.
        key: AgentKey,
        /// The link's epoch.
        epoch: Epoch,
    },
    /// A link ended. Its session goes on if the agent returns within the grace.
    #[non_exhaustive]
    Lost {
        /// The key.
        key: AgentKey,
        /// The link's epoch.
        epoch: Epoch,
        /// How it ended.
        cause: LossCause,
        /// For how long the key is in grace; `None`: it is absent at once.
        grace: Option<Duration>,
    },
    /// A key's grace has ended without a return; it is absent now.
    #[non_exhaustive]
    Expired {
        /// The key.
        key: AgentKey,
        /// The epoch of its last link.
        epoch: Epoch,
        /// With which code this side ended it, as by a disconnect or a drain; `None`: its time was over.
        ended: Option<CloseCode>,
        /// Whether its agent had gone in order, by a [drain](LossCause::Drained) of its own.
        drained: bool,
    },
    /// A session gave way to a newer one under its key. One that had a link may finish what runs.
    #[non_exhaustive]
    Replaced {
        /// The key.
        key: AgentKey,
        /// The old link's epoch.
        epoch: Epoch,
        /// The new link's epoch.
        by: Epoch,
        /// Whether both are of the same run of the same agent.
        same_instance: bool,
    },
    /// A registration was refused.
    #[non_exhaustive]
    Refused {
        /// The key.
        key: AgentKey,
        /// The link's epoch.
        epoch: Epoch,
        /// Why.
        why: RegisterRefusal,
    },
}

impl TunnelEvent {
    /// The key that it happened to.
    #[must_use]
    pub fn key(&self) -> &AgentKey {
        match self {
            Self::Connected { registration }
            | Self::Reconnected { registration, .. }
            | Self::Resumed { registration, .. } => &registration.key,
            Self::Draining { key, .. }
            | Self::Lost { key, .. }
            | Self::Expired { key, .. }
            | Self::Replaced { key, .. }
            | Self::Refused { key, .. } => key,
        }
    }

    /// The epoch of the link that it happened to.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        match self {
            Self::Connected { registration }
            | Self::Reconnected { registration, .. }
            | Self::Resumed { registration, .. } => registration.epoch,
            Self::Draining { epoch, .. }
            | Self::Lost { epoch, .. }
            | Self::Expired { epoch, .. }
            | Self::Replaced { epoch, .. }
            | Self::Refused { epoch, .. } => *epoch,
        }
    }

    /// Its name, as in logs: `connected`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Connected { .. } => "connected",
            Self::Reconnected { .. } => "reconnected",
            Self::Resumed { .. } => "resumed",
            Self::Draining { .. } => "draining",
            Self::Lost { .. } => "lost",
            Self::Expired { .. } => "expired",
            Self::Replaced { .. } => "replaced",
            Self::Refused { .. } => "refused",
        }
    }

    /// Why it happened, in words, as in logs; `None`: its name says all. Nothing of it is a peer's text.
    ///
    /// ```
    /// use revdial::connman::{LossCause, RegisterRefusal};
    ///
    /// assert_eq!(LossCause::Drained.to_string(), "the agent drains");
    /// assert_eq!(RegisterRefusal::ShuttingDown.to_string(), "the server goes down");
    /// ```
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Lost { cause, .. } => Some(cause.to_string()),
            Self::Refused { why, .. } => Some(why.to_string()),
            Self::Replaced { same_instance: true, .. } => Some("the agent began anew".to_owned()),
            Self::Replaced { .. } => Some("another agent has taken the key".to_owned()),
            Self::Expired { ended: Some(code), .. } => Some(format!("ended here with {code}")),
            Self::Expired { drained: true, .. } => Some("the agent had drained".to_owned()),
            Self::Expired { .. } => Some("the agent did not return in its grace".to_owned()),
            _ => None,
        }
    }
}

/// Why a registration is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RegisterRefusal {
    /// Another agent has the key and the policy rejects a second one; closed with 4411.
    InUse,
    /// The key belongs to another principal; closed with 4403.
    Foreign,
    /// A newer link has the key already, or a newer attempt the session; closed with 4409.
    Stale,
    /// The session that it names is another principal's or key's; closed with 4403.
    Identity,
    /// What it says it has of the session cannot be, which ends that; closed with 4420.
    Mismatch,
    /// Link after link of the session brought nothing through, which ends it; closed with 4429.
    Fruitless,
    /// As many tunnels as the manager takes; closed with 1013.
    Overloaded,
    /// The manager drains or was shut down; closed with 1001.
    ShuttingDown,
}

impl fmt::Display for RegisterRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InUse => "another agent has the key",
            Self::Foreign => "the key is another principal's",
            Self::Stale => "a newer link has the key",
            Self::Identity => "the session is another principal's or key's",
            Self::Mismatch => "what it has of the session cannot be",
            Self::Fruitless => "link after link brought nothing through",
            Self::Overloaded => "as many tunnels as may be",
            Self::ShuttingDown => "the server goes down",
        })
    }
}

/// Sees every [`TunnelEvent`] of a manager. A closure of `&TunnelEvent` is one.
///
/// # Panics in callbacks
/// It runs outside every lock, on the task on which the event happened, also in the drop of one that was cancelled,
/// and before that task goes on: it must not block; send what takes longer down a channel. An observer that panics is
/// counted in `revdial_callback_failures_total`; the others are told all the same.
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn on_event(&self, event: &TunnelEvent);
}

impl<F> Observer for F
where
    F: Fn(&TunnelEvent) + Send + Sync + 'static,
{
    fn on_event(&self, event: &TunnelEvent) {
        self(event);
    }
}

impl From<LinkEnd> for LossCause {
    fn from(end: LinkEnd) -> Self {
        match end {
            // The report of a superseded link is stale, so nobody sees this cause.
            LinkEnd::Lost | LinkEnd::Superseded => Self::Lost,
            LinkEnd::Dead => Self::Dead,
            LinkEnd::Closed(code) => Self::Closed(code),
            LinkEnd::Violation(code) => Self::Violation(code),
            LinkEnd::Local(code) => Self::Local(code),
            LinkEnd::Aborted => Self::Aborted,
        }
    }
}

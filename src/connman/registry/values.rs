//! What goes into the registry and what comes out: questions, answers, effects, counts.
//!
//! Pure: no runtime, no clock.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    connman::policy::{LossCause, Registration},
    frame::CloseCode,
    key::Epoch,
};

/// The bounds over all keys.
#[derive(Debug, Clone, Copy)]
pub(in crate::connman) struct Limits {
    /// Keys connected or in grace.
    pub(in crate::connman) tunnels: usize,
    /// Dials waiting.
    pub(in crate::connman) waiting: usize,
}

/// How many of what there are now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::connman) struct Counts {
    /// Keys with a tunnel.
    pub(in crate::connman) connected: usize,
    /// Keys in grace.
    pub(in crate::connman) grace: usize,
    /// Dials that wait.
    pub(in crate::connman) waiting: usize,
    /// Keys that dials wait for.
    pub(in crate::connman) waiting_keys: usize,
}

/// One waiting dial. Tickets rise, and are released in that order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::connman) struct Ticket(pub(super) u64);

/// Why a dial gets no tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::connman) enum Refusal {
    /// The key is absent.
    NoConnection,
    /// The key's grace ended.
    ReconnectTimeout,
    /// As many dials wait as may.
    TooManyPending,
    /// The loss of a tunnel that was met dead was never reported.
    Unreported,
    /// The manager was shut down.
    ShuttingDown,
}

/// What must be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::connman) enum Effect<T> {
    /// A waiting dial gets a tunnel.
    Release { ticket: Ticket, epoch: Epoch, tunnel: T },
    /// A waiting dial gets none.
    Refuse { ticket: Ticket, refusal: Refusal },
    /// A key that was not in grace is connected.
    Connected { registration: Arc<Registration> },
    /// A key that was in grace is connected.
    Reconnected { registration: Arc<Registration>, after: Duration },
    /// A tunnel is to be closed in favour of a newer one.
    Displaced { old: Arc<Registration>, tunnel: T, by: Arc<Registration> },
    /// A tunnel is to be ended, since its link was lost.
    Lost { registration: Arc<Registration>, tunnel: T, cause: LossCause, hold: Option<Duration> },
    /// A tunnel is to be closed with this code, since this side wants it.
    Closed { registration: Arc<Registration>, tunnel: T, code: CloseCode },
    /// A grace ended without a return: at its time, or since this side wants it.
    Expired { registration: Arc<Registration>, in_time: bool },
}

impl<T> Effect<T> {
    /// The waiting dial that it answers.
    pub(in crate::connman) fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::Release { ticket, .. } | Self::Refuse { ticket, .. } => Some(*ticket),
            _ => None,
        }
    }
}

/// Why a tunnel was not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::connman) enum Conflict {
    /// The key is not as the caller saw it: look again.
    Changed,
    /// As many tunnels as may be.
    Overloaded,
    /// The manager was shut down.
    ShuttingDown,
}

/// Who has a key, for deciding on a newcomer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::connman) struct Incumbent {
    /// The last link under the key.
    pub(in crate::connman) registration: Arc<Registration>,
    /// Whether it is up; else the key is in grace.
    pub(in crate::connman) connected: bool,
}

/// What a dial finds, before any policy is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::connman) enum Found<T> {
    /// A tunnel.
    Ready(Epoch, T),
    /// Something to wait for.
    Held,
    /// Nobody.
    Absent,
}

/// What a dial asks for.
#[derive(Debug, Clone, Copy)]
pub(in crate::connman) struct Ask {
    /// Tunnels of older epochs were met dead.
    pub(in crate::connman) not_before: Epoch,
    /// How many dials may wait for the key.
    pub(in crate::connman) limit: usize,
    /// How long to wait for an absent key; `None`: not at all.
    pub(in crate::connman) absent: Option<Duration>,
    /// How long to wait until the loss of a dead tunnel is reported.
    pub(in crate::connman) unreported: Duration,
}

/// What a dial gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::connman) enum DialStep<T> {
    /// A tunnel, now.
    Ready(Epoch, T),
    /// A place in the queue: an effect will answer the ticket, unless it is given back; as it is now, at this time at
    /// the latest. `None`: the key is connected by its last report, and what grace it gets is not known.
    Wait(Ticket, Option<Instant>),
    /// Nothing.
    Refused(Refusal),
}

/// One key, for lists.
#[derive(Debug, Clone)]
pub(in crate::connman) struct Entry<T> {
    pub(in crate::connman) registration: Arc<Registration>,
    /// `None`: in grace.
    pub(in crate::connman) tunnel: Option<T>,
    pub(in crate::connman) since: Instant,
    /// The end of the grace.
    pub(in crate::connman) until: Option<Instant>,
    pub(in crate::connman) reconnects: u32,
    pub(in crate::connman) last_cause: Option<LossCause>,
}

//! What goes into the registry and what comes out: questions, answers, effects, counts.
//!
//! Pure: no runtime, no clock.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::Departure;
use crate::{
    connman::policy::{LossCause, Registration},
    frame::{CloseCode, SessionId},
    key::Epoch,
};

/// The bounds over all keys.
#[derive(Debug, Clone, Copy)]
pub(in crate::connman) struct Limits {
    /// Keys connected or in grace.
    pub(in crate::connman) tunnels: usize,
    /// Dials waiting, and likewise agents being started.
    pub(in crate::connman) waiting: usize,
    /// How long the streams of a displaced session may go on.
    pub(in crate::connman) drain: Duration,
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
    /// Keys whose agents are being started.
    pub(in crate::connman) waking: usize,
    /// Sessions that finish what runs.
    pub(in crate::connman) leaving: usize,
}

/// One waiting dial. Tickets rise, and are released in that order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::connman) struct Ticket(pub(super) u64);

/// Why a dial gets no tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::connman) enum Refusal {
    /// The key is absent, and not known to have been there.
    NoConnection,
    /// The key is absent, and was there.
    Gone(Departure),
    /// The key's grace ended.
    ReconnectTimeout,
    /// As many dials wait as may.
    TooManyPending,
    /// The loss of a tunnel that was met dead was never reported.
    Unreported,
    /// The key is absent, and the start of its agent has failed, in these words; the key may have been there.
    NotWoken(Arc<str>, Option<Departure>),
    /// The start of its agent panicked or hung.
    Fault,
    /// The manager was shut down.
    ShuttingDown,
}

/// What must be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::connman) enum Effect<T> {
    /// A waiting dial gets a tunnel.
    Release { ticket: Ticket, serial: Epoch, tunnel: T },
    /// A waiting dial gets none.
    Refuse { ticket: Ticket, refusal: Refusal },
    /// A key that was not in grace is connected.
    Connected { registration: Arc<Registration> },
    /// A key that was in grace is connected.
    Reconnected { registration: Arc<Registration>, after: Duration },
    /// A session goes on with a new link, after so long without one; `None`: it had one still.
    Resumed { registration: Arc<Registration>, after: Option<Duration> },
    /// A session gives way to a newer one: told with this code, it may finish what runs for so long.
    Displaced { old: Arc<Registration>, tunnel: T, by: Arc<Registration>, code: CloseCode, drain: Duration },
    /// A session in grace is to be ended, since its agent, or another one, has begun a new one.
    Outlived { old: Arc<Registration>, tunnel: T, by: Arc<Registration> },
    /// A link was lost; a tunnel that is not held is to be ended.
    Lost { registration: Arc<Registration>, tunnel: Option<T>, cause: LossCause, hold: Option<Duration> },
    /// An agent drains its session, which is its key's current one no longer.
    Drained { registration: Arc<Registration> },
    /// A session is to be drained, with this code and for so long.
    Draining { registration: Arc<Registration>, tunnel: T, code: CloseCode, drain: Duration },
    /// A session in grace is to be ended, since all of them together hold too much.
    Evicted { registration: Arc<Registration>, tunnel: T },
    /// A session that left is to be ended, its time being over: with this code, or, if it has no link, as lost.
    Cut { tunnel: T, code: CloseCode, lost: bool },
    /// A tunnel is to be closed with this code, since this side wants it; `told`: it was its key's current one, with a
    /// link.
    Closed { registration: Arc<Registration>, tunnel: T, code: CloseCode, told: bool },
    /// A grace ended without a return, at its time or since this side has `ended` it; what was kept is to be ended.
    /// `drained`: its agent went in order.
    Expired { registration: Arc<Registration>, tunnel: Option<T>, ended: Option<CloseCode>, drained: bool },
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

/// The HELLO of a link.
#[derive(Debug)]
pub(in crate::connman) struct Claim<'a> {
    /// Who, under which key, on which link.
    pub(in crate::connman) registration: &'a Arc<Registration>,
    /// The session that it names.
    pub(in crate::connman) session: SessionId,
    pub(in crate::connman) attempt: u64,
}

/// What a session says to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::connman) enum Bound {
    /// It is bound.
    Yes,
    /// The session has ended before.
    Over,
    /// It is not, and is to be closed with this code. The session may have ended with that.
    Refused(CloseCode),
}

/// What a session says to a link, and what comes of it.
#[derive(Debug)]
pub(in crate::connman) struct Binding<L> {
    pub(in crate::connman) bound: Bound,
    /// Whether the agent had spoken on the link before.
    pub(in crate::connman) heard: bool,
    /// The right to drive the link; in any case to be taken out of the lock before anything is done with it.
    pub(in crate::connman) link: L,
}

/// What becomes of a HELLO.
#[derive(Debug)]
pub(in crate::connman) enum Resume<T, L> {
    /// The session that it names goes on.
    Bound(T, L),
    /// It gets a new one, if this incumbent lets it.
    Fresh(Option<Incumbent>, Option<L>),
    /// It is closed with this code.
    Refused(CloseCode, Option<L>),
}

/// The present link of a session, for its report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::connman) struct Link<T> {
    pub(in crate::connman) tunnel: T,
    /// Since when its session has had it as the key's current one; `None`: it leaves.
    pub(in crate::connman) since: Option<Instant>,
    /// How many losses came before.
    pub(in crate::connman) losses: u32,
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
    /// A tunnel, and the serial of its session.
    Ready(Epoch, T),
    /// Something to wait for.
    Held,
    /// Nobody.
    Absent,
}

/// What a dial asks for.
#[derive(Debug, Clone, Copy)]
pub(in crate::connman) struct Ask {
    /// Tunnels of sessions with lower serials were met dead, or taking nothing more.
    pub(in crate::connman) not_before: Epoch,
    /// How many dials may wait for the key.
    pub(in crate::connman) limit: usize,
    /// What to do about an absent key.
    pub(in crate::connman) absent: Absence,
    /// How long to wait until the loss of a dead tunnel is reported.
    pub(in crate::connman) unreported: Duration,
    /// How long to wait at the most, whatever the key is; zero: not at all.
    pub(in crate::connman) most: Option<Duration>,
}

/// What a dial does about an absent key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::connman) enum Absence {
    /// It is refused.
    Refuse,
    /// It waits for so long.
    Wait(Duration),
    /// It has the agent started, unless it is being started, and waits for that; for so long from the start.
    Wake(Duration),
}

/// What a dial gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::connman) enum DialStep<T> {
    /// A tunnel and the serial of its session, now.
    Ready(Epoch, T),
    /// A place in the queue: an effect will answer the ticket, unless it is given back; as it is now, at this time at
    /// the latest. `None`: the key is connected by its last report, and what grace it gets is not known.
    Wait(Ticket, Option<Instant>),
    /// The same; and the caller is to have the agent started, which is over at this time at the latest.
    Wake(Ticket, Instant),
    /// Nothing.
    Refused(Refusal),
}

/// One key, for lists.
#[derive(Debug, Clone)]
pub(in crate::connman) struct Entry<T> {
    pub(in crate::connman) registration: Arc<Registration>,
    /// The session that it has, or that waits for a link.
    pub(in crate::connman) tunnel: Option<T>,
    /// Those that finish what runs.
    pub(in crate::connman) leaving: Vec<T>,
    pub(in crate::connman) since: Instant,
    /// The end of the grace.
    pub(in crate::connman) until: Option<Instant>,
    /// Dials that wait for it.
    pub(in crate::connman) waiting: usize,
    pub(in crate::connman) reconnects: u32,
    pub(in crate::connman) last_cause: Option<LossCause>,
}

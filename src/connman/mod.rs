//! Who is connected, who is in grace, who waits.
//!
//! # The life of a key
//! ```text
//!            an agent registers             its link is lost
//!  absent ─────────────────────► connected ──────────────────► grace
//!    ▲                             ▲                            │ │
//!    │                             └── the agent comes back ────┘ │
//!    └──────────────────────────────── it does not in time ───────┘
//! ```
//! How long a lost key is in grace, and whether at all, is decided by a [`GracePolicy`]; what a dial finds follows:
//!
//! | the key is | a dial |
//! | --- | --- |
//! | connected | opens a stream at once |
//! | in grace | waits; the agent's return releases all that wait, in order; the end of the grace fails them with [`ReconnectTimeout`](crate::ErrorKind::ReconnectTimeout) |
//! | absent | fails at once with [`NoConnection`](crate::ErrorKind::NoConnection), or waits if the policy says so |
//!
//! A grace ends exactly when it is over, not at the next sweep. Each link has an [`Epoch`](crate::Epoch), and what an
//! old link reports never touches a newer one. A lost link ends its session: streams that are open on it fail at once
//! with [`SessionLost`](crate::ErrorKind::SessionLost); the grace is for new dials.
//!
//! # Two agents, one key
//! The same run of an agent that comes back replaces itself. Another one of the same principal replaces the first,
//! which is closed with 4410 and does not come back, or is refused with 4411, as the policy says. One of another
//! principal is refused with 4403 for as long as the key is connected or in grace.
//!
//! # What is bounded
//! Keys connected or in grace, dials that wait for one key and for all, and how long each waits. A key that is absent
//! is not remembered.

mod builder;
mod dial;
mod event;
mod expiry;
mod handle;
mod list;
mod manager;
mod policy;
mod registry;
mod state;

// For those who run it.
pub use builder::ConnectionManagerBuilder;
pub use dial::Dial;
pub use list::{AgentInfo, KeyState, Stats};
pub use manager::ConnectionManager;
// For those who decide.
pub use policy::{Absent, Displace, FixedGrace, Grace, GracePolicy, LinkLoss, LossCause, NoGrace, Registration};
// For those who watch.
pub use event::{Observer, RegisterRefusal, TunnelEvent};
// For the task that owns a link.
pub(crate) use manager::{Attachment, Lease};
pub(crate) use state::Offer;

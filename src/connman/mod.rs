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
//! old link reports never touches a newer one.
//!
//! # What survives
//! A session outlives its links. While its key is in grace its streams stay open: what arrived can be read, writes fill
//! their bound and wait, and when the agent is back all goes on where it was, exactly once and in order. An agent that
//! is back before the loss was noticed takes its session over from the old link. At the end of the grace every stream
//! fails at once with [`SessionLost`](crate::ErrorKind::SessionLost), never with a clean end. The same happens when the
//! agent comes back without its session, as a process that was restarted; not after the grace, but as soon as it does.
//!
//! # Two agents, one key
//! Another agent of the same principal takes the key over, or is refused with 4411, as the policy says. The one that was
//! there opens nothing new, may finish what runs within
//! [`replace_drain`](ConnectionManagerBuilder::replace_drain), is closed with 4410 then, and does not come back. The
//! return of a session is never such a case, whatever the policy. An agent of another principal is refused with 4403 for
//! as long as the key is connected or in grace.
//!
//! # Going down
//! [`ConnectionManager::drain`] has agents move on while running streams finish. An agent that goes down says so, too:
//! its key is in grace from then on, as the policy says, and its streams finish beside whoever comes next.
//!
//! # What is bounded
//! Keys connected or in grace, dials that wait for one key and for all, how long each waits, what sessions in grace hold
//! in memory, and how many of a key's sessions finish beside the current one (4). A key that is absent is not remembered.

mod attach;
mod builder;
mod dial;
mod effects;
mod event;
mod expiry;
mod handle;
mod hook;
mod list;
mod manager;
mod policy;
mod registry;
mod state;
mod subscribe;

// For those who run it.
pub use builder::ConnectionManagerBuilder;
pub use dial::Dial;
pub use list::{AgentInfo, KeyState, Stats};
pub use manager::ConnectionManager;
// For those who decide.
pub use policy::{Absent, Displace, FixedGrace, Grace, GracePolicy, LinkLoss, LossCause, NoGrace, Registration};
// For those who watch.
pub use event::{Observer, RegisterRefusal, TunnelEvent};
pub use hook::Arrived;
pub use subscribe::{Events, Missed};
// For the task that owns a link.
pub(crate) use attach::Offer;
pub(crate) use manager::{Attachment, Lease};

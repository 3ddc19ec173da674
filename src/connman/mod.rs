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
//! | absent | fails at once with [`NoConnection`](crate::ErrorKind::NoConnection), whose cause is [`Gone`] if it was there before; or waits; or has the agent [started](Wake) and waits for it: as the policy says |
//!
//! A call may wait for less, or not at all: [`Dial::max_wait`]. After the start of a server, whose agents are about to come
//! back, absent keys can be waited for by a [`boot_grace`](ConnectionManagerBuilder::boot_grace).
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
//! # Watching
//! [`stats`](ConnectionManager::stats), [`list`](ConnectionManager::list) and
//! [`list_grace`](ConnectionManager::list_grace) tell what is the case now, [`gone`](ConnectionManager::gone) since when and
//! why a key is not there any more; an [`Observer`] is told each event where it happens, a
//! [subscriber](ConnectionManager::subscribe) in its own time. A hook
//! [on connect](ConnectionManagerBuilder::on_connect) brings agents to the state that they should be in.
//!
//! # What is bounded
//! Keys connected or in grace, dials that wait for one key and for all, how long each waits, starts of agents at once,
//! what sessions in grace hold in memory, how many of a key's sessions finish beside the current one (4), what is kept
//! for a slow subscriber, how many hooks run and for how long, and how many keys that are gone are [remembered](Gone).
#![doc = include_str!("waiting.md")]

mod attach;
mod builder;
mod deadline;
mod decisions;
mod dial;
mod effects;
mod event;
mod expiry;
mod gone;
mod handle;
mod hook;
mod list;
mod manager;
mod policy;
mod registry;
mod seek;
mod state;
mod subscribe;
mod wake;

// For those who run it.
pub use builder::ConnectionManagerBuilder;
pub use dial::Dial;
pub use gone::Gone;
pub use list::{AgentInfo, KeyState, Stats};
pub use manager::ConnectionManager;
pub use seek::WaitFor;
// For those who decide.
pub use policy::{Absent, Displace, FixedGrace, Grace, GracePolicy, LinkLoss, LossCause, NoGrace, Registration};
pub use wake::Wake;
// For those who watch.
pub use event::{Observer, RegisterRefusal, TunnelEvent};
pub use hook::Arrived;
pub use subscribe::{Events, Missed};
// For the task that owns a link.
pub(crate) use attach::Offer;
pub(crate) use manager::{Attachment, Lease};

//! Drives a session over links: one future per link, and handles that reach the session past it.
//!
//! A [`MuxTunnel`] is the handle to one session, a [`MuxStream`] to one of its streams, a [`Driver`] the future that
//! owns one link of it. They meet in `Shared`, behind one lock, and nowhere else; there is no queue between them.
//!
//! # The lock
//! - It is held for a few lines: no await, no I/O, no code of a user under it. A waker is cloned under it, but woken
//!   and dropped only after it: either may run code that takes the lock again.
//! - A driver reaches the session only through `Shared::with_link`, which refuses it as soon as another link is
//!   bound. So an old driver can neither feed a late message in nor draw one out.
//! - A panic under it ends that session with `Internal`, wakes all who wait, and goes on in the task that had it.
//!
//! # Wakes
//! Who finds nothing to do registers its waker in the critical section that found it, so that nothing can come
//! in between. Whoever changes the session collects the wakers that its events name under the lock, and wakes them
//! after it.

mod bound;
mod budget;
mod closing;
mod driver;
pub(crate) mod establish;
mod opening;
mod report;
mod shared;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod tunnel;

pub(crate) use bound::Bound;
#[cfg(feature = "server")]
pub(crate) use budget::Budget;
pub(crate) use driver::Driver;
pub(crate) use opening::Opening;
pub(crate) use shared::Deferred;
pub(crate) use state::{BindError, PeerDrain};
pub(crate) use stream::MuxStream;
pub(crate) use tunnel::{MuxIncoming, MuxTunnel};

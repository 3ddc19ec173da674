//! Guides: how to do with this crate what takes more than one of its types.
//!
//! - [`composing`]: tunnels in an axum app that exists: the order of layers, nested routers, the way down.
//! - [`middleboxes`]: behind nginx, HAProxy and the load balancers of clouds: idle times, buffering, HTTP/2.
//! - [`security`]: who is trusted with what, what each side can do to the others, and what bounds it.
//! - [`tuning`]: every bound and timer that can be set, what it costs, and what the kernel has to give.
//! - [`migration`]: a fleet of Go RevDial agents and servers, as Helix deploys them, moves over step by step.
//! - [`observability`]: every metric, span and field, and what is logged at which level.

#[doc = include_str!("composing.md")]
pub mod composing {}

#[doc = include_str!("middleboxes.md")]
pub mod middleboxes {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("tuning.md")]
pub mod tuning {}

#[doc = include_str!("migration.md")]
pub mod migration {}

#[doc = include_str!("observability.md")]
pub mod observability {}

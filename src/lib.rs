//! Reverse tunnels as tower middleware.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "connector")]
pub mod connector;
#[cfg(feature = "server")]
pub mod connman;
mod error;
pub mod frame;
mod key;
#[cfg(any(feature = "server", feature = "agent"))]
mod link;
#[cfg(any(feature = "server", feature = "agent"))]
#[cfg_attr(
    not(all(feature = "server", feature = "agent")),
    expect(dead_code, reason = "both sides share it, and each uses its half")
)]
mod metrics;
#[cfg(any(feature = "server", feature = "agent"))]
#[cfg_attr(
    not(all(feature = "server", feature = "agent")),
    expect(dead_code, reason = "both sides share it, and each uses its half")
)]
mod mux;
pub mod proto;
#[cfg(feature = "server")]
pub mod server;
#[cfg(any(feature = "server", feature = "agent"))]
#[cfg_attr(
    not(all(feature = "server", feature = "agent")),
    expect(dead_code, reason = "both sides share it, and each uses its half")
)]
mod tunnel;

pub use error::{Blame, Error, ErrorKind};
pub use key::{AgentKey, Epoch, InvalidName, TargetName};
#[cfg(any(feature = "server", feature = "agent"))]
pub use link::LinkEnd;
#[cfg(any(feature = "server", feature = "agent"))]
pub use tunnel::TunnelStream;

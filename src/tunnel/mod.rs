//! One handle and one stream type, whatever the protocol below.

mod handle;
mod stream;

#[cfg(feature = "agent")]
pub(crate) use handle::Incoming;
#[cfg(feature = "server")]
pub(crate) use handle::{Opening, Tunnel};
pub use stream::TunnelStream;

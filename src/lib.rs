//! Reverse tunnels as tower middleware.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
pub mod frame;
mod key;
#[cfg(any(feature = "server", feature = "agent"))]
mod link;

pub use error::{Blame, Error, ErrorKind};
pub use key::{AgentKey, Epoch, InvalidName, TargetName};
#[cfg(any(feature = "server", feature = "agent"))]
pub use link::LinkEnd;

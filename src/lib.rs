//! Reverse tunnels as tower middleware.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
pub mod frame;
mod key;
pub mod proto;

pub use error::{Blame, Error, ErrorKind};
pub use key::{AgentKey, Epoch, InvalidName, TargetName};

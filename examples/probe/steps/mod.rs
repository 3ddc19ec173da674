//! The doctor's steps.

pub(crate) mod endpoint;
pub(crate) mod idle;
pub(crate) mod network;
pub(crate) mod tunnel;

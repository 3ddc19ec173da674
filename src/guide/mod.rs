//! Guides: how to do with this crate what takes more than one of its types.
//!
//! - [`migration`]: a fleet of Go RevDial agents and servers, as Helix deploys them, moves over step by step.

#[doc = include_str!("migration.md")]
pub mod migration {}

//! What survives the loss of a link, a takeover, a drain and a cancellation: server and agent together, in paused time.
#![cfg(all(feature = "proxy", feature = "agent"))]

mod attach;
mod counted;
mod expiry;
mod forked;
mod leaks;
#[path = "../support/net.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod net;
#[path = "../support/raw.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod raw;
mod replay;
mod resume;
mod support;
mod takeover;
mod traffic;

//! What survives the loss of a link, a takeover, a drain and a cancellation: server and agent together, in paused time.
#![cfg(all(feature = "proxy", feature = "agent"))]

mod answers;
mod attach;
mod callbacks;
mod cancel;
mod cancel_hosts;
mod chaos;
#[path = "../support/counted.rs"]
mod counted;
mod drain;
mod expiry;
mod forked;
mod h2;
mod leaks;
mod lease;
#[path = "../support/net.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod net;
mod polled;
mod proxy;
#[path = "../support/raw.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod raw;
mod replay;
mod resume;
mod shutdown;
mod sources;
mod support;
mod takeover;
mod traffic;

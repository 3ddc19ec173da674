//! How HTTP requests come through a proxy and a tunnel to a service, and how failures are answered.
#![cfg(all(feature = "proxy", feature = "agent"))]

mod bodies;
mod connect;
#[path = "../support/counted.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod counted;
mod errors;
mod heads;
mod sessions;
#[expect(dead_code, reason = "the tests against HTTP direct use the rest")]
mod support;
mod upgrades;

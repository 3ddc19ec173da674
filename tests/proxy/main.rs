//! How HTTP requests come through a proxy and a tunnel to a service, and how failures are answered.
#![cfg(all(feature = "proxy", feature = "agent"))]

mod bodies;
mod errors;
mod heads;
mod sessions;
#[expect(dead_code, reason = "the tests against HTTP direct use the rest")]
mod support;
mod upgrades;

//! HTTP through a tunnel against HTTP direct, and what rests on it.
#![cfg(all(feature = "proxy", feature = "agent"))]

mod caller;
mod differential;
mod generated;
mod origin;
mod streams;
#[path = "../proxy/support.rs"]
#[expect(dead_code, reason = "the tests of the proxy use the rest")]
mod support;
mod wire;

//! HTTP through a tunnel against HTTP direct, and what rests on it.
#![cfg(all(feature = "proxy", feature = "agent"))]

mod askers;
mod bulk;
mod caller;
#[path = "../support/counted.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod counted;
mod differential;
mod examples;
mod generated;
mod h2;
mod leaving;
mod origin;
mod pools;
#[path = "../support/process.rs"]
#[expect(dead_code, reason = "the tests of the programs use the rest")]
mod process;
mod streams;
#[path = "../proxy/support.rs"]
#[expect(dead_code, reason = "the tests of the proxy use the rest")]
mod support;
mod wire;

//! Behind the proxies that stand in front of gateways: nginx and HAProxy as Debian packages them, started on loopback
//! with the configuration that the guide gives.
//!
//! ```sh
//! cargo test --test middlebox                         # idle times of two seconds
//! REVDIAL_IDLE=full cargo test --test middlebox idle  # those that the proxies have, and three minutes of silence
//! ```
//!
//! They want nginx, haproxy, and openssl for a certificate: `apt-get install nginx haproxy openssl`.

mod edge;
mod guide;
mod idle;
#[path = "../support/load.rs"]
mod load;
mod middlebox;
#[path = "../support/process.rs"]
#[expect(dead_code, reason = "the tests of the programs use the rest")]
mod process;
mod reload;
mod service;
#[path = "../../examples/probe/unverified.rs"]
mod unverified;
#[path = "../../examples/sandbox/websocket.rs"]
mod websocket;
mod world;

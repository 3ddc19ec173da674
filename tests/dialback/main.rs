//! Dial-back: our server and our agent with peers as they are deployed, which know of nothing else. The peers are
//! scripted by hand, byte by byte.
#![cfg(all(feature = "agent", feature = "connector"))]

mod agent;
mod arriving;
mod bulk;
#[path = "../support/classic.rs"]
mod classic;
#[path = "../support/counted.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod counted;
mod ends;
mod life;
mod lines;
#[path = "../support/net.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod net;
mod noise;
mod orphans;
mod outside;
mod pairings;
mod pickups;
#[path = "../support/world/random.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod random;
mod replay;
mod transcripts;
mod world;

use std::time::Duration;

use tokio::time::Instant;

/// Polls until it is so, without letting time pass as long as something can happen.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(120), "never: {what}");
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        if !so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

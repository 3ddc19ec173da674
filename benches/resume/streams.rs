//! What open streams add to a resume: from the cut until one of them has its echo, and until all have.

use std::time::Instant;

use futures_util::{StreamExt, stream::FuturesUnordered};
use revdial::connman::ConnectionManager;
use tokio::{runtime::Handle, time::sleep};

use super::{cuts::SPACING, sides::Side, times::Times};
use crate::gateway::{Pipe, echo};

/// Cuts, and prints how long each took.
pub(crate) async fn print(far: &Handle, smoke: bool) {
    let (counts, cuts) = if smoke { ([1, 3, 10], 1) } else { ([1, 100, 1000], 60) };
    let (side, relay) = Side::relayed(far, ConnectionManager::new()).await;
    let mut times = Times::new("From the cut with open streams, ms");
    let mut pipes: Vec<Box<dyn Pipe>> = Vec::new();
    for count in counts {
        while pipes.len() < count {
            pipes.push(side.dial().await);
        }
        for _ in 0..cuts {
            sleep(SPACING).await;
            echoes(&mut pipes, Instant::now(), &mut times, "no cut").await;
            let cut = relay.cut().await;
            echoes(&mut pipes, cut, &mut times, "cut").await;
        }
    }
    times.print();
}

/// A byte there and back on all of them at once.
async fn echoes(pipes: &mut [Box<dyn Pipe>], since: Instant, times: &mut Times, name: &str) {
    let count = pipes.len();
    let mut echoes: FuturesUnordered<_> = pipes.iter_mut().map(echo).collect();
    echoes.next().await;
    times.add(format!("streams: {count}; {name}, the first echo"), since.elapsed());
    while echoes.next().await.is_some() {}
    times.add(format!("streams: {count}; {name}, all echoes"), since.elapsed());
}

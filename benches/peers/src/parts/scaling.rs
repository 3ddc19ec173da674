//! From one to many, on one core: tunnels of one agent process, and streams of one tunnel. Each round has fresh
//! processes, as memory that was once used is not given back.

use super::scale::Scale;
use crate::{
    Result,
    book::Book,
    carrier::Carrier,
    pair::{Between, Cores, Pair},
    quantity::{Over, Quantity},
    task::Task,
};

/// Streams that are held open over many tunnels, at most: each may take two descriptors.
const HELD: usize = 1000;

pub(crate) async fn measure(scale: &Scale, book: &mut Book) -> Result<()> {
    for _ in 0..scale.rounds {
        for carrier in Carrier::STREAMS {
            grow(carrier, Over::Tunnels, scale.tunnels, scale.trips, book).await?;
            grow(carrier, Over::Streams, scale.streams, scale.trips, book).await?;
        }
    }
    Ok(())
}

async fn grow(carrier: Carrier, over: Over, counts: &[usize], trips: u64, book: &mut Book) -> Result<()> {
    let mut pair = Pair::start(carrier, Cores::One, Between::Nothing).await?;
    let mut resident = Vec::new();
    for count in counts {
        match over {
            Over::Tunnels => pair.tunnels(*count).await?,
            Over::Streams => drop(pair.run(Task::HoldStreams { count: *count }).await?),
        }
        let kib = pair.resident().await?;
        book.add(Quantity::Resident(over, *count), carrier, kib);
        resident.push((*count as f64, kib));
        if over == Over::Tunnels {
            pair.run(Task::HoldTunnels { count: (*count).min(HELD) }).await?;
        }
        let sample = pair.run(Task::Turns { n: trips.max(*count as u64) }).await?;
        book.add(Quantity::ScaledP50(over, *count), carrier, sample.taken.p50);
        book.add(Quantity::ScaledP99(over, *count), carrier, sample.taken.p99);
        if over == Over::Tunnels {
            pair.run(Task::Drop).await?;
        }
    }
    // The last step has most of them, and least of what the process needs in any case.
    if let [.., (few, before), (many, after)] = resident[..] {
        let each = match over {
            Over::Tunnels => Quantity::PerTunnel,
            Over::Streams => Quantity::PerStream,
        };
        book.add(each, carrier, (after - before) / (many - few));
    }
    pair.stop().await
}

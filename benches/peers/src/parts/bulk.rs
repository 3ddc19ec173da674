//! Bulk data, on one core: over one stream and over eight, each way.

use super::{in_turn, pairs, scale::Scale, stop};
use crate::{
    Result,
    book::Book,
    carrier::Carrier,
    pair::{Between, Cores, Pair},
    quantity::Quantity,
    task::{Task, Way},
};

const CARRIERS: [Carrier; 10] = [
    Carrier::Native,
    Carrier::NativeNoGrace,
    Carrier::Dialback,
    Carrier::Tcp,
    Carrier::Upgraded,
    Carrier::Raw,
    Carrier::Bare,
    Carrier::YamuxTcp,
    Carrier::YamuxWebSocket,
    Carrier::H2,
];

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

pub(crate) async fn measure(scale: &Scale, book: &mut Book) -> Result<()> {
    let mut pairs = pairs(&CARRIERS, Cores::One, Between::Nothing).await?;
    for way in Way::BOTH {
        // TCP's windows grow in what does not count.
        for pair in &mut pairs {
            transfer(pair, scale.bulk / 4, 8, way, &mut Book::default()).await?;
        }
    }
    for round in 0..scale.rounds {
        for way in Way::BOTH {
            for streams in [1, 8] {
                for pair in in_turn(&mut pairs, round) {
                    transfer(pair, scale.bulk, streams, way, book).await?;
                }
            }
        }
    }
    stop(pairs).await
}

async fn transfer(pair: &mut Pair, bytes: u64, streams: u64, way: Way, book: &mut Book) -> Result<()> {
    if pair.carrier == Carrier::Raw && streams > 1 {
        return Ok(());
    }
    let sample = pair.run(Task::Bulk { bytes, streams, way }).await?;
    book.add(Quantity::Bulk(way, streams), pair.carrier, bytes as f64 / sample.taken.seconds);
    if streams == 1 {
        book.add(Quantity::CpuPerGib(way), pair.carrier, sample.cpu * GIB / bytes as f64);
    }
    Ok(())
}

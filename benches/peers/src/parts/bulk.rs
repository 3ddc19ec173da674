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

/// One stream alone, and as many as a busy tunnel has.
const STREAMS: [u64; 2] = [1, 8];

/// So many rounds have the same connections. Each keeps for good what TCP has found to be its windows, and whether data
/// is still in the cache when it is read: by chance, so that one ratio of one pair of connections says little.
const ROUNDS: usize = 3;

pub(crate) async fn measure(scale: &Scale, book: &mut Book) -> Result<()> {
    for begun in (0..scale.bulk_rounds).step_by(ROUNDS) {
        let rounds = begun..scale.bulk_rounds.min(begun + ROUNDS);
        // Connections of their own for each number: what has stood beside others goes by that when it is alone.
        for streams in STREAMS {
            let carriers = CARRIERS.into_iter().filter(|carrier| streams == 1 || *carrier != Carrier::Raw);
            let mut pairs = pairs(&carriers.collect::<Vec<_>>(), Cores::One, Between::Nothing).await?;
            for way in Way::BOTH {
                // TCP's windows grow in what does not count.
                for pair in &mut pairs {
                    transfer(pair, scale.bulk, streams, way, &mut Book::default()).await?;
                }
            }
            for round in rounds.clone() {
                for way in Way::BOTH {
                    for pair in in_turn(&mut pairs, round) {
                        transfer(pair, scale.bulk, streams, way, book).await?;
                    }
                }
            }
            stop(pairs).await?;
        }
    }
    Ok(())
}

async fn transfer(pair: &mut Pair, bytes: u64, streams: u64, way: Way, book: &mut Book) -> Result<()> {
    let sample = pair.run(Task::Bulk { bytes, streams, way }).await?;
    book.add(Quantity::Bulk(way, streams), pair.carrier, bytes as f64 / sample.taken.seconds);
    if streams == 1 {
        book.add(Quantity::CpuPerGib(way), pair.carrier, sample.cpu * GIB / bytes as f64);
    }
    Ok(())
}

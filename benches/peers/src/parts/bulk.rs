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

pub(crate) async fn measure(scale: &Scale, book: &mut Book) -> Result<()> {
    // Pairs of its own for each number: a TCP connection that has stood beside others keeps what it learnt of congestion
    // there, and goes by that when it is alone.
    let mut sets = Vec::new();
    for streams in STREAMS {
        let carriers = CARRIERS.into_iter().filter(|carrier| streams == 1 || *carrier != Carrier::Raw);
        let mut pairs = pairs(&carriers.collect::<Vec<_>>(), Cores::One, Between::Nothing).await?;
        for way in Way::BOTH {
            // TCP's windows grow in what does not count.
            for pair in &mut pairs {
                transfer(pair, scale.bulk, streams, way, &mut Book::default()).await?;
            }
        }
        sets.push((streams, pairs));
    }
    for round in 0..scale.short_rounds {
        for (streams, pairs) in &mut sets {
            for way in Way::BOTH {
                for pair in in_turn(pairs, round) {
                    transfer(pair, scale.bulk, *streams, way, book).await?;
                }
            }
        }
    }
    for (_, pairs) in sets {
        stop(pairs).await?;
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

//! Over a long link, on all cores: round trips, dials, and bulk data over one stream.

use std::time::Duration;

use super::{MIB, in_turn, pairs, scale::Scale, stop};
use crate::{
    Result,
    book::Book,
    carrier::Carrier,
    pair::{Between, Cores, Pair},
    quantity::Quantity,
    task::{Task, Way},
};

const CARRIERS: [Carrier; 7] = [
    Carrier::Native,
    Carrier::NativeWide,
    Carrier::Dialback,
    Carrier::Tcp,
    Carrier::YamuxTcp,
    Carrier::YamuxWebSocket,
    Carrier::H2,
];

/// Each round trip and dial takes as long as the link is: few are enough.
const FEW: u64 = 4;

pub(crate) async fn measure(scale: &Scale, book: &mut Book) -> Result<()> {
    for ms in scale.delays {
        let mut pairs = pairs(&CARRIERS, Cores::All, Between::Delay(Duration::from_millis(*ms))).await?;
        // At least twice what may be in flight, at most what loopback moves in the time.
        let bytes = (8 * MIB * scale.delayed_millis / ms).clamp(16 * MIB, 256 * MIB);
        for pair in &mut pairs {
            // Windows grow in what does not count.
            for way in Way::BOTH {
                pair.run(Task::Bulk { bytes, streams: 1, way }).await?;
            }
        }
        for round in 0..scale.rounds {
            for pair in in_turn(&mut pairs, round) {
                small(pair, *ms, book).await?;
            }
            for way in Way::BOTH {
                for pair in in_turn(&mut pairs, 0) {
                    let sample = pair.run(Task::Bulk { bytes, streams: 1, way }).await?;
                    book.add(Quantity::DelayedBulk(way, *ms), pair.carrier, bytes as f64 / sample.taken.seconds);
                }
            }
        }
        stop(pairs).await?;
    }
    Ok(())
}

async fn small(pair: &mut Pair, ms: u64, book: &mut Book) -> Result<()> {
    let each = |seconds: f64| seconds / FEW as f64;
    let carrier = pair.carrier;
    let sample = pair.run(Task::Trips { n: FEW }).await?;
    book.add(Quantity::DelayedTrip(ms), carrier, each(sample.taken.seconds));
    let sample = pair.run(Task::Dials { n: FEW, at_once: 1, confirmed: false }).await?;
    book.add(Quantity::DelayedDial(ms), carrier, each(sample.taken.seconds));
    if carrier == Carrier::Native {
        let sample = pair.run(Task::Dials { n: FEW, at_once: 1, confirmed: true }).await?;
        book.add(Quantity::DelayedDialConfirmed(ms), carrier, each(sample.taken.seconds));
    }
    Ok(())
}

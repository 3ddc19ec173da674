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

/// Yamux over a WebSocket is left out: over a long link it takes as long as yamux over TCP.
const CARRIERS: [Carrier; 7] = [
    Carrier::Dialback,
    Carrier::Native,
    // What fills both cores is compared with TCP: side by side, as the machine's moments are alike then.
    Carrier::NativeWide,
    Carrier::Tcp,
    Carrier::BareWide,
    Carrier::YamuxTcp,
    Carrier::H2,
];

/// What carries bulk data as fast as the way lets it. Yamux has no bound for the whole connection here: it reads hundreds
/// of MiB ahead of whoever reads from it, at whose end they come as fast as memory gives them.
fn is_paced(pair: &&mut Pair) -> bool {
    pair.carrier != Carrier::YamuxTcp
}

/// What is compared while it fills both cores: one ratio of it may be half as large again as the next, and it has twice
/// the rounds.
const FULL: [Carrier; 2] = [Carrier::NativeWide, Carrier::Tcp];

/// Each round trip and dial takes as long as the link is: few are enough.
const FEW: u64 = 2;

/// What a transfer begins with, and is at least: a few small windows.
const LEAST: u64 = 4 * MIB;

pub(crate) async fn measure(scale: &Scale, book: &mut Book) -> Result<()> {
    for ms in scale.delays {
        let flow = Flow { during: scale.transfer.as_secs_f64().max(*ms as f64 * 8e-3) };
        let mut pairs = pairs(&CARRIERS, Cores::All, Between::Delay(Duration::from_millis(*ms))).await?;
        let mut bytes = Vec::new();
        for pair in pairs.iter_mut().filter(is_paced) {
            bytes.push((pair.carrier, [flow.fitting(pair, Way::Up).await?, flow.fitting(pair, Way::Down).await?]));
        }
        for round in 0..2 * scale.rounds {
            let all = round < scale.rounds;
            for pair in in_turn(&mut pairs, round).filter(|_| all) {
                small(pair, *ms, book).await?;
            }
            for (i, way) in Way::BOTH.into_iter().enumerate() {
                for pair in in_turn(&mut pairs, 0).filter(is_paced) {
                    let carrier = pair.carrier;
                    if !all && !FULL.contains(&carrier) {
                        continue;
                    }
                    let bytes = bytes.iter().find(|(known, _)| *known == carrier).map_or(LEAST, |(_, bytes)| bytes[i]);
                    book.add(
                        Quantity::DelayedBulk(way, *ms),
                        carrier,
                        bytes as f64 / flow.seconds(pair, bytes, way).await?,
                    );
                }
            }
        }
        stop(pairs).await?;
    }
    Ok(())
}

/// How a transfer over a long link is measured: for so many seconds, at least some round trips, as what a window bounds
/// comes in one burst a round trip.
struct Flow {
    during: f64,
}

impl Flow {
    /// What so many bytes take, once windows have grown and while more follow.
    async fn seconds(&self, pair: &mut Pair, bytes: u64, way: Way) -> Result<f64> {
        Ok(pair.run(Task::Flow { bytes, way }).await?.taken.p50)
    }

    /// How many bytes this carrier moves in the time.
    async fn fitting(&self, pair: &mut Pair, way: Way) -> Result<u64> {
        let mut bytes = LEAST;
        loop {
            let part = self.seconds(pair, bytes, way).await? / self.during;
            if part > 0.7 {
                return Ok((bytes as f64 / part) as u64);
            }
            bytes *= if part > 0.35 { 2 } else { 3 };
        }
    }
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

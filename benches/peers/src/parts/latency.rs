//! One thing at a time, on one core: round trips, dials, GETs, and GETs beside bulk data in the same tunnel.

use super::{in_turn, pairs, scale::Scale, stop};
use crate::{
    Result,
    book::Book,
    carrier::Carrier,
    pair::{Between, Cores, Pair},
    quantity::Quantity,
    task::{Task, Way},
};

const CARRIERS: [Carrier; 9] = [
    Carrier::Native,
    Carrier::NativeNoGrace,
    Carrier::Dialback,
    Carrier::Tcp,
    Carrier::Raw,
    Carrier::Bare,
    Carrier::YamuxTcp,
    Carrier::YamuxWebSocket,
    Carrier::H2,
];

const KINDS: [Quantity; 4] = [Quantity::Trip, Quantity::Dial, Quantity::DialConfirmed, Quantity::Get];

pub(crate) async fn measure(scale: &Scale, book: &mut Book) -> Result<()> {
    let mut pairs = pairs(&CARRIERS, Cores::One, Between::Nothing).await?;
    // What is used for the first time costs more: a round that does not count.
    for pair in &mut pairs {
        for kind in KINDS {
            small(pair, kind, scale.small, &mut Book::default()).await?;
        }
    }
    for round in 0..scale.small_rounds {
        // One kind after the other, so that what is compared is measured within a moment.
        for kind in KINDS {
            for pair in in_turn(&mut pairs, round) {
                small(pair, kind, scale.small, book).await?;
            }
        }
    }
    for _ in 0..scale.rounds {
        for pair in in_turn(&mut pairs, 0).filter(|pair| pair.carrier != Carrier::Raw) {
            beside(pair, scale, book).await?;
        }
    }
    stop(pairs).await
}

/// So many of a kind, one after the other, if this carrier has it.
async fn small(pair: &mut Pair, kind: Quantity, n: u64, book: &mut Book) -> Result<()> {
    let task = match (kind, pair.carrier) {
        (Quantity::Trip, _) => Task::Trips { n },
        (_, Carrier::Raw) => return Ok(()),
        (Quantity::Dial, _) => Task::Dials { n, at_once: 1, confirmed: false },
        (Quantity::DialConfirmed, Carrier::Native) => Task::Dials { n, at_once: 1, confirmed: true },
        (Quantity::Get, _) => Task::Requests { n, connections: 1 },
        _ => return Ok(()),
    };
    let sample = pair.run(task).await?;
    book.add(kind, pair.carrier, sample.taken.seconds / n as f64);
    Ok(())
}

async fn beside(pair: &mut Pair, scale: &Scale, book: &mut Book) -> Result<()> {
    let figures = [
        (None, Quantity::BesideNothing),
        (Some(Way::Up), Quantity::Beside(Way::Up)),
        (Some(Way::Down), Quantity::Beside(Way::Down)),
    ];
    for (way, quantity) in figures {
        let sample = pair.run(Task::Beside { way, millis: scale.beside_millis }).await?;
        book.add(quantity, pair.carrier, sample.taken.p99);
    }
    Ok(())
}

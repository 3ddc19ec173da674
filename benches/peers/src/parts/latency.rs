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

pub(crate) async fn measure(scale: &Scale, book: &mut Book) -> Result<()> {
    let mut pairs = pairs(&CARRIERS, Cores::One, Between::Nothing).await?;
    // What is used for the first time costs more: a small round that does not count.
    for pair in &mut pairs {
        small(pair, scale.trips / 10, scale.dials / 10, &mut Book::default()).await?;
    }
    for round in 0..scale.short_rounds {
        for pair in in_turn(&mut pairs, round) {
            small(pair, scale.trips, scale.dials, book).await?;
        }
    }
    for _ in 0..scale.rounds {
        for pair in in_turn(&mut pairs, 0).filter(|pair| pair.carrier != Carrier::Raw) {
            beside(pair, scale, book).await?;
        }
    }
    stop(pairs).await
}

async fn small(pair: &mut Pair, trips: u64, dials: u64, book: &mut Book) -> Result<()> {
    let carrier = pair.carrier;
    let sample = pair.run(Task::Trips { n: trips }).await?;
    book.add(Quantity::Trip, carrier, sample.taken.seconds / trips as f64);
    if carrier == Carrier::Raw {
        return Ok(());
    }
    let sample = pair.run(Task::Dials { n: dials, at_once: 1, confirmed: false }).await?;
    book.add(Quantity::Dial, carrier, sample.taken.seconds / dials as f64);
    if carrier == Carrier::Native {
        let sample = pair.run(Task::Dials { n: dials, at_once: 1, confirmed: true }).await?;
        book.add(Quantity::DialConfirmed, carrier, sample.taken.seconds / dials as f64);
    }
    let sample = pair.run(Task::Requests { n: trips, connections: 1 }).await?;
    book.add(Quantity::Get, carrier, sample.taken.seconds / trips as f64);
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

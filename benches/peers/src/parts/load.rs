//! Many at once, on all cores: dials by 64 tasks, and GETs over 64 connections.

use super::{in_turn, pairs, scale::Scale, stop};
use crate::{
    Result,
    book::Book,
    carrier::Carrier,
    pair::{Between, Cores},
    quantity::Quantity,
    task::Task,
};

const CARRIERS: [Carrier; 8] = [
    Carrier::Native,
    Carrier::Dialback,
    Carrier::Tcp,
    Carrier::Upgraded,
    Carrier::Bare,
    Carrier::YamuxTcp,
    Carrier::YamuxWebSocket,
    Carrier::H2,
];

const AT_ONCE: u64 = 64;

pub(crate) async fn measure(scale: &Scale, book: &mut Book) -> Result<()> {
    let mut pairs = pairs(&CARRIERS, Cores::All, Between::Nothing).await?;
    for pair in &mut pairs {
        pair.run(Task::Dials { n: AT_ONCE, at_once: AT_ONCE, confirmed: false }).await?;
        pair.run(Task::Requests { n: scale.requests / 4, connections: AT_ONCE }).await?;
    }
    for round in 0..scale.short_rounds {
        for pair in in_turn(&mut pairs, round) {
            let carrier = pair.carrier;
            let n = scale.dials * dials_in_a_round(carrier);
            let sample = pair.run(Task::Dials { n, at_once: AT_ONCE, confirmed: false }).await?;
            book.add(Quantity::DialsAtOnce, carrier, n as f64 / sample.taken.seconds);
            let n = scale.requests * 8;
            let sample = pair.run(Task::Requests { n, connections: AT_ONCE }).await?;
            book.add(Quantity::Gets, carrier, n as f64 / sample.taken.seconds);
            book.add(Quantity::GetsP99, carrier, sample.taken.p99);
            book.add(Quantity::CpuPer100kGets, carrier, sample.cpu * 1e5 / n as f64);
        }
    }
    stop(pairs).await
}

/// Enough for some tenths of a second; fewer where each dial is a TCP connection, whose ports would run out.
fn dials_in_a_round(carrier: Carrier) -> u64 {
    match carrier {
        Carrier::Tcp | Carrier::Upgraded | Carrier::Dialback => 2,
        _ => 12,
    }
}

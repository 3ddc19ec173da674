//! System calls of both sides together, counted while the sides do what they have done before.
//!
//! The tracer makes calls slow, and what is slow gathers more in each: at 64 connections these counts are the least.

use super::{in_turn, pairs, scale::Scale, stop};
use crate::{
    Result,
    book::Book,
    carrier::Carrier,
    pair::{Between, Cores, Pair},
    quantity::Quantity,
    task::Task,
};

const CARRIERS: [Carrier; 9] = [
    Carrier::Native,
    Carrier::Dialback,
    Carrier::Tcp,
    Carrier::Upgraded,
    Carrier::Raw,
    Carrier::Bare,
    Carrier::YamuxTcp,
    Carrier::YamuxWebSocket,
    Carrier::H2,
];

const CONNECTIONS: u64 = 64;

pub(crate) async fn measure(scale: &Scale, book: &mut Book) -> Result<()> {
    let mut pairs = pairs(&CARRIERS, Cores::All, Between::Nothing).await?;
    for pair in &mut pairs {
        for (_, _, task) in tasks(scale, pair.carrier) {
            pair.run(task).await?;
        }
    }
    for round in 0..scale.rounds {
        for pair in in_turn(&mut pairs, round) {
            count(pair, scale, book).await?;
        }
    }
    stop(pairs).await
}

async fn count(pair: &mut Pair, scale: &Scale, book: &mut Book) -> Result<()> {
    // What it takes to be told a task.
    let told = pair.calls(Task::Drop).await?;
    for (quantity, n, task) in tasks(scale, pair.carrier) {
        let calls = pair.calls(task).await?.saturating_sub(told);
        book.add(quantity, pair.carrier, calls as f64 / n as f64);
    }
    Ok(())
}

/// What is counted of a carrier: a call under the tracer takes some ten times as long as it does otherwise.
fn tasks(scale: &Scale, carrier: Carrier) -> Vec<(Quantity, u64, Task)> {
    let Scale { traced: n, .. } = *scale;
    let mut tasks = vec![(Quantity::CallsPerTrip, n, Task::Trips { n })];
    if carrier != Carrier::Raw {
        tasks.push((Quantity::CallsPerDial, n, Task::Dials { n, at_once: 1, confirmed: false }));
        let requests = n * 4;
        tasks.push((Quantity::CallsPerGet, requests, Task::Requests { n: requests, connections: CONNECTIONS }));
    }
    tasks
}

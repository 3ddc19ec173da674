//! How carriers grow: a table for each quantity, with a column for each number of tunnels or streams.

use super::markdown::{line, rounded};
use crate::{
    book::Book,
    carrier::Carrier,
    quantity::{Over, Quantity},
};

/// All numbers of tunnels and of streams that a run may have.
pub(super) const COUNTS: [usize; 5] = [1, 10, 100, 1000, 10_000];

/// A quantity of so many.
pub(super) type OfSoMany = fn(usize) -> Quantity;

pub(super) fn tables(text: &mut String, book: &Book) {
    use Over::{Streams, Tunnels};
    let quantities: [(&str, OfSoMany); 8] = [
        ("Server memory over tunnels", |count| Quantity::Resident(Tunnels, count)),
        ("CPU of both sides over idle tunnels", Quantity::Idle),
        ("Round trip p50 over tunnels in turn", |count| Quantity::ScaledP50(Tunnels, count)),
        ("Round trip p99 over tunnels in turn", |count| Quantity::ScaledP99(Tunnels, count)),
        ("Server memory over open streams", |count| Quantity::Resident(Streams, count)),
        ("Round trip p50 over streams in turn", |count| Quantity::ScaledP50(Streams, count)),
        ("Round trip p99 over streams in turn", |count| Quantity::ScaledP99(Streams, count)),
        ("GETs over streams, all at once", Quantity::ScaledGets),
    ];
    for (title, quantity) in quantities {
        table(text, book, title, quantity);
    }
}

fn table(text: &mut String, book: &Book, title: &str, quantity: OfSoMany) {
    let measured = |count: &usize| Carrier::STREAMS.iter().any(|of| !book.rounds(quantity(*count), *of).is_empty());
    let counts: Vec<usize> = COUNTS.into_iter().filter(measured).collect();
    if counts.is_empty() {
        return;
    }
    let names: Vec<String> = counts.iter().map(|count| format!(" {count} |")).collect();
    line(text, &format!("\n## {title}, {} (pinned)\n\n| carrier |{}", quantity(1).unit().scale().0, names.concat()));
    line(text, &format!("|---|{}", "---:|".repeat(counts.len())));
    for carrier in Carrier::STREAMS {
        let figures: Vec<String> = counts.iter().map(|count| cell(book, quantity(*count), carrier)).collect();
        line(text, &format!("| {} |{}", carrier.name(), figures.concat()));
    }
}

fn cell(book: &Book, quantity: Quantity, carrier: Carrier) -> String {
    let median = book.spread(quantity, carrier).map(|spread| rounded(spread.median / quantity.unit().scale().1));
    format!(" {} |", median.as_deref().unwrap_or("–"))
}

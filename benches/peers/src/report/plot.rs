//! How carriers scale: round trips and memory over the number of tunnels and of streams, all axes logarithmic.

use super::svg::{Panel, Series, page};
use crate::{
    book::Book,
    carrier::Carrier,
    quantity::{Over, Quantity},
};

/// `None` if that was not measured.
pub(crate) fn scaling(book: &Book) -> Option<String> {
    let panels: Vec<Panel> = [Over::Tunnels, Over::Streams]
        .into_iter()
        .flat_map(|over| {
            [
                panel(book, over, "round trip p50, µs", Quantity::ScaledP50),
                panel(book, over, "round trip p99, µs", Quantity::ScaledP99),
                panel(book, over, "server memory, KiB", Quantity::Resident),
            ]
        })
        .collect();
    panels.iter().any(|panel| !panel.series.is_empty()).then(|| page(&panels, &Carrier::STREAMS.map(Carrier::name)))
}

fn panel(book: &Book, over: Over, title: &str, quantity: fn(Over, usize) -> Quantity) -> Panel {
    let series = Carrier::STREAMS.into_iter().enumerate().filter_map(|(color, carrier)| {
        let points = [1, 10, 100, 1000, 10_000].into_iter().filter_map(|count| {
            let quantity = quantity(over, count);
            let spread = book.spread(quantity, carrier)?;
            Some((count as f64, spread.median / quantity.unit().scale().1))
        });
        let points: Vec<_> = points.collect();
        (!points.is_empty()).then_some(Series { color, points })
    });
    Panel { title: format!("{title}, over {}", over.name()), series: series.collect() }
}

//! How carriers grow: on the left over the number of tunnels, on the right over that of streams of one tunnel.

use super::{
    growth::{COUNTS, OfSoMany},
    svg::{Panel, Series, page},
};
use crate::{
    book::Book,
    carrier::Carrier,
    quantity::{
        Over::{Streams, Tunnels},
        Quantity,
    },
};

/// `None` if that was not measured.
pub(crate) fn scaling(book: &Book) -> Option<String> {
    let panels: [(&str, &str, OfSoMany); 8] = [
        ("Server memory", "idle tunnels", |count| Quantity::Resident(Tunnels, count)),
        ("Server memory", "idle streams", |count| Quantity::Resident(Streams, count)),
        ("Round trip, median", "tunnels, in turn", |count| Quantity::ScaledP50(Tunnels, count)),
        ("Round trip, median", "streams, in turn", |count| Quantity::ScaledP50(Streams, count)),
        ("Round trip, p99", "tunnels, in turn", |count| Quantity::ScaledP99(Tunnels, count)),
        ("Round trip, p99", "streams, in turn", |count| Quantity::ScaledP99(Streams, count)),
        ("Used by both sides", "idle tunnels", Quantity::Idle),
        ("GETs", "streams, all at once", Quantity::ScaledGets),
    ];
    let panels = panels.map(|(title, across, quantity)| panel(book, title, across, quantity));
    panels.iter().any(|panel| !panel.series.is_empty()).then(|| page(&panels, &Carrier::STREAMS.map(Carrier::name)))
}

fn panel(book: &Book, title: &str, across: &'static str, quantity: OfSoMany) -> Panel {
    let (unit, scale) = quantity(1).unit().scale();
    let series = Carrier::STREAMS.into_iter().enumerate().filter_map(|(color, carrier)| {
        let points = COUNTS.into_iter().filter_map(|count| {
            let spread = book.spread(quantity(count), carrier)?;
            // Nothing has no place on a logarithmic axis.
            (spread.median > 0.0).then_some((count as f64, spread.median / scale))
        });
        let points: Vec<_> = points.collect();
        (!points.is_empty()).then_some(Series { color, points })
    });
    Panel { title: format!("{title}, {unit}"), across, series: series.collect() }
}

//! What must be reached: for each row of the targets the figure that shows it, the gate, and the goal beyond.

use crate::{
    book::{Book, Spread},
    carrier::Carrier::{self, Bare, Dialback, H2, Native, NativeNoGrace, NativeWide, Raw, Tcp, Upgraded},
    quantity::Quantity,
    task::Way,
};

/// On which side of a number a figure must be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

use Bound::{AtLeast, AtMost};

impl Bound {
    pub(crate) fn is_met(self, figure: f64) -> bool {
        match self {
            AtMost(most) => figure <= most,
            AtLeast(least) => figure >= least,
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            AtMost(most) => format!("≤ {most}"),
            AtLeast(least) => format!("≥ {least}"),
        }
    }
}

/// A row of the targets, and what was measured for it.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) row: &'static str,
    pub(crate) figure: String,
    /// `None` where that was not measured.
    pub(crate) measured: Option<Spread>,
    pub(crate) gate: Bound,
    pub(crate) goal: Bound,
    /// The same figure of an experiment that does no more than must be done, where there is one.
    pub(crate) bounded_by: Option<(&'static str, Spread)>,
}

/// All rows that a run can measure, in their order.
pub(crate) fn gates(book: &Book) -> Vec<Gate> {
    let mut list = List { book, gates: Vec::new() };
    list.small();
    list.http();
    list.bulk();
    list.delayed();
    list.memory();
    list.calls();
    list.fairness();
    list.dialback();
    list.gates
}

/// The delays, in milliseconds, for which there are gates.
const DELAYS: [u64; 3] = [20, 60, 150];

/// What ours may have in flight with its defaults.
const IN_FLIGHT: f64 = 8.0 * 1024.0 * 1024.0;

struct List<'a> {
    book: &'a Book,
    gates: Vec<Gate>,
}

impl List<'_> {
    fn add(&mut self, row: &'static str, figure: impl Into<String>, measured: Option<Spread>, bounds: [Bound; 2]) {
        self.gates.push(Gate {
            row,
            figure: figure.into(),
            measured,
            gate: bounds[0],
            goal: bounds[1],
            bounded_by: None,
        });
    }

    /// One carrier over another in the same quantity.
    fn over(&mut self, row: &'static str, quantity: Quantity, of: Carrier, to: Carrier, bounds: [Bound; 2]) {
        let figure = match of {
            Native => format!("{} ÷ {}", quantity.name(), to.name()),
            _ => format!("{}, {} ÷ {}", quantity.name(), of.name(), to.name()),
        };
        self.add(row, figure, self.book.ratio((quantity, of), (quantity, to)), bounds);
    }

    /// Ours over another in the same quantity, whose goal has its bound in what a bare mux makes of that.
    fn native(&mut self, row: &'static str, quantity: Quantity, to: Carrier, bounds: [Bound; 2]) {
        self.over(row, quantity, Native, to, bounds);
        self.bounded_by(Bare, self.book.ratio((quantity, Bare), (quantity, to)));
    }

    /// The last row's goal has its bound in what this carrier, which is no product, reaches.
    fn bounded_by(&mut self, carrier: Carrier, reached: Option<Spread>) {
        if let (Some(gate), Some(reached)) = (self.gates.last_mut(), reached) {
            gate.bounded_by = Some((carrier.name(), reached));
        }
    }

    /// One quantity over another of ours; likewise.
    fn own(&mut self, row: &'static str, over: Quantity, under: Quantity, bounds: [Bound; 2]) {
        let figure = format!("{} ÷ {}", over.name(), under.name());
        self.add(row, figure, self.book.ratio((over, Native), (under, Native)), bounds);
        self.bounded_by(Bare, self.book.ratio((over, Bare), (under, Bare)));
    }

    fn small(&mut self) {
        self.native("A1", Quantity::Trip, Tcp, [AtMost(1.35), AtMost(1.15)]);
        self.own("A2", Quantity::Dial, Quantity::Trip, [AtMost(2.0), AtMost(1.6)]);
        let at_20 = Quantity::DelayedTrip(20);
        self.own("A3", Quantity::DelayedDial(20), at_20, [AtMost(1.15), AtMost(1.05)]);
        self.own("A3", Quantity::DelayedDialConfirmed(20), at_20, [AtMost(2.15), AtMost(2.05)]);
        self.native("A4", Quantity::DialsAtOnce, Dialback, [AtLeast(5.0), AtLeast(10.0)]);
        self.native("A5", Quantity::DialsAtOnce, H2, [AtLeast(2.0), AtLeast(4.0)]);
    }

    fn http(&mut self) {
        self.native("A6", Quantity::Get, Tcp, [AtMost(1.25), AtMost(1.10)]);
        self.native("A7", Quantity::Gets, Tcp, [AtLeast(1.0), AtLeast(1.2)]);
        self.native("A7", Quantity::GetsP99, Tcp, [AtMost(1.3), AtMost(1.0)]);
        self.native("A8", Quantity::CpuPer100kGets, H2, [AtMost(1.4), AtMost(0.9)]);
    }

    fn bulk(&mut self) {
        let one_and_eight = [
            (Way::Up, [AtLeast(1.0), AtLeast(1.3)], [AtLeast(0.8), AtLeast(1.0)]),
            (Way::Down, [AtLeast(1.0), AtLeast(1.9)], [AtLeast(0.7), AtLeast(1.0)]),
        ];
        for (way, bounds, _) in one_and_eight {
            self.native("A9", Quantity::Bulk(way, 1), Raw, bounds);
        }
        for (way, _, bounds) in one_and_eight {
            let (eight, raw) = ((Quantity::Bulk(way, 8), Native), (Quantity::Bulk(way, 1), Raw));
            self.add("A10", format!("{} ÷ {}", eight.0.name(), Raw.name()), self.book.ratio(eight, raw), bounds);
            self.bounded_by(Bare, self.book.ratio((eight.0, Bare), raw));
        }
        for way in Way::BOTH {
            self.native("A11", Quantity::CpuPerGib(way), Tcp, [AtMost(1.25), AtMost(1.0)]);
        }
    }

    fn delayed(&mut self) {
        for way in Way::BOTH {
            for ms in DELAYS {
                let quantity = Quantity::DelayedBulk(way, ms);
                let bound = IN_FLIGHT * 1000.0 / ms as f64;
                let rounds = self.book.rounds(quantity, Native).iter().zip(self.book.rounds(quantity, Tcp));
                let measured = Spread::of(rounds.map(|(ours, tcp)| ours / tcp.min(bound)).collect());
                let figure = format!("{} ÷ min({}, 8 MiB ÷ {ms} ms)", quantity.name(), Tcp.name());
                self.add("A12", figure, measured, [AtLeast(0.6), AtLeast(0.9)]);
            }
            for ms in DELAYS {
                self.over("A12", Quantity::DelayedBulk(way, ms), NativeWide, Tcp, [AtLeast(0.6), AtLeast(0.9)]);
            }
        }
    }

    fn memory(&mut self) {
        self.plain("A13", Quantity::PerTunnel, Native, [AtMost(8.0), AtMost(4.0)]);
        self.bounded_by(Bare, self.book.spread(Quantity::PerTunnel, Bare));
        self.plain("A14", Quantity::PerStream, Native, [AtMost(1.5), AtMost(0.6)]);
        self.bounded_by(Bare, self.book.spread(Quantity::PerStream, Bare));
    }

    fn calls(&mut self) {
        self.plain("A15", Quantity::CallsPerTrip, Native, [AtMost(7.0), AtMost(6.5)]);
        self.plain("A15", Quantity::CallsPerDial, Native, [AtMost(14.0), AtMost(9.0)]);
        self.plain("A15", Quantity::CallsPerGet, Native, [AtMost(1.2), AtMost(0.7)]);
    }

    fn fairness(&mut self) {
        for way in Way::BOTH {
            self.own("A16", Quantity::Beside(way), Quantity::BesideNothing, [AtMost(4.0), AtMost(2.0)]);
        }
        for way in Way::BOTH {
            self.over("A17", Quantity::Bulk(way, 1), Native, NativeNoGrace, [AtLeast(0.95), AtLeast(0.98)]);
        }
        self.over("A17", Quantity::Get, Native, NativeNoGrace, [AtMost(1.03), AtMost(1.01)]);
    }

    fn dialback(&mut self) {
        let dials = Quantity::DialsAtOnce;
        self.over("B1", dials, Dialback, Tcp, [AtLeast(0.4), AtLeast(0.6)]);
        self.bounded_by(Upgraded, self.book.ratio((dials, Upgraded), (dials, Tcp)));
        self.over("B2", Quantity::Gets, Dialback, Tcp, [AtLeast(0.8), AtLeast(0.95)]);
        for way in Way::BOTH {
            self.over("B3", Quantity::Bulk(way, 1), Dialback, Raw, [AtLeast(0.95), AtLeast(1.2)]);
        }
        self.plain("B4", Quantity::PerTunnel, Dialback, [AtMost(10.0), AtMost(6.0)]);
        self.plain("B4", Quantity::PerStream, Dialback, [AtMost(7.0), AtMost(4.0)]);
    }

    /// The figure itself.
    fn plain(&mut self, row: &'static str, quantity: Quantity, carrier: Carrier, bounds: [Bound; 2]) {
        let figure = format!("{}, {}, {}", quantity.name(), carrier.name(), quantity.unit().scale().0);
        self.add(row, figure, self.book.spread(quantity, carrier), bounds);
    }
}

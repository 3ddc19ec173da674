//! What must be reached: for each row of the targets the figure that shows it, the gate, and the goal beyond.

use crate::{
    book::{Book, Spread},
    carrier::Carrier::{self, Bare, BareWide, Dialback, H2, Native, NativeNoGrace, NativeWide, Raw, Tcp, Upgraded},
    quantity::{Over, Quantity},
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
    pub(crate) bounded_by: Option<(String, f64)>,
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

/// The number of tunnels at which their memory is judged.
const MANY: usize = 10_000;

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
        self.bounded_by(Bare.name(), self.book.ratio((quantity, Bare), (quantity, to)));
    }

    /// The last row's goal has its bound in what this reaches, which is no product.
    fn bounded_by(&mut self, name: impl Into<String>, reached: Option<Spread>) {
        if let (Some(gate), Some(reached)) = (self.gates.last_mut(), reached) {
            gate.bounded_by = Some((name.into(), reached.median));
        }
    }

    /// One quantity over another of ours.
    fn own(&mut self, row: &'static str, over: Quantity, under: Quantity, bounds: [Bound; 2]) {
        let figure = format!("{} ÷ {}", over.name(), under.name());
        self.add(row, figure, self.book.ratio((over, Native), (under, Native)), bounds);
    }

    /// The last row's goal has its bound in one quantity of this carrier over another.
    fn bounded_by_own(&mut self, carrier: Carrier, over: Quantity, under: Quantity) {
        self.bounded_by(carrier.name(), self.book.ratio((over, carrier), (under, carrier)));
    }

    fn small(&mut self) {
        self.native("A1", Quantity::Trip, Tcp, [AtMost(1.35), AtMost(1.15)]);
        self.own("A2", Quantity::Dial, Quantity::Trip, [AtMost(2.0), AtMost(1.6)]);
        self.bounded_by_own(Bare, Quantity::Dial, Quantity::Trip);
        let (dial, at_20) = (Quantity::DelayedDial(20), Quantity::DelayedTrip(20));
        self.own("A3", dial, at_20, [AtMost(1.15), AtMost(1.05)]);
        self.bounded_by_own(BareWide, dial, at_20);
        self.own("A3", Quantity::DelayedDialConfirmed(20), at_20, [AtMost(2.15), AtMost(2.05)]);
        // A TCP connection waits for the peer's word too.
        self.bounded_by_own(Tcp, dial, at_20);
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
            self.bounded_by(Bare.name(), self.book.ratio((eight.0, Bare), raw));
        }
        for way in Way::BOTH {
            self.native("A11", Quantity::CpuPerGib(way), Tcp, [AtMost(1.25), AtMost(1.0)]);
        }
    }

    fn delayed(&mut self) {
        for way in Way::BOTH {
            for ms in DELAYS {
                let quantity = Quantity::DelayedBulk(way, ms);
                let figure = format!("{} ÷ min({}, 8 MiB ÷ {ms} ms)", quantity.name(), Tcp.name());
                let most = IN_FLIGHT * 1000.0 / ms as f64;
                let rounds = |carrier| self.book.rounds(quantity, carrier).iter();
                let tcp = || rounds(Tcp).map(|tcp| tcp.min(most));
                let measured = Spread::of(rounds(Native).zip(tcp()).map(|(ours, tcp)| ours / tcp).collect());
                let reached = Spread::of(rounds(BareWide).zip(tcp()).map(|(bare, tcp)| bare.min(most) / tcp).collect());
                self.add("A12", figure, measured, [AtLeast(0.6), AtLeast(0.9)]);
                self.bounded_by(BareWide.name(), reached);
            }
            for ms in DELAYS {
                let quantity = Quantity::DelayedBulk(way, ms);
                self.over("A12", quantity, NativeWide, Tcp, [AtLeast(0.6), AtLeast(0.9)]);
                self.bounded_by(BareWide.name(), self.book.ratio((quantity, BareWide), (quantity, Tcp)));
            }
        }
    }

    fn memory(&mut self) {
        self.per_tunnel("A13", [Native, Bare], [AtMost(8.0), AtMost(4.0)]);
        self.plain("A14", Quantity::PerStream, [Native, Bare], [AtMost(1.5), AtMost(0.6)]);
    }

    /// Memory of an idle tunnel among [`MANY`]. A quick run has fewer, and cannot tell.
    fn per_tunnel(&mut self, row: &'static str, carriers: [Carrier; 2], bounds: [Bound; 2]) {
        self.plain(row, Quantity::PerTunnel, carriers, bounds);
        let were_many = !self.book.rounds(Quantity::Resident(Over::Tunnels, MANY), carriers[0]).is_empty();
        if let Some(gate) = self.gates.last_mut() {
            gate.figure += &format!(", tunnels: {MANY}");
            gate.measured = gate.measured.filter(|_| were_many);
            gate.bounded_by = gate.bounded_by.take().filter(|_| were_many);
        }
    }

    fn calls(&mut self) {
        self.plain("A15", Quantity::CallsPerTrip, [Native, Bare], [AtMost(7.0), AtMost(6.5)]);
        self.plain("A15", Quantity::CallsPerDial, [Native, Bare], [AtMost(14.0), AtMost(9.0)]);
        self.plain("A15", Quantity::CallsPerGet, [Native, Bare], [AtMost(1.2), AtMost(0.7)]);
    }

    fn fairness(&mut self) {
        for way in Way::BOTH {
            let (beside, alone) = (Quantity::Beside(way), Quantity::BesideNothing);
            self.own("A16", beside, alone, [AtMost(4.0), AtMost(2.0)]);
            // Over ours alone as well: over its own, which takes less, it would look worse than it is.
            let reached = self.book.ratio((beside, Bare), (alone, Native));
            self.bounded_by(format!("{} ÷ {} alone", Bare.name(), Native.name()), reached);
        }
        for way in Way::BOTH {
            self.over("A17", Quantity::Bulk(way, 1), Native, NativeNoGrace, [AtLeast(0.95), AtLeast(0.98)]);
            self.bounded_by_nothing_kept();
        }
        self.over("A17", Quantity::Get, Native, NativeNoGrace, [AtMost(1.03), AtMost(1.01)]);
        self.bounded_by_nothing_kept();
    }

    /// The last row is of one mode of ours over another that does less: it has its bound in what it is.
    fn bounded_by_nothing_kept(&mut self) {
        self.bounded_by("by definition", Spread::of(vec![1.0]));
    }

    fn dialback(&mut self) {
        self.dialled_back("B1", Quantity::DialsAtOnce, Tcp, [AtLeast(0.4), AtLeast(0.6)]);
        self.dialled_back("B2", Quantity::Gets, Tcp, [AtLeast(0.8), AtLeast(0.95)]);
        for way in Way::BOTH {
            self.dialled_back("B3", Quantity::Bulk(way, 1), Raw, [AtLeast(0.95), AtLeast(1.2)]);
        }
        self.per_tunnel("B4", [Dialback, Upgraded], [AtMost(10.0), AtMost(6.0)]);
        self.plain("B4", Quantity::PerStream, [Dialback, Upgraded], [AtMost(7.0), AtMost(4.0)]);
    }

    /// Dial-back over another in the same quantity, whose goal has its bound in a WebSocket a stream.
    fn dialled_back(&mut self, row: &'static str, quantity: Quantity, to: Carrier, bounds: [Bound; 2]) {
        self.over(row, quantity, Dialback, to, bounds);
        self.bounded_by(Upgraded.name(), self.book.ratio((quantity, Upgraded), (quantity, to)));
    }

    /// The figure itself, and its bound in that of another carrier.
    fn plain(&mut self, row: &'static str, quantity: Quantity, [of, least]: [Carrier; 2], bounds: [Bound; 2]) {
        let figure = format!("{}, {}, {}", quantity.name(), of.name(), quantity.unit().scale().0);
        self.add(row, figure, self.book.spread(quantity, of), bounds);
        self.bounded_by(least.name(), self.book.spread(quantity, least));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run in which every carrier took 2 of everything, with so many tunnels.
    fn measured(tunnels: usize) -> Book {
        use Quantity::*;
        let mut quantities = vec![Trip, Dial, Get, BesideNothing, DialsAtOnce, Gets, GetsP99, CpuPer100kGets];
        quantities.extend([PerTunnel, PerStream, CallsPerTrip, CallsPerDial, CallsPerGet]);
        quantities.extend([DelayedTrip(20), DelayedDial(20), DelayedDialConfirmed(20)]);
        quantities.push(Resident(Over::Tunnels, tunnels));
        for way in Way::BOTH {
            quantities.extend([Beside(way), Bulk(way, 1), Bulk(way, 8), CpuPerGib(way)]);
            quantities.extend(DELAYS.map(|ms| DelayedBulk(way, ms)));
        }
        let mut book = Book::default();
        for (quantity, carrier) in quantities.iter().flat_map(|of| Carrier::ALL.map(|carrier| (*of, carrier))) {
            book.add(quantity, carrier, 2.0);
        }
        book
    }

    #[test]
    fn every_row_of_the_targets_is_there_and_has_its_bound_once_all_is_measured() {
        let gates = gates(&measured(MANY));
        let mut rows: Vec<&str> = gates.iter().map(|gate| gate.row).collect();
        rows.dedup();
        let targets = (1..=17).map(|row| format!("A{row}")).chain((1..=4).map(|row| format!("B{row}")));
        assert_eq!(rows, targets.collect::<Vec<_>>());
        for gate in gates {
            assert!(gate.measured.is_some() && gate.bounded_by.is_some(), "{gate:?}");
        }
    }

    #[test]
    fn a_goal_is_never_easier_than_its_gate() {
        for gate in gates(&Book::default()) {
            match (gate.gate, gate.goal) {
                (AtMost(gate), AtMost(goal)) => assert!(goal < gate),
                (AtLeast(gate), AtLeast(goal)) => assert!(goal > gate),
                _ => panic!("{gate:?}"),
            }
        }
    }

    #[test]
    fn memory_of_a_tunnel_among_fewer_than_ten_thousand_is_not_judged() {
        let gates = gates(&measured(1000));
        let unjudged: Vec<&str> = gates.iter().filter(|gate| gate.measured.is_none()).map(|gate| gate.row).collect();
        assert_eq!(unjudged, ["A13", "B4"]);
    }

    #[test]
    fn more_than_may_be_in_flight_bounds_a_long_link_no_further() {
        let mut book = Book::default();
        let quantity = Quantity::DelayedBulk(Way::Up, 20);
        let most = IN_FLIGHT * 1000.0 / 20.0;
        for (carrier, moved) in [(Native, most / 2.0), (BareWide, most * 3.0), (Tcp, most * 4.0)] {
            book.add(quantity, carrier, moved);
        }
        let gates = gates(&book);
        let gate = gates.iter().find(|gate| gate.measured.is_some()).expect("it was measured");
        assert_eq!((gate.row, gate.measured.map(|spread| spread.median)), ("A12", Some(0.5)));
        assert_eq!(gate.bounded_by, Some((BareWide.name().to_owned(), 1.0)));
    }
}

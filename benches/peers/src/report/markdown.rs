//! The table for people.

use std::fmt::Write;

use super::{growth, pinning};
use crate::{
    book::{Book, Spread},
    carrier::Carrier,
    gates::Gate,
    machine::Machine,
    quantity::{Quantity, Unit},
};

/// Whether a quantity is of a section.
type Belongs = fn(Quantity) -> bool;

pub(crate) fn text(book: &Book, gates: &[Gate], machine: &Machine, rounds: usize) -> String {
    let mut text = head(machine, rounds);
    verdicts(&mut text, gates);
    let sections: [(&str, Belongs); 7] = [
        ("One thing at a time (pinned)", is_latency),
        ("Many at once (not pinned)", is_load),
        ("Bulk (pinned)", is_bulk),
        ("Over a long link (not pinned)", is_delayed),
        ("Cuts (not pinned)", |quantity| matches!(quantity, Quantity::Resume | Quantity::NoCut)),
        ("Memory of each", |quantity| matches!(quantity, Quantity::PerTunnel | Quantity::PerStream)),
        ("System calls of both sides (not pinned)", |quantity| quantity.unit() == Unit::Calls),
    ];
    for (title, belongs) in sections {
        section(&mut text, book, title, belongs);
    }
    growth::tables(&mut text, book);
    text
}

fn head(machine: &Machine, rounds: usize) -> String {
    let Machine { command, cores, processor, kernel, date } = machine;
    format!(
        "# revdial beside its peers\n\n`{command}`\n\n{date}; {cores} cores, {processor}, Linux {kernel}; loopback; \
         interleaved rounds: {rounds}, and more of short pieces. A ratio is the median of the rounds' ratios, with the least and the most. \
         \"Pinned\" is: the server's and the agent's process {}. Each process has one thread that works. Up is from the \
         server to the agent, down the other way.{}\n",
        pinning(),
        if rounds < 5 { " **Fewer than five rounds decide nothing.**" } else { "" }
    )
}

fn verdicts(text: &mut String, gates: &[Gate]) {
    line(text, "\n## Gates\n\n| row | figure | median | least to most | gate | goal | met | bound |");
    line(text, "|---|---|---:|---:|---|---|---|---|");
    for gate in gates {
        let (median, range) = match gate.measured {
            Some(Spread { median, least, most }) => {
                (rounded(median), format!("{} to {}", rounded(least), rounded(most)))
            }
            None => ("–".to_owned(), "–".to_owned()),
        };
        let (verdict, bound) = (verdict(gate), bound(gate));
        let Gate { row, figure, .. } = gate;
        let (gate, goal) = (gate.gate.text(), gate.goal.text());
        line(text, &format!("| {row} | {figure} | {median} | {range} | {gate} | {goal} | {verdict} | {bound} |"));
    }
}

/// What a row comes to.
pub(super) fn verdict(gate: &Gate) -> &'static str {
    match gate.measured.map(|spread| (gate.gate.is_met(spread.median), gate.goal.is_met(spread.median))) {
        Some((true, true)) => "goal",
        Some((true, false)) => "gate",
        Some((false, _)) => "**missed**",
        None => "not measured",
    }
}

/// What bounds a row, and how far that comes.
pub(super) fn bound(gate: &Gate) -> String {
    gate.bounded_by.as_ref().map_or_else(String::new, |(name, reached)| format!("{}: {name}", rounded(*reached)))
}

/// A table of the quantities of one sort, with what each carrier took and its ratio to the reference.
fn section(text: &mut String, book: &Book, title: &str, belongs: Belongs) {
    let mut last = None;
    for (quantity, carrier, figures) in book.iter().filter(|(quantity, ..)| belongs(*quantity)) {
        if last.is_none() {
            line(text, &format!("\n## {title}\n\n| figure | carrier | median | least to most | ÷ reference |"));
            line(text, "|---|---|---:|---:|---|");
        }
        let name = if last == Some(quantity) { String::new() } else { quantity.name() };
        last = Some(quantity);
        let Some(spread) = Spread::of(figures.to_vec()) else { continue };
        let (unit, scale) = quantity.unit().scale();
        let [median, least, most] = [spread.median, spread.least, spread.most].map(|figure| rounded(figure / scale));
        let ratio = ratio(book, quantity, carrier);
        line(text, &format!("| {name} | {} | {median} {unit} | {least} to {most} | {ratio} |", carrier.name()));
    }
}

/// Against plain TCP, or for a dial against the carrier's own round trip, or for bulk on a free link against a WebSocket.
fn ratio(book: &Book, quantity: Quantity, carrier: Carrier) -> String {
    let (reference, name) = match quantity {
        Quantity::Dial | Quantity::DialConfirmed => ((Quantity::Trip, carrier), "own round trip"),
        Quantity::DelayedDial(ms) | Quantity::DelayedDialConfirmed(ms) => {
            ((Quantity::DelayedTrip(ms), carrier), "own round trip")
        }
        Quantity::Beside(_) => ((Quantity::BesideNothing, carrier), "alone"),
        Quantity::Bulk(way, _) => ((Quantity::Bulk(way, 1), Carrier::Raw), "raw"),
        _ => ((quantity, Carrier::Tcp), "TCP"),
    };
    if quantity.unit() == Unit::Kib || reference == (quantity, carrier) {
        return String::new();
    }
    book.ratio((quantity, carrier), reference).map_or_else(String::new, |Spread { median, least, most }| {
        format!("{} ({} to {}) × {name}", rounded(median), rounded(least), rounded(most))
    })
}

fn is_latency(quantity: Quantity) -> bool {
    use Quantity::{Beside, BesideNothing, Dial, DialConfirmed, Get, Trip};
    matches!(quantity, Trip | Dial | DialConfirmed | Get | BesideNothing | Beside(_))
}

fn is_load(quantity: Quantity) -> bool {
    use Quantity::{CpuPer100kGets, DialsAtOnce, Gets, GetsP99};
    matches!(quantity, DialsAtOnce | Gets | GetsP99 | CpuPer100kGets)
}

fn is_bulk(quantity: Quantity) -> bool {
    matches!(quantity, Quantity::Bulk(..) | Quantity::CpuPerGib(_))
}

fn is_delayed(quantity: Quantity) -> bool {
    use Quantity::{DelayedBulk, DelayedDial, DelayedDialConfirmed, DelayedTrip};
    matches!(quantity, DelayedTrip(_) | DelayedDial(_) | DelayedDialConfirmed(_) | DelayedBulk(..))
}

/// As many digits as there are to be trusted.
pub(super) fn rounded(figure: f64) -> String {
    let digits = match figure.abs() {
        least if least < 0.1 => 3,
        few if few < 10.0 => 2,
        some if some < 100.0 => 1,
        _ => 0,
    };
    format!("{figure:.digits$}")
}

pub(super) fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a String takes all");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gates::Bound::AtMost;

    fn gate(measured: Option<f64>) -> Gate {
        Gate {
            row: "A1",
            figure: "round trip".to_owned(),
            measured: measured.and_then(|figure| Spread::of(vec![figure])),
            gate: AtMost(1.35),
            goal: AtMost(1.15),
            bounded_by: Some(("a bare mux".to_owned(), 1.034)),
        }
    }

    #[test]
    fn a_row_says_which_of_gate_and_goal_is_met() {
        let verdicts = [Some(1.15), Some(1.16), Some(1.35), Some(1.36), None].map(|figure| verdict(&gate(figure)));
        assert_eq!(verdicts, ["goal", "gate", "gate", "**missed**", "not measured"]);
    }

    #[test]
    fn a_row_shows_its_median_its_limits_and_its_bound() {
        let mut text = String::new();
        verdicts(&mut text, &[gate(Some(1.2))]);
        let row = text.lines().last();
        let shown = "| A1 | round trip | 1.20 | 1.20 to 1.20 | ≤ 1.35 | ≤ 1.15 | gate | 1.03: a bare mux |";
        assert_eq!(row, Some(shown));
    }

    #[test]
    fn figures_have_three_digits() {
        let shown = [0.0123, 0.123, 1.234, 12.34, 123.4, 12_345.6].map(rounded);
        assert_eq!(shown, ["0.012", "0.12", "1.23", "12.3", "123", "12346"]);
    }
}

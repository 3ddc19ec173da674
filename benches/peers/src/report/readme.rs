//! The part of a README that a run replaces: what was measured against the targets, and the carriers side by side.

use std::{fs, path::Path};

use super::{
    markdown::{bound, line, rounded, verdict},
    plot,
};
use crate::{
    Result,
    book::Book,
    carrier::Carrier,
    gates::{Gate, gates},
    machine::Machine,
    quantity::Quantity,
    task::Way,
};

const BEGIN: &str = "<!-- peers: begin -->\n";
const END: &str = "<!-- peers: end -->";

/// Where the plot goes, from the README's folder.
const PLOT: &str = "benches/peers/growth.svg";

/// Puts the figures between the marks of this file, and the plot into its place beside.
pub(crate) fn replace(readme: &Path, book: &Book, rounds: usize) -> Result<()> {
    let text = fs::read_to_string(readme)?;
    let marks = text.split_once(BEGIN).and_then(|(head, rest)| rest.split_once(END).map(|(_, foot)| (head, foot)));
    let (head, foot) = marks.ok_or_else(|| format!("{}: no {} and {END} behind it", readme.display(), BEGIN.trim()))?;
    let mut block = String::new();
    write(&mut block, book, &gates(book), &Machine::here(), rounds);
    if let Some(svg) = plot::scaling(book) {
        let place = readme.parent().unwrap_or(Path::new("")).join(PLOT);
        fs::create_dir_all(place.parent().ok_or("no folder")?)?;
        fs::write(place, svg)?;
        line(&mut block, &format!("\n![From one to many tunnels and streams]({PLOT})"));
    }
    Ok(fs::write(readme, format!("{head}{BEGIN}{block}{END}{foot}"))?)
}

fn write(text: &mut String, book: &Book, gates: &[Gate], machine: &Machine, rounds: usize) {
    let Machine { command, cores, processor, kernel, date } = machine;
    line(text, &format!("`{command}`\\"));
    line(text, &format!("{date}; {cores} cores, {processor}, Linux {kernel}; medians of {rounds} rounds or more\n"));
    line(text, "| | figure | measured | gate | goal | met | bound |\n|---|---|---:|---:|---:|---|---|");
    for gate in gates.iter().filter(|gate| gate.measured.is_some()) {
        let measured = gate.measured.map_or_else(String::new, |spread| rounded(spread.median));
        let (least, goal) = (gate.gate.text(), gate.goal.text());
        let Gate { row, figure, .. } = gate;
        line(
            text,
            &format!("| {row} | {figure} | {measured} | {least} | {goal} | {} | {} |", verdict(gate), bound(gate)),
        );
    }
    line(text, "");
    side_by_side(text, book);
}

/// A column: its name, what is in it, and whether that is against plain TCP.
type Column = (&'static str, Quantity, bool);

const COLUMNS: [Column; 11] = [
    ("round trip ÷ TCP", Quantity::Trip, true),
    ("dial ÷ TCP", Quantity::Dial, true),
    ("dials/s, 64 at once", Quantity::DialsAtOnce, false),
    ("GETs/s, 64 ÷ TCP", Quantity::Gets, true),
    ("CPU s, 100k GETs", Quantity::CpuPer100kGets, false),
    ("bulk up ÷ TCP", Quantity::Bulk(Way::Up, 1), true),
    ("bulk down ÷ TCP", Quantity::Bulk(Way::Down, 1), true),
    ("KiB a tunnel", Quantity::PerTunnel, false),
    ("KiB a stream", Quantity::PerStream, false),
    ("calls a round trip", Quantity::CallsPerTrip, false),
    ("calls a GET, 64", Quantity::CallsPerGet, false),
];

fn side_by_side(text: &mut String, book: &Book) {
    let is_measured = |quantity| Carrier::STREAMS.iter().any(|of| !book.rounds(quantity, *of).is_empty());
    let columns: Vec<Column> = COLUMNS.into_iter().filter(|(_, quantity, _)| is_measured(*quantity)).collect();
    let names: Vec<String> = columns.iter().map(|(name, ..)| format!(" {name} |")).collect();
    line(text, &format!("| |{}\n|---|{}", names.concat(), "---:|".repeat(columns.len())));
    for carrier in [Carrier::Native, Carrier::Dialback, Carrier::Tcp, Carrier::Raw]
        .into_iter()
        .chain(Carrier::STREAMS.into_iter().skip(3))
    {
        let cells = columns.iter().map(|(_, quantity, is_ratio)| {
            let figure = match is_ratio {
                true => book.ratio((*quantity, carrier), (*quantity, Carrier::Tcp)),
                false => book.spread(*quantity, carrier),
            };
            format!(" {} |", figure.map_or_else(|| "–".to_owned(), |spread| rounded(spread.median)))
        });
        line(text, &format!("| {} |{}", carrier.name(), cells.collect::<String>()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_measured_is_shown_and_carriers_stand_side_by_side() {
        let mut book = Book::default();
        book.add(Quantity::Trip, Carrier::Native, 3e-5);
        book.add(Quantity::Trip, Carrier::Tcp, 2e-5);
        let mut text = String::new();
        let machine = Machine {
            command: "run".to_owned(),
            cores: 2,
            processor: "some".to_owned(),
            kernel: "6".to_owned(),
            date: "today".to_owned(),
        };
        write(&mut text, &book, &gates(&book), &machine, 5);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["`run`\\", "today; 2 cores, some, Linux 6; medians of 5 rounds or more"]);
        let rows: Vec<&&str> = lines.iter().filter(|line| line.starts_with("| A") || line.starts_with("| B")).collect();
        assert_eq!(rows, [&"| A1 | round trip, 1 byte ÷ plain TCP | 1.50 | ≤ 1.35 | ≤ 1.15 | **missed** |  |"]);
        assert!(lines.contains(&"| | round trip ÷ TCP |") && lines.contains(&"| native | 1.50 |"), "{text}");
        assert!(lines.contains(&"| dial-back | – |"), "{text}");
    }
}

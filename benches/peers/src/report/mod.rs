//! What a run leaves: a table for people, figures for programs, and a plot.

mod json;
mod markdown;
mod plot;
mod svg;

use std::{fs, path::Path};

use crate::{Result, book::Book, gates::gates, machine::Machine, pair::can_pin};

/// Prints the table, and writes all into this directory.
pub(crate) fn write(book: &Book, rounds: usize, out: &Path) -> Result<()> {
    let (machine, gates) = (Machine::here(), gates(book));
    let table = markdown::text(book, &gates, &machine, rounds);
    println!("{table}");
    fs::create_dir_all(out)?;
    fs::write(out.join("peers.md"), table)?;
    fs::write(out.join("peers.json"), serde_json::to_vec_pretty(&json::value(book, &gates, &machine, rounds))?)?;
    if let Some(plot) = plot::scaling(book) {
        fs::write(out.join("peers.svg"), plot)?;
    }
    eprintln!("written to {}", out.display());
    Ok(())
}

/// What was done about cores.
fn pinning() -> &'static str {
    if can_pin() { "pinned to one core" } else { "not pinned, as there is no taskset: these decide nothing" }
}

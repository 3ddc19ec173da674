//! What a run leaves: a table for people, figures for programs, and a plot.

mod axis;
mod growth;
mod json;
mod markdown;
mod plot;
mod readme;
mod svg;

use std::{fs, path::Path};

use crate::{Result, book::Book, gates::gates, machine::Machine, pair::can_pin};

/// The table.
pub(crate) fn text(book: &Book, rounds: usize) -> String {
    markdown::text(book, &gates(book), &Machine::here(), rounds)
}

/// Writes all into this directory.
pub(crate) fn write(book: &Book, rounds: usize, out: &Path) -> Result<()> {
    let figures = json::value(book, &gates(book), &Machine::here(), rounds);
    fs::create_dir_all(out)?;
    fs::write(out.join("peers.md"), text(book, rounds))?;
    fs::write(out.join("peers.json"), serde_json::to_vec_pretty(&figures)?)?;
    if let Some(plot) = plot::scaling(book) {
        fs::write(out.join("peers.svg"), plot)?;
    }
    Ok(())
}

/// Replaces the figures in this README.
pub(crate) fn publish(book: &Book, rounds: usize, readme: &Path) -> Result<()> {
    readme::replace(readme, book, rounds)
}

/// What was done about cores.
fn pinning() -> &'static str {
    if can_pin() { "pinned to one core" } else { "not pinned, as there is no taskset: these decide nothing" }
}

//! What interleaved rounds came to: for each name the median, the least and the most.

use std::time::Duration;

/// Figures by name, in the order of their first appearance.
#[derive(Default)]
pub(crate) struct Table(Vec<(String, Vec<f64>)>);

impl Table {
    pub(crate) fn add(&mut self, name: impl Into<String>, figure: f64) {
        let name = name.into();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, figures)) => figures.push(figure),
            None => self.0.push((name, vec![figure])),
        }
    }

    /// Prints it as Markdown.
    pub(crate) fn print(&mut self, title: &str) {
        let width =
            self.0.iter().map(|(name, _)| name.chars().count()).chain([title.chars().count()]).max().unwrap_or(0);
        println!("\n| {title:<width$} |   median |    least |     most |");
        println!("| {:-<width$} | -------: | -------: | -------: |", "");
        for (name, figures) in &mut self.0 {
            figures.sort_unstable_by(f64::total_cmp);
            let (least, most) = (figures[0], figures[figures.len() - 1]);
            let columns = [figures[figures.len() / 2], least, most].map(rounded);
            println!("| {name:<width$} | {} |", columns.join(" | "));
        }
    }
}

/// As many digits as there are to be trusted.
fn rounded(figure: f64) -> String {
    let digits = if figure.abs() < 10.0 { 3 } else { usize::from(figure.abs() < 1000.0) };
    format!("{figure:>8.digits$}")
}

/// The value below which this part of them lies.
pub(crate) fn at(sorted: &[Duration], part: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or_default()
}

//! What many cuts came to: for each name how many, and the percentiles of how long they took.

use std::time::Duration;

use crate::table::at;

/// Times by name, in the order of their first appearance.
pub(crate) struct Times {
    title: String,
    taken: Vec<(String, Vec<Duration>)>,
}

impl Times {
    pub(crate) fn new(title: &str) -> Self {
        Self { title: title.to_owned(), taken: Vec::new() }
    }

    pub(crate) fn add(&mut self, name: impl Into<String>, taken: Duration) {
        let name = name.into();
        match self.taken.iter_mut().find(|(known, _)| *known == name) {
            Some((_, all)) => all.push(taken),
            None => self.taken.push((name, vec![taken])),
        }
    }

    /// Prints them as Markdown, in milliseconds.
    pub(crate) fn print(&mut self) {
        let Self { title, taken } = self;
        println!("\n| {title:<48} |    n |     p50 |     p90 |     p99 |     max |");
        println!("| {:-<48} | ---: | ------: | ------: | ------: | ------: |", "");
        for (name, all) in taken {
            all.sort_unstable();
            let columns = [0.5, 0.9, 0.99, 1.0].map(|part| format!("{:>7.2}", at(all, part).as_secs_f64() * 1e3));
            println!("| {name:<48} | {:>4} | {} |", all.len(), columns.join(" | "));
        }
    }
}

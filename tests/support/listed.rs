//! The guide's table of metrics, and whether what is recorded stands in it.

use std::{collections::BTreeSet, sync::LazyLock};

use revdial::frame::CloseCode;

const GUIDE: &str = include_str!("../../src/guide/observability.md");

/// A metric, as the guide has it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) unit: &'static str,
    /// Its label, and the values in words.
    pub(crate) label: Option<(&'static str, Vec<&'static str>)>,
}

impl Row {
    fn takes(&self, value: &str) -> bool {
        let (_, values) = self.label.as_ref().expect("a label");
        values.iter().any(|listed| match *listed {
            "a kind of error" => kinds().contains(value),
            "a close code" => value.parse().is_ok_and(|number| CloseCode::new(number).meaning().is_some()),
            listed => listed == value,
        })
    }
}

/// The rows of the guide's table.
pub(crate) fn rows() -> &'static [Row] {
    static ROWS: LazyLock<Vec<Row>> =
        LazyLock::new(|| GUIDE.lines().filter_map(|line| line.strip_prefix("| `revdial_")).map(row).collect());
    &ROWS
}

fn row(line: &'static str) -> Row {
    let cells: Vec<_> = line.split('|').map(str::trim).collect();
    let [name, kind, unit, labels, _what, ""] = cells[..] else { panic!("a row of other cells: {line}") };
    let label = labels.split_once(": ").map(|(label, values)| (label.trim_matches('`'), values.split(", ").collect()));
    let name = name.trim_end_matches('`');
    // The prefix was taken off to find the row.
    let at = GUIDE.find(&format!("`revdial_{name}`")).expect("where it was found") + 1;
    Row { name: &GUIDE[at..at + "revdial_".len() + name.len()], kind, unit, label }
}

/// The names of all kinds of error.
pub(crate) fn kinds() -> BTreeSet<&'static str> {
    let text = include_str!("../../src/error.rs");
    let texts = text.split("fn as_str").nth(1).and_then(|rest| rest.split("\n    }\n").next()).expect("the labels");
    texts.split('"').skip(1).step_by(2).collect()
}

/// Fails if the guide does not have this series.
pub(crate) fn check(key: &metrics::Key) {
    let row = rows().iter().find(|row| row.name == key.name()).unwrap_or_else(|| panic!("{key} is not in the guide"));
    let labels: Vec<_> = key.labels().collect();
    match (&labels[..], &row.label) {
        ([], None) => {}
        ([label], Some((name, _))) if label.key() == *name => {
            assert!(row.takes(label.value()), "{key}: the guide does not have this value");
        }
        _ => panic!("{key}: the guide has another label"),
    }
}

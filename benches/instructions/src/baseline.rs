//! The checked-in counts, and what has become of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use crate::{Error, Result};

/// By how much a count may differ without a word, in per cent.
const TOLERANCE: f64 = 5.0;

/// The line that names the tools begins so.
const TOOLS: &str = "# tools: ";

/// Instructions by bench.
pub(crate) type Counts = BTreeMap<String, u64>;

/// Counts, and by which tools they were counted: a line each, comments behind `#`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Baseline {
    pub(crate) tools: String,
    pub(crate) counts: Counts,
}

impl FromStr for Baseline {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let tools = text.lines().find_map(|line| line.strip_prefix(TOOLS)).unwrap_or_default().to_owned();
        let rows = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let mut counts = Counts::new();
        for row in rows {
            let (name, count) = row.split_once(' ').ok_or_else(|| format!("no count: {row}"))?;
            let count = count.trim().replace(',', "").parse().map_err(|error| format!("{row}: {error}"))?;
            if counts.insert(name.to_owned(), count).is_some() {
                return Err(format!("two rows: {name}").into());
            }
        }
        Ok(Self { tools, counts })
    }
}

impl fmt::Display for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Instructions of each bench, written by `--update`; see src/main.rs.")?;
        writeln!(f, "{TOOLS}{}", self.tools)?;
        for (name, count) in &self.counts {
            writeln!(f, "{name:<40} {:>13}", grouped(*count))?;
        }
        Ok(())
    }
}

/// The rows of two counts, side by side.
#[derive(Debug)]
pub(crate) struct Comparison(Vec<Row>);

#[derive(Debug)]
struct Row {
    name: String,
    baseline: Option<u64>,
    counted: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Same,
    Fallen,
    Grown,
    /// A bench that has no row in the baseline.
    New,
    /// A row of the baseline that has no bench.
    Gone,
}

impl Comparison {
    pub(crate) fn of(baseline: &Counts, counted: &Counts) -> Self {
        let names: BTreeSet<&String> = baseline.keys().chain(counted.keys()).collect();
        let row = |name: &String| Row {
            name: name.clone(),
            baseline: baseline.get(name).copied(),
            counted: counted.get(name).copied(),
        };
        Self(names.into_iter().map(row).collect())
    }

    /// Whether there is what the baseline does not allow.
    pub(crate) fn has_failed(&self) -> bool {
        let is_fault = |verdict| matches!(verdict, Verdict::Grown | Verdict::New | Verdict::Gone);
        self.0.is_empty() || self.0.iter().any(|row| is_fault(row.verdict()))
    }

    /// Whether the baseline allows more than it needs to.
    pub(crate) fn has_fallen(&self) -> bool {
        self.0.iter().any(|row| row.verdict() == Verdict::Fallen)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<40} {:>13} {:>13} {:>8}", "bench", "baseline", "counted", "change")?;
        for row in &self.0 {
            let [baseline, counted] = [row.baseline, row.counted].map(|count| count.map_or("–".into(), grouped));
            let change = row.change().map_or("–".into(), |change| format!("{change:+.2} %"));
            let verdict = match row.verdict() {
                Verdict::Same => "",
                Verdict::Fallen => "  less",
                Verdict::Grown => "  GROWN",
                Verdict::New => "  NOT IN THE BASELINE",
                Verdict::Gone => "  HAS NO BENCH",
            };
            writeln!(f, "{:<40} {baseline:>13} {counted:>13} {change:>8}{verdict}", row.name)?;
        }
        Ok(())
    }
}

impl Row {
    /// In per cent of the baseline.
    fn change(&self) -> Option<f64> {
        let (baseline, counted) = (self.baseline? as f64, self.counted? as f64);
        Some((counted - baseline) / baseline.max(1.0) * 100.0)
    }

    fn verdict(&self) -> Verdict {
        match (self.change(), self.baseline) {
            (Some(change), _) if change > TOLERANCE => Verdict::Grown,
            (Some(change), _) if change < -TOLERANCE => Verdict::Fallen,
            (Some(_), _) => Verdict::Same,
            (None, None) => Verdict::New,
            (None, Some(_)) => Verdict::Gone,
        }
    }
}

/// With a comma before each three digits.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (ix, digit) in digits.chars().enumerate() {
        if ix > 0 && (digits.len() - ix).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rows: &[(&str, u64)]) -> Counts {
        rows.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn compared(baseline: &[(&str, u64)], counted: &[(&str, u64)]) -> Comparison {
        Comparison::of(&counts(baseline), &counts(counted))
    }

    #[test]
    fn a_count_may_grow_by_five_per_cent_and_by_no_more() {
        assert!(!compared(&[("a", 100_000)], &[("a", 105_000)]).has_failed());
        let grown = compared(&[("a", 100_000)], &[("a", 105_001)]);
        assert!(grown.has_failed());
        assert!(grown.to_string().contains("GROWN"));
    }

    #[test]
    fn a_count_that_fell_is_told_and_is_no_fault() {
        let fallen = compared(&[("a", 100_000)], &[("a", 94_999)]);
        assert!(fallen.has_fallen() && !fallen.has_failed());
        assert!(!compared(&[("a", 100_000)], &[("a", 95_000)]).has_fallen());
    }

    #[test]
    fn benches_and_rows_go_together() {
        assert!(compared(&[("a", 1)], &[("a", 1), ("b", 1)]).to_string().contains("NOT IN THE BASELINE"));
        assert!(compared(&[("a", 1)], &[("a", 1), ("b", 1)]).has_failed());
        assert!(compared(&[("a", 1), ("b", 1)], &[("a", 1)]).to_string().contains("HAS NO BENCH"));
        assert!(compared(&[("a", 1), ("b", 1)], &[("a", 1)]).has_failed());
        assert!(compared(&[], &[]).has_failed(), "nothing counted is nothing proved");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let baseline = Baseline { tools: "rustc 1".into(), counts: counts(&[("a::b", 999), ("a::c", 1_234_567)]) };
        let text = baseline.to_string();
        assert!(text.contains("1,234,567"), "{text}");
        assert_eq!(text.parse::<Baseline>().unwrap(), baseline);
        assert!("a::b\n".parse::<Baseline>().is_err());
        assert!("a::b 1\na::b 1\n".parse::<Baseline>().is_err());
    }
}

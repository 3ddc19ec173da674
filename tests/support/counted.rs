//! What the metrics of a test say, all of which stand in the guide.

#[path = "listed.rs"]
#[expect(dead_code, reason = "another test uses the rest")]
pub(crate) mod listed;

use std::{cell::RefCell, collections::HashMap};

use metrics::{LocalRecorderGuard, set_default_local_recorder};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

/// Counts what is recorded on this thread while it lives.
pub(crate) struct Counted {
    snapshotter: Snapshotter,
    sums: RefCell<HashMap<String, f64>>,
    values: RefCell<HashMap<String, Vec<f64>>>,
    _here: LocalRecorderGuard<'static>,
}

impl Counted {
    pub(crate) fn new() -> Self {
        let recorder: &'static DebuggingRecorder = Box::leak(Box::default());
        Self {
            snapshotter: recorder.snapshotter(),
            sums: RefCell::default(),
            values: RefCell::default(),
            _here: set_default_local_recorder(recorder),
        }
    }

    /// A counter or gauge: `name`, or `name{value of its label}`.
    pub(crate) fn sum(&self, name: &str) -> u64 {
        self.look();
        self.sums.borrow().get(name).copied().unwrap_or_default() as u64
    }

    /// All values of a histogram.
    pub(crate) fn values(&self, name: &str) -> Vec<f64> {
        self.look();
        self.values.borrow().get(name).cloned().unwrap_or_default()
    }

    /// The results of resumes that there were: `ok 3`.
    pub(crate) fn resumes(&self) -> Vec<String> {
        self.look();
        let prefix = "revdial_session_resumes_total{";
        let sums = self.sums.borrow();
        let results = sums.iter().filter(|(_, count)| **count > 0.0).filter_map(|(name, count)| {
            let result = name.strip_prefix(prefix)?.trim_end_matches('}');
            Some(format!("{result} {count}"))
        });
        let mut results: Vec<_> = results.collect();
        results.sort();
        results
    }

    /// A snapshot takes the values out, so that they are kept here.
    fn look(&self) {
        for (composite, _, _, value) in self.snapshotter.snapshot().into_vec() {
            let key = composite.key();
            listed::check(key);
            let labels: Vec<_> = key.labels().map(metrics::Label::value).collect();
            let name = match &labels[..] {
                [] => key.name().to_owned(),
                labels => format!("{}{{{}}}", key.name(), labels.join(",")),
            };
            match value {
                DebugValue::Counter(count) => *self.sums.borrow_mut().entry(name).or_default() += count as f64,
                DebugValue::Gauge(change) => *self.sums.borrow_mut().entry(name).or_default() += change.into_inner(),
                DebugValue::Histogram(values) => {
                    self.values
                        .borrow_mut()
                        .entry(name)
                        .or_default()
                        .extend(values.iter().map(|value| value.into_inner()));
                }
            }
        }
    }
}

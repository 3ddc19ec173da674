//! The pace of a stream, from when its frames came. Pure: no clock, no I/O.

use std::time::Duration;

/// A gap is an interval of more than this many usual ones: two frames or more are missing.
const GAP: u32 = 3;

/// Takes down frames. The clock starts when the stream is opened.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    first: Option<Duration>,
    last: Duration,
    intervals: Vec<Duration>,
    frames: u64,
    bytes: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pace {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// From the opening to the first frame.
    pub(crate) first: Duration,
    /// The usual time between two frames, the 99th percentile, and the longest.
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
    pub(crate) longest: Duration,
    /// The mean difference of an interval from the one before it.
    pub(crate) jitter: Duration,
    /// Intervals of more than three usual ones.
    pub(crate) gaps: usize,
}

impl Meter {
    /// Most intervals that are kept: an hour at 120 frames a second. What comes later is counted only.
    const MAX: usize = 3600 * 120;

    /// A frame of so many bytes came this long after the opening.
    pub(crate) fn frame(&mut self, at: Duration, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
        if self.first.is_none() {
            self.first = Some(at);
        } else if self.intervals.len() < Self::MAX {
            self.intervals.push(at.saturating_sub(self.last));
        }
        self.last = at;
    }

    /// `None` as long as no frame came.
    pub(crate) fn pace(&self) -> Option<Pace> {
        let first = self.first?;
        let mut sorted = self.intervals.clone();
        sorted.sort_unstable();
        let part = |percent: usize| sorted.get(sorted.len().saturating_sub(1) * percent / 100).copied();
        let median = part(50).unwrap_or_default();
        Some(Pace {
            frames: self.frames,
            bytes: self.bytes,
            first,
            median,
            p99: part(99).unwrap_or_default(),
            longest: sorted.last().copied().unwrap_or_default(),
            jitter: self.jitter(),
            gaps: sorted.iter().filter(|interval| **interval > median * GAP).count(),
        })
    }

    fn jitter(&self) -> Duration {
        let differences = self.intervals.windows(2).map(|pair| pair[0].abs_diff(pair[1]));
        let pairs = u32::try_from(self.intervals.len()).unwrap_or(u32::MAX).saturating_sub(1);
        differences.sum::<Duration>().checked_div(pairs).unwrap_or_default()
    }
}

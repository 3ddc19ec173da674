//! How a stream's pace comes from the times of its frames.

use std::time::Duration;

#[path = "../../../examples/probe/meter.rs"]
mod meter;

use meter::{Meter, Pace};

fn pace(times: &[u64]) -> Option<Pace> {
    let mut meter = Meter::default();
    for time in times {
        meter.frame(Duration::from_millis(*time), 10);
    }
    meter.pace()
}

#[test]
fn no_frame_has_no_pace_and_one_has_no_interval() {
    assert_eq!(pace(&[]), None);
    let one = pace(&[5]).unwrap();
    assert_eq!((one.frames, one.bytes, one.first), (1, 10, Duration::from_millis(5)));
    assert_eq!((one.median, one.longest, one.jitter, one.gaps), (Duration::ZERO, Duration::ZERO, Duration::ZERO, 0));
}

#[test]
fn a_steady_stream_has_neither_jitter_nor_gaps() {
    let times: Vec<_> = (0..100).map(|n| 7 + n * 100).collect();
    let steady = pace(&times).unwrap();
    let usual = Duration::from_millis(100);
    assert_eq!((steady.median, steady.p99, steady.longest), (usual, usual, usual));
    assert_eq!((steady.jitter, steady.gaps), (Duration::ZERO, 0));
}

#[test]
fn jitter_is_the_mean_difference_of_neighbours_and_gaps_are_beyond_three_usual_intervals() {
    // Intervals of 100, 120, 80, 300, 100 and 301 ms.
    let uneven = pace(&[0, 100, 220, 300, 600, 700, 1001]).unwrap();
    assert_eq!(uneven.median, Duration::from_millis(100));
    assert_eq!(uneven.jitter, Duration::from_millis(20 + 40 + 220 + 200 + 201) / 5);
    assert_eq!((uneven.gaps, uneven.longest), (1, Duration::from_millis(301)));
}

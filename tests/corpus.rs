//! Do the committed seeds of the fuzz targets still pass? Runs on stable, without a fuzzer.

use std::{fs, path::PathBuf};

#[path = "support/fuzz/control_lines.rs"]
mod control_lines;
#[path = "support/fuzz.rs"]
#[expect(unreachable_pub, reason = "the library of the fuzz targets, too")]
mod fuzz;
#[path = "support/pair.rs"]
mod pair;
#[path = "support/fuzz/pickup_path.rs"]
mod pickup_path;
#[path = "support/fuzz/upgrade_request.rs"]
mod upgrade_request;

/// A fuzz target, what it checks, and how many seeds it has at least.
type Target = (&'static str, fn(&[u8]), usize);

const TARGETS: [Target; 7] = [
    ("control_lines", control_lines::run, 12),
    ("frame_decode", fuzz::frame_decode, 20),
    ("frame_round_trip", fuzz::frame_round_trip, 8),
    ("hello", fuzz::hello, 8),
    ("pickup_path", pickup_path::run, 12),
    ("session_ops", pair::run, 12),
    ("upgrade_request", upgrade_request::run, 12),
];

/// Those that reach below the public interface: a unit test beside what they check replays them. How many seeds at least.
const REPLAYED_INSIDE: [(&str, usize); 1] = [("framing", 40)];

fn folder(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", name].iter().collect()
}

fn names(name: &str) -> Vec<String> {
    let entries = fs::read_dir(folder(name)).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_owned()).collect();
    names.sort();
    names.into_iter().map(|name| name.into_string().unwrap()).collect()
}

#[test]
fn every_seed_passes() {
    for (target, check, at_least) in TARGETS {
        let seeds: Vec<_> = fs::read_dir(folder("corpus").join(target)).unwrap().map(|seed| seed.unwrap()).collect();
        assert!(seeds.len() >= at_least, "{target} has {} seeds", seeds.len());
        for seed in seeds {
            println!("{}", seed.path().display());
            check(&fs::read(seed.path()).unwrap());
        }
    }
}

#[test]
fn every_target_has_seeds_and_is_replayed() {
    let inside = REPLAYED_INSIDE.map(|(target, at_least)| {
        assert!(fs::read_dir(folder("corpus").join(target)).unwrap().count() >= at_least, "{target} lacks seeds");
        target
    });
    let mut replayed: Vec<_> = TARGETS.iter().map(|(target, ..)| *target).chain(inside).collect();
    replayed.sort();
    assert_eq!(names("fuzz_targets"), replayed);
    assert_eq!(names("corpus"), replayed);
}

//! Sessions over links that break: exactly once and in order, by thousands of random operation lists on a pair, and by
//! thousands of seeds of a world with a server, agents and all that can go wrong between them.
//!
//! A failure prints its seed. `WORLD_SEED=n cargo test --test resume -- --nocapture` runs one world alone, and tells
//! what happens in it; `WORLD_SEEDS=n` runs so many.

#[path = "support/pair.rs"]
mod pair;
#[path = "support/world/mod.rs"]
mod world;

use std::{
    env,
    panic::{self, AssertUnwindSafe},
};

/// Operation lists a run; each is drawn from its number, so that a failure can be replayed by it.
const SEEDS: u64 = if cfg!(debug_assertions) { 1_000 } else { 20_000 };

/// Worlds a run.
const WORLDS: u64 = if cfg!(debug_assertions) { 300 } else { 20_000 };

#[test]
fn streams_survive_any_cuts_exactly_once_and_in_order() {
    for_seeds(SEEDS, |seed| pair::run(&bytes_of(seed)));
}

#[test]
fn sessions_keep_their_promises_in_a_world_that_is_against_them() {
    let number = |name| env::var(name).ok().map(|text| text.parse().expect("a number"));
    if let Some(seed) = number("WORLD_SEED") {
        println!("{:?}", world::run(seed, true));
        return;
    }
    let mut seen = world::Seen::default();
    for_seeds(number("WORLD_SEEDS").unwrap_or(WORLDS), |seed| seen.add(&world::run(seed, false)));
    let all: Vec<_> = seen.all().collect();
    println!("{all:?}");
    let never: Vec<_> = all.into_iter().filter(|(_, times)| *times == 0).collect();
    assert!(never.is_empty(), "what never happens is not tested: {never:?}");
}

fn for_seeds(seeds: u64, mut run: impl FnMut(u64)) {
    for seed in 0..seeds {
        if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("seed {seed} fails");
            panic::resume_unwind(panic);
        }
    }
}

/// Random bytes of a seed (SplitMix64), up to 1,500.
fn bytes_of(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let len = next() % 1500;
    (0..len).map(|_| next() as u8).collect()
}

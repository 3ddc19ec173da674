//! Sessions over links that break: exactly once and in order, by thousands of random operation lists.

#[path = "support/pair.rs"]
mod pair;

/// Operation lists a run; each is drawn from its number, so that a failure can be replayed by it.
const SEEDS: u64 = if cfg!(debug_assertions) { 1_000 } else { 20_000 };

#[test]
fn streams_survive_any_cuts_exactly_once_and_in_order() {
    for seed in 0..SEEDS {
        let data = bytes_of(seed);
        if let Err(panic) = std::panic::catch_unwind(|| pair::run(&data)) {
            eprintln!("seed {seed} fails");
            std::panic::resume_unwind(panic);
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

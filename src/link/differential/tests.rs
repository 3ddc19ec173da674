use std::{fs, path::Path};

use proptest::{collection::vec, prelude::*};

use super::*;

/// Those of the fuzz target. A published crate comes without, and `tests/corpus.rs` sees to it that there are some.
#[test]
fn every_seed_passes() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/framing");
    for seed in fs::read_dir(seeds).into_iter().flatten() {
        let seed = seed.unwrap().path();
        println!("{}", seed.display());
        differential(&fs::read(seed).unwrap());
    }
}

/// A stream of any bytes, all at once, with a limit of 1000.
fn incoming(side: Side, stream: &[u8]) {
    differential(&[&[u8::from(side == Side::Client), 0, 2, 0, 0], stream].concat());
}

#[test]
fn every_first_byte_is_judged_alike_whatever_its_mask_and_length_and_what_went_before() {
    for side in [Side::Server, Side::Client] {
        let fragment: &[u8] = if side == Side::Server { &[0x02, 0x81, 0, 0, 0, 0, 7] } else { &[0x02, 1, 7] };
        for (first, mask) in (0..=u8::MAX).flat_map(|first| [(first, 0), (first, 0x80)]) {
            for length in
                [&[0][..], &[2], &[126, 0, 2], &[126, 0, 126], &[126, 4, 0], &[127, 0x80, 0, 0, 0, 0, 0, 0, 2]]
            {
                let mut frame = [&[first], length].concat();
                frame[1] |= mask;
                // The mask is zero, and the payload a close code, if it is a close frame's.
                frame.resize(frame.len() + usize::from(mask >> 5), 0);
                frame.extend([&1000_u16.to_be_bytes()[..], &[b'y'; 124]].concat());
                incoming(side, &frame);
                incoming(side, &[fragment, &frame].concat());
            }
        }
    }
}

#[test]
fn every_close_code_is_judged_alike() {
    for code in (0..=5100).chain([u16::MAX]) {
        let [high, low] = code.to_be_bytes();
        incoming(Side::Client, &[0x88, 2, high, low]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn both_framings_agree_on_any_input(kind in 0_u8..8, input in vec(any::<u8>(), 0..300)) {
        differential(&[&[kind], &*input].concat());
    }
}

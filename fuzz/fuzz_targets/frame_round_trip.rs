//! Does any list of frames come back from its bytes?
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::frame_round_trip(bytes));

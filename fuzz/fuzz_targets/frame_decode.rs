//! Does any message of bytes decode without a panic, and into what it holds?
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::frame_decode(bytes));

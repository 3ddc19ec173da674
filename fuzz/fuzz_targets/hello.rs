//! Do the limits of HELLO and WELCOME hold for any payload?
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::hello(bytes));

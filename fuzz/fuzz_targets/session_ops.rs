//! Do two sessions keep what they promise, whatever their owners and their link do?
#![no_main]

#[path = "../../tests/support/pair.rs"]
mod pair;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pair::run(bytes));

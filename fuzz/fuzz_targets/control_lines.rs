//! Are control lines read the same, however they are split?
#![no_main]

#[path = "../../tests/support/fuzz/control_lines.rs"]
mod control_lines;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| control_lines::run(bytes));

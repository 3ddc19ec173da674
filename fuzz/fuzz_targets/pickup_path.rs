//! Does a path of any server lead to the control link's place or nowhere?
#![no_main]

#[path = "../../tests/support/fuzz/pickup_path.rs"]
mod pickup_path;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pickup_path::run(bytes));

//! Does the layer answer any request, and switch protocols only for an upgrade?
#![no_main]

#[path = "../../tests/support/fuzz/upgrade_request.rs"]
mod upgrade_request;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| upgrade_request::run(bytes));

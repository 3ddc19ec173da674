//! Do our framing of WebSockets and the library's agree on any bytes, both ways?
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| revdial::fuzzing::framing(bytes));

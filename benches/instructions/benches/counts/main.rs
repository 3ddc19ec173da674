//! Instructions of the hot paths, counted by valgrind: the codec, two sessions without I/O, and the real driver.
//!
//! Every bench does a thousand of what it is called by, or moves mebibytes, so that what an allocator or a hash table
//! does now and then is a small part of it. What sets a bench up and what tears it down is not counted.

#![expect(unused_qualifications, reason = "the macros of the harness name what they are given from afar")]

mod codec;
mod driver;
#[path = "../../../support/pair.rs"]
mod pair;
mod session;

use gungraun::prelude::*;

use self::{codec::frames, driver::drivers, session::sessions};

/// How often a bench does what it measures.
const TIMES: usize = 1000;

/// glibc copies by the widest registers that a processor has, or by `rep movsb`, which counts as an instruction a byte.
/// Without these it copies everywhere as the oldest x86-64 would.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512VL,-AVX2,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM";

main!(
    config = LibraryBenchmarkConfig::default().env("GLIBC_TUNABLES", TUNABLES),
    library_benchmark_groups = [frames, sessions, drivers]
);

//! Counts the instructions of the hot paths, and compares them with `baseline.txt`.
//!
//! ```sh
//! cargo install --debug --locked gungraun-runner@0.20.0   # and valgrind from the distribution
//! cargo run --manifest-path benches/instructions/Cargo.toml
//! cargo run --manifest-path benches/instructions/Cargo.toml -- --update
//! ```
//!
//! It fails if a count has grown by more than 5 %, or if a bench has no row or a row no bench. Whoever means it to grow
//! updates the baseline in the same commit, where reviewers see it.
//!
//! Counts are of x86-64. The codec's are the same in each run, the sessions' but for 0.02 %, and the drivers' differ by
//! up to 0.4 %, since masks and the seeds of hash tables are drawn at random. Another compiler moves them by some per
//! cent, which is why the baseline says by which they were counted.

mod baseline;
mod counting;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use self::baseline::{Baseline, Comparison};

const HELP: &str = "\
Counts the instructions of the hot paths; see the doc of src/main.rs.

  --update   write the baseline instead of comparing with it
  --help     this";

type Error = Box<dyn std::error::Error>;
type Result<T> = std::result::Result<T, Error>;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("revdial-instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is as it should be.
fn run() -> Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let update = match words.as_slice() {
        [] => false,
        ["--update"] => true,
        ["--help"] => {
            println!("{HELP}");
            return Ok(true);
        }
        _ => return Err(format!("no such option\n\n{HELP}").into()),
    };
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = package.join("baseline.txt");
    let counted = Baseline { tools: counting::tools()?, counts: counting::counts(package)? };
    if update {
        fs::write(&file, counted.to_string())?;
        println!("{} rows written to {}", counted.counts.len(), file.display());
        return Ok(true);
    }
    compare(&file, &counted)
}

fn compare(file: &PathBuf, counted: &Baseline) -> Result<bool> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let baseline: Baseline = text.parse()?;
    let comparison = Comparison::of(&baseline.counts, &counted.counts);
    println!("{comparison}");
    if baseline.tools != counted.tools {
        println!("The baseline was counted with other tools:\n  {}\n  {}", baseline.tools, counted.tools);
    }
    if comparison.has_fallen() {
        println!("Something takes less by more than 5 %: update the baseline (--update), so that it stays so.");
    }
    if comparison.has_failed() {
        println!("Failed. What is meant to be so goes into the baseline (--update), in the same commit.");
    }
    Ok(!comparison.has_failed())
}

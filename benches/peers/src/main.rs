//! revdial beside other ways to carry streams from a server to an agent behind NAT, measured in one run.
//!
//! ```sh
//! cargo run --release --manifest-path benches/peers/Cargo.toml
//! ```
//!
//! Each carrier is a pair of processes, a server and an agent, that talk over loopback. This process is the conductor:
//! it starts the pairs, gives each the same piece of work in turn, round after round, and writes what came out as
//! Markdown, JSON and SVG. What is compared are ratios within a round; see the gates at the table's foot.

mod args;
mod book;
mod carrier;
mod carriers;
mod commands;
#[path = "../../resume/relay.rs"]
mod cutting;
mod delaying;
mod gates;
mod machine;
mod open_files;
mod pair;
mod parts;
mod process;
mod quantity;
mod report;
mod side;
mod strace;
mod task;
mod work;

use std::process::ExitCode;

use self::args::Args;

/// The first argument of a child, which users do not see.
const SIDE: &str = "--as-side";

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("revdial-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    // A thread a side: two cores for two processes, and no work-stealing that would differ from run to run.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    runtime.block_on(async {
        // A task, as in a program: the runtime's main future costs a system call more each time that it is woken.
        let task = match words.as_slice() {
            [SIDE, "server", carrier] => tokio::spawn(side::server(carrier.parse()?)),
            [SIDE, "agent", carrier, "-"] => tokio::spawn(side::agent(carrier.parse()?, None)),
            [SIDE, "agent", carrier, server] => tokio::spawn(side::agent(carrier.parse()?, Some(server.parse()?))),
            _ => match Args::parse(arguments)? {
                Some(args) => tokio::spawn(parts::run(args)),
                None => return Ok(()),
            },
        };
        task.await?
    })
}

//! Ten thousand agents on one gateway: opened, left idle, asked, and back after the gateway was killed.
//!
//! ```sh
//! cargo run --release --manifest-path benches/fleet/Cargo.toml
//! ```
//!
//! The gateway is a process, the agents are two, and this one is the conductor: it tells them what to do over their
//! standard streams, kills the gateway, and starts it again on the same port. All settings that bear on how agents come
//! back are the defaults. It prints a table, and fails where a gate is missed.
//!
//! # Map
//!
//! | file | answers |
//! | --- | --- |
//! | `run` | what happens, in which order |
//! | `figures`, `report` | what must be reached; how it is shown |
//! | `child`, `task` | the processes as the conductor has them; what it tells them |
//! | `gateway`, `agents`, `attempts` | what the processes do; who tried to connect, and when |
//! | `kernel` | what the kernel tells of a process |

mod agents;
mod args;
mod attempts;
mod child;
mod figures;
mod gateway;
mod kernel;
mod report;
mod run;
mod task;

use std::process::ExitCode;

use self::args::Args;

/// The first argument of a child, which users do not see.
const SIDE: &str = "--as-side";

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("revdial-fleet: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all gates were met.
fn run(arguments: &[String]) -> Result<bool> {
    // A thread a process: what the gateway takes is then what one core gives.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    runtime.block_on(async {
        match words.as_slice() {
            [SIDE, "gateway", address, backlog] => {
                tokio::spawn(gateway::run(address.parse()?, backlog.parse()?)).await??
            }
            [SIDE, "agents", gateway, source, first, count] => {
                let agents = agents::run(gateway.parse()?, source.parse()?, first.parse()?, count.parse()?);
                tokio::spawn(agents).await??;
            }
            _ => match Args::parse(arguments)? {
                Some(args) => return run::run(&args).await,
                None => return Ok(true),
            },
        }
        Ok(true)
    })
}

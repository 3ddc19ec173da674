//! Where and when it was measured.

use std::{fs, process::Command, thread};

/// Lines for a report's head: command, machine and date.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) command: String,
    pub(crate) cores: usize,
    pub(crate) processor: String,
    pub(crate) kernel: String,
    pub(crate) date: String,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let separator = if arguments.is_empty() { "" } else { " -- " };
        let run = "cargo run --release --manifest-path benches/peers/Cargo.toml";
        Self {
            command: format!("{run}{separator}{}", arguments.join(" ")),
            cores: thread::available_parallelism().map_or(0, usize::from),
            processor: processor(),
            kernel: read("/proc/sys/kernel/osrelease"),
            date: date(),
        }
    }
}

fn processor() -> String {
    let lines = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = lines.lines().find(|line| line.starts_with("model name"));
    model.and_then(|line| line.split_once(": ")).map_or_else(unknown, |(_, name)| name.to_owned())
}

fn date() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]).output();
    output.map_or_else(|_| unknown(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| unknown(), |text| text.trim().to_owned())
}

fn unknown() -> String {
    "unknown".to_owned()
}

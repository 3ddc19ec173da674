//! Where and when it was measured.

use std::{fs, process::Command, thread};

use crate::args::OUT;

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
        Self {
            command: command(&arguments),
            cores: thread::available_parallelism().map_or(0, usize::from),
            processor: processor(),
            kernel: read("/proc/sys/kernel/osrelease"),
            date: date(),
        }
    }
}

/// The command line as others would give it: where reports went on this machine is left out.
fn command(arguments: &[String]) -> String {
    let mut words = vec!["cargo run --release --manifest-path benches/peers/Cargo.toml"];
    let mut given = arguments.iter().map(String::as_str);
    while let Some(word) = given.next() {
        if word == OUT {
            given.next();
            continue;
        }
        if words.len() == 1 {
            words.push("--");
        }
        // Of a path the file's name is enough.
        words.push(word.rsplit('/').next().unwrap_or(word));
    }
    words.join(" ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_shown_without_paths_of_the_machine() {
        let shown = |words: &[&str]| command(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        let run = "cargo run --release --manifest-path benches/peers/Cargo.toml";
        assert_eq!(shown(&[]), run);
        assert_eq!(shown(&["--out", "/tmp/here"]), run);
        let given = ["--rounds", "7", "--out", "/tmp/here", "--readme", "/home/me/revdial/README.md"];
        assert_eq!(shown(&given), format!("{run} -- --rounds 7 --readme README.md"));
    }
}

//! The command line.

use std::{path::PathBuf, time::Duration};

use crate::Result;

const HELP: &str = "\
Puts many agents on one gateway; see the doc of src/main.rs.

  --agents N     how many, instead of 10,000
  --idle SECS    how long all are left idle, instead of 60
  --down SECS    how long the gateway is down the second time, instead of 10; the first time it is back at once
  --at-once N    how many are asked at once, instead of 64
  --backlog N    the gateway's queue of connections, instead of tokio's 128
  --out DIR      where fleet.md and fleet.json go, instead of target/fleet
  --help         this";

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Args {
    pub(crate) agents: usize,
    pub(crate) idle: Duration,
    pub(crate) down: Duration,
    pub(crate) at_once: usize,
    pub(crate) backlog: u32,
    pub(crate) out: PathBuf,
}

impl Args {
    /// `None` if help was asked for, and given.
    pub(crate) fn parse(arguments: &[String]) -> Result<Option<Self>> {
        let mut args = Self {
            agents: 10_000,
            idle: Duration::from_secs(60),
            down: Duration::from_secs(10),
            at_once: 64,
            backlog: 128,
            out: PathBuf::from("target/fleet"),
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--agents" => args.agents = value()?.parse()?,
                "--idle" => args.idle = Duration::from_secs(value()?.parse()?),
                "--down" => args.down = Duration::from_secs(value()?.parse()?),
                "--at-once" => args.at_once = value()?.parse()?,
                "--backlog" => args.backlog = value()?.parse()?,
                "--out" => args.out = value()?.into(),
                "--help" => {
                    println!("{HELP}");
                    return Ok(None);
                }
                unknown => return Err(format!("no option: {unknown}\n\n{HELP}").into()),
            }
        }
        if args.agents == 0 || args.at_once == 0 || args.idle.is_zero() {
            return Err("--agents, --at-once and --idle want at least 1".into());
        }
        Ok(Some(args))
    }
}

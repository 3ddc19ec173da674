//! The command line.

use std::path::PathBuf;

use crate::{Result, parts::Part};

const HELP: &str = "\
Measures revdial beside its peers; see the doc of src/main.rs.

  --quick        a smoke run of some seconds
  --only PART    latency, load, bulk, delay, resume, scaling or syscalls; may be given more than once
  --rounds N     instead of 5, the least that counts; of short pieces three times as many
  --out DIR      where peers.md, peers.json and peers.svg go, instead of target/peers
  --readme FILE  put the figures between the marks of this README, and the plot beside it
  --help         this";

/// Where reports go: a place on this machine, which they do not show.
pub(crate) const OUT: &str = "--out";

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Args {
    pub(crate) quick: bool,
    pub(crate) parts: Vec<Part>,
    pub(crate) rounds: Option<usize>,
    pub(crate) out: PathBuf,
    pub(crate) readme: Option<PathBuf>,
}

impl Args {
    /// `None` if help was asked for, and given.
    pub(crate) fn parse(arguments: &[String]) -> Result<Option<Self>> {
        let mut args =
            Self { quick: false, parts: Vec::new(), rounds: None, out: PathBuf::from("target/peers"), readme: None };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--quick" => args.quick = true,
                "--only" => args.parts.push(value()?.parse()?),
                "--rounds" => args.rounds = Some(value()?.parse()?),
                "--readme" => args.readme = Some(value()?.into()),
                OUT => args.out = value()?.into(),
                "--help" => {
                    println!("{HELP}");
                    return Ok(None);
                }
                unknown => return Err(format!("no option: {unknown}\n\n{HELP}").into()),
            }
        }
        if args.rounds == Some(0) {
            return Err("--rounds wants at least 1".into());
        }
        if args.parts.is_empty() {
            args.parts = Part::ALL.to_vec();
        }
        Ok(Some(args))
    }
}

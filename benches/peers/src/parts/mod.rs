//! The parts of a run, one after the other: each starts the pairs that it needs, and ends them.

mod bulk;
mod delay;
mod latency;
mod load;
mod resume;
mod scale;
mod scaling;
mod syscalls;

use std::{str::FromStr, time::Instant};

use self::scale::Scale;
use crate::{
    Error, Result,
    args::Args,
    book::Book,
    carrier::Carrier,
    pair::{Between, Cores, Pair},
    report, strace,
};

/// What can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Latency,
    Load,
    Bulk,
    Delay,
    Resume,
    Scaling,
    Syscalls,
}

impl Part {
    pub(crate) const ALL: [Self; 7] =
        [Self::Latency, Self::Load, Self::Bulk, Self::Delay, Self::Resume, Self::Scaling, Self::Syscalls];

    const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Load => "load",
            Self::Bulk => "bulk",
            Self::Delay => "delay",
            Self::Resume => "resume",
            Self::Scaling => "scaling",
            Self::Syscalls => "syscalls",
        }
    }
}

impl FromStr for Part {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|part| part.name() == word).ok_or_else(|| format!("no part: {word}").into())
    }
}

/// Measures all that is asked for, and writes the reports.
pub(crate) async fn run(args: Args) -> Result<()> {
    let (scale, begun) = (Scale::of(&args), Instant::now());
    let mut book = Book::default();
    if args.parts.contains(&Part::Syscalls) {
        strace::check().await?;
    }
    if args.parts.contains(&Part::Scaling) {
        scaling::check(&scale)?;
    }
    for part in &args.parts {
        eprintln!("measuring: {} ({} s)", part.name(), begun.elapsed().as_secs());
        match part {
            Part::Latency => latency::measure(&scale, &mut book).await?,
            Part::Load => load::measure(&scale, &mut book).await?,
            Part::Bulk => bulk::measure(&scale, &mut book).await?,
            Part::Delay => delay::measure(&scale, &mut book).await?,
            Part::Resume => resume::measure(&scale, &mut book).await?,
            Part::Scaling => scaling::measure(&scale, &mut book).await?,
            Part::Syscalls => syscalls::measure(&scale, &mut book).await?,
        }
        // After each part, so that a run that ends early leaves what it has.
        report::write(&book, scale.rounds, &args.out)?;
    }
    if let Some(readme) = &args.readme {
        report::publish(&book, scale.rounds, readme)?;
    }
    eprintln!("measured ({} s)", begun.elapsed().as_secs());
    println!("{}", report::text(&book, scale.rounds));
    Ok(())
}

/// The pairs of these carriers.
async fn pairs(carriers: &[Carrier], cores: Cores, between: Between) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for carrier in carriers {
        pairs.push(Pair::start(*carrier, cores, between).await?);
    }
    Ok(pairs)
}

async fn stop(pairs: Vec<Pair>) -> Result<()> {
    for pair in pairs {
        pair.stop().await?;
    }
    Ok(())
}

/// Each round begins with another pair: the first has what the machine did before.
fn in_turn(pairs: &mut [Pair], round: usize) -> impl Iterator<Item = &mut Pair> {
    let len = pairs.len();
    pairs.rotate_left(usize::from(round > 0 && len > 0));
    pairs.iter_mut()
}

const MIB: u64 = 1024 * 1024;

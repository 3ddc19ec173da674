//! What the conductor tells the others, and what they answer: a line of JSON each, over their standard streams.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, Stdin, stdin, stdout};

use crate::Result;

/// The length of a slot of [`Attempts::slots`], in milliseconds.
pub(crate) const SLOT: u64 = 10;

/// The first line of a process: where it can be dialled, if it can.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) address: Option<SocketAddr>,
}

/// What the gateway is told.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum GatewayTask {
    /// A GET to each agent, on a stream of its own, so many at once.
    Ask { agents: usize, at_once: usize },
}

/// What that took, in seconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) seconds: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) failed: usize,
    /// What the first failure was.
    pub(crate) failure: Option<String>,
}

/// What the agents are told.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum AgentsTask {
    /// Run, all at one moment; count from here on.
    Start,
    /// Count from here on.
    Mark,
    /// Wait until all have connected since it is counted, but no longer than so many seconds.
    Await { seconds: u64 },
}

/// What agents did since it is counted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Arrivals {
    /// When each agent connected that has, in milliseconds, sorted.
    pub(crate) at: Vec<u32>,
    pub(crate) attempts: Attempts,
}

/// Who tried to connect, and when.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Attempts {
    /// How many began in each slot of time.
    pub(crate) slots: Vec<u32>,
    /// The attempts of that agent which had most.
    pub(crate) worst: u32,
    /// How many found nobody who listens.
    pub(crate) refused: u32,
    /// What agents said of setbacks, and how often.
    pub(crate) setbacks: BTreeMap<String, u32>,
}

/// The line to the conductor.
pub(crate) struct Line(Lines<BufReader<Stdin>>);

impl Line {
    pub(crate) async fn new(address: Option<SocketAddr>) -> Result<Self> {
        let mut line = Self(BufReader::new(stdin()).lines());
        line.say(&Ready { address }).await?;
        Ok(line)
    }

    /// `None` once the conductor has gone, or wants this process to.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let line = self.0.next_line().await?;
        Ok(line.map(|line| serde_json::from_str(&line)).transpose()?)
    }

    pub(crate) async fn say(&mut self, what: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        let mut stdout = stdout();
        stdout.write_all(&line).await?;
        Ok(stdout.flush().await?)
    }
}

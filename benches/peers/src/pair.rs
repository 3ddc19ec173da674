//! The two processes of a carrier, as the conductor has them.

use std::{
    net::SocketAddr,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    runtime::Handle,
    time::{sleep, timeout},
};

use crate::{
    Result,
    carrier::Carrier,
    cutting::Relay as Cutting,
    delaying::Delaying,
    process,
    strace::Counter,
    task::{Ready, Taken, Task},
};

/// The longest that a task may take: the longest takes some seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a side may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(2);

/// On which cores the sides run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cores {
    /// Both on one, if there is a `taskset`.
    One,
    All,
}

/// What is between the sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Between {
    Nothing,
    /// A relay that adds so much to a round trip.
    Delay(Duration),
    /// A relay that can cut.
    Cuts,
}

/// What a task took, and the CPU time of both sides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) taken: Taken,
    pub(crate) cpu: f64,
}

pub(crate) struct Pair {
    pub(crate) carrier: Carrier,
    server: Side,
    agent: Side,
    /// Where the server dials the agent, if it is the one that dials.
    dialled: Option<SocketAddr>,
    _delaying: Option<Delaying>,
    cutting: Option<Cutting>,
}

impl Pair {
    /// Starts both sides, with one tunnel.
    pub(crate) async fn start(carrier: Carrier, cores: Cores, between: Between) -> Result<Self> {
        let mut server = Side::start(&["server", carrier.word()], cores)?;
        let at_server = server.read::<Ready>().await?.address;
        let (mut delaying, mut cutting) = (None, None);
        let mut via = match (between, at_server) {
            (Between::Delay(delay), Some(address)) => {
                delaying.insert(Delaying::start(address, delay)?).address().into()
            }
            (Between::Cuts, Some(address)) => {
                cutting.insert(Cutting::start(&Handle::current(), address).await).address().into()
            }
            _ => at_server,
        };
        let address = via.map_or_else(|| "-".to_owned(), |address: SocketAddr| address.to_string());
        let mut agent = Side::start(&["agent", carrier.word(), &address], cores)?;
        let at_agent = agent.read::<Ready>().await?.address;
        if let Some(address) = at_agent {
            via = match between {
                Between::Delay(delay) => delaying.insert(Delaying::start(address, delay)?).address().into(),
                Between::Nothing => at_agent,
                Between::Cuts => return Err("only links that an agent dials are cut".into()),
            };
        }
        let mut pair = Self { carrier, server, agent, dialled: via, _delaying: delaying, cutting };
        pair.tunnels(1).await?;
        Ok(pair)
    }

    /// Has so many tunnels in all.
    pub(crate) async fn tunnels(&mut self, count: usize) -> Result<()> {
        let task = Task::Tunnels { count, agent: self.dialled };
        tokio::try_join!(self.server.run(task), self.agent.run(task))?;
        Ok(())
    }

    pub(crate) async fn run(&mut self, task: Task) -> Result<Sample> {
        let before = self.cpu_time().await?;
        let taken =
            self.server.run(task).await.map_err(|error| format!("{}: {task:?}: {error}", self.carrier.name()))?;
        // A thread that has ended takes its time with it.
        Ok(Sample { taken, cpu: self.cpu_time().await?.saturating_sub(before).as_secs_f64() })
    }

    /// How many system calls both sides make for this task, and for being told it.
    pub(crate) async fn calls(&mut self, task: Task) -> Result<u64> {
        let counter = Counter::attach(&[self.server.pid()?, self.agent.pid()?]).await?;
        self.run(task).await?;
        counter.stop().await
    }

    /// The server's resident memory in KiB, once that has been the same for a moment.
    pub(crate) async fn resident(&self) -> Result<f64> {
        let mut last = 0.0;
        for _ in 0..20 {
            sleep(Duration::from_millis(100)).await;
            let kib = process::resident(self.server.pid()?)?;
            if kib == last {
                break;
            }
            last = kib;
        }
        Ok(last)
    }

    /// Cuts the link, and measures until a byte has gone there and back; without a cut the same path as it is.
    pub(crate) async fn until_echo(&mut self, cut: bool) -> Result<Duration> {
        let mut start = Instant::now();
        if cut {
            start = self.cutting.as_ref().ok_or("no relay that cuts")?.cut().await;
        }
        self.server.run(Task::Trips { n: 1 }).await?;
        Ok(start.elapsed())
    }

    /// Lets both sides end.
    pub(crate) async fn stop(self) -> Result<()> {
        self.agent.stop().await?;
        self.server.stop().await
    }

    /// What both sides have used so far.
    pub(crate) async fn cpu_time(&self) -> Result<Duration> {
        sleep(Duration::from_millis(2)).await;
        Ok(process::cpu_time(self.server.pid()?)? + process::cpu_time(self.agent.pid()?)?)
    }
}

/// A child, which is killed when this is dropped.
struct Side {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Side {
    fn start(arguments: &[&str], cores: Cores) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = if cores == Cores::One && can_pin() {
            let mut command = Command::new(TASKSET);
            command.args(["-c", "0"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let command = command.arg(crate::SIDE).args(arguments).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().ok_or("no input")?;
        let output = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        Ok(Self { child, input, output })
    }

    fn pid(&self) -> Result<u32> {
        Ok(self.child.id().ok_or("the side has ended")?)
    }

    async fn run(&mut self, task: Task) -> Result<Taken> {
        let mut line = serde_json::to_vec(&task)?;
        line.push(b'\n');
        self.input.write_all(&line).await?;
        self.read().await
    }

    async fn read<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = timeout(PATIENCE, self.output.next_line()).await.map_err(|_| "a task takes too long")??;
        Ok(serde_json::from_str(&line.ok_or("the side has ended")?)?)
    }

    async fn stop(self) -> Result<()> {
        let Self { mut child, input, .. } = self;
        drop(input);
        if timeout(FAREWELL, child.wait()).await.is_err() {
            child.kill().await?;
        }
        Ok(())
    }
}

const TASKSET: &str = "/usr/bin/taskset";

/// Whether sides can be pinned here.
pub(crate) fn can_pin() -> bool {
    Path::new(TASKSET).exists()
}

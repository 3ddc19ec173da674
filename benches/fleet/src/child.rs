//! A process as the conductor has it.

use std::{process::Stdio, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child as Process, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::{Result, kernel, task::Ready};

/// The longest that a task may take: more than it waits for itself.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long it may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(5);

/// A process, which is killed when this is dropped.
pub(crate) struct Child {
    process: Process,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts a process of this program, and waits for its first line.
    pub(crate) async fn start(arguments: &[String]) -> Result<(Self, Ready)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(crate::SIDE).args(arguments).kill_on_drop(true);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = process.stdin.take().ok_or("no input")?;
        let output = BufReader::new(process.stdout.take().ok_or("no output")?).lines();
        let mut child = Self { process, input, output };
        let ready = child.answer().await?;
        Ok((child, ready))
    }

    pub(crate) async fn run<T: DeserializeOwned>(&mut self, task: &impl Serialize) -> Result<T> {
        let mut line = serde_json::to_vec(task)?;
        line.push(b'\n');
        self.input.write_all(&line).await?;
        self.answer().await
    }

    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        kernel::cpu_time(self.pid()?)
    }

    /// In KiB.
    pub(crate) fn resident(&self) -> Result<f64> {
        kernel::resident(self.pid()?)
    }

    /// Kills it.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        Ok(self.process.kill().await?)
    }

    /// Lets it end.
    pub(crate) async fn stop(self) -> Result<()> {
        let Self { mut process, input, .. } = self;
        drop(input);
        if timeout(FAREWELL, process.wait()).await.is_err() {
            process.kill().await?;
        }
        Ok(())
    }

    fn pid(&self) -> Result<u32> {
        Ok(self.process.id().ok_or("a process has ended")?)
    }

    async fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = timeout(PATIENCE, self.output.next_line()).await.map_err(|_| "a task takes too long")??;
        Ok(serde_json::from_str(&line.ok_or("a process has ended")?)?)
    }
}

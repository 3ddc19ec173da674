//! Counts the system calls of processes, with `strace`.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};

use crate::Result;

const STRACE: &str = "strace";

/// Fails where there is none: a run that would need it had better not begin.
pub(crate) async fn check() -> Result<()> {
    let version = Command::new(STRACE).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    match version {
        Ok(status) if status.success() => Ok(()),
        _ => Err("system calls are counted with strace, which is not installed (Debian's package is strace); \
                  name the other parts with --only to go without"
            .into()),
    }
}

/// A tracer that counts the calls of all threads of some processes, from its start on.
pub(crate) struct Counter {
    tracer: Child,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Counter {
    /// Returns once the tracer is attached to all.
    pub(crate) async fn attach(pids: &[u32]) -> Result<Self> {
        let mut command = Command::new(STRACE);
        command.args(["-f", "-c", "-U", "calls,name"]);
        for pid in pids {
            command.args(["-p", &pid.to_string()]);
        }
        let mut tracer = command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut lines = BufReader::new(tracer.stderr.take().ok_or("no output")?).lines();
        for _ in pids {
            let line = lines.next_line().await?.ok_or("strace has ended")?;
            if !line.contains(" attached") {
                return Err(format!("{line} (it takes ptrace: see kernel.yama.ptrace_scope)").into());
            }
        }
        Ok(Self { tracer, lines })
    }

    /// Detaches; the number of calls since.
    pub(crate) async fn stop(mut self) -> Result<u64> {
        let pid = self.tracer.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).ok_or("strace has ended")?;
        kill_process(pid, Signal::INT)?;
        let mut total = None;
        while let Some(line) = self.lines.next_line().await? {
            total = line.trim().strip_suffix(" total").map(str::to_owned).or(total);
        }
        self.tracer.wait().await?;
        // What made no call has no table.
        total.map_or(Ok(0), |calls| Ok(calls.trim().parse()?))
    }
}

//! A program of this repository as a process of its own: started, listened to, signalled, and ended with its test.

use std::{
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::watch,
    time::timeout,
};

/// No step takes this long, not even on a machine with much else to do.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A running example. Dropped, also by a test that panics, it is killed; what it logged is then shown.
#[derive(Debug)]
pub(crate) struct Program {
    command: String,
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: watch::Receiver<String>,
}

/// How a program ended that was run to its end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Program {
    /// Starts an example with flags, as one would type it; no flag has a space in it.
    pub(crate) fn start(command: &str) -> Self {
        Self::start_with(command, &[])
    }

    /// The same with environment variables.
    pub(crate) fn start_with(command: &str, env: &[(&str, &str)]) -> Self {
        let mut child = prepare(command, env).spawn().unwrap_or_else(|why| panic!("{command}: {why}"));
        let stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        let stderr = collect(child.stderr.take().expect("piped"));
        Self { command: command.to_owned(), child, stdout, stderr }
    }

    /// Runs an example to its end.
    pub(crate) async fn run(command: &str, env: &[(&str, &str)]) -> Ended {
        let output = timeout(DEADLINE, prepare(command, env).output()).await;
        let output = output.unwrap_or_else(|_| panic!("{command} does not end")).expect("a process");
        Ended {
            status: output.status,
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// The next line of its standard output.
    pub(crate) async fn line(&mut self) -> String {
        let line = timeout(DEADLINE, self.stdout.next_line()).await.unwrap_or_else(|_| self.fail("says nothing"));
        line.expect("text").unwrap_or_else(|| self.fail("has ended its output"))
    }

    /// Waits until its log has this text, and gives the first line with it.
    pub(crate) async fn logs(&self, text: &str) -> String {
        let mut stderr = self.stderr.clone();
        let said = timeout(DEADLINE, stderr.wait_for(|log| log.contains(text))).await;
        let log = said.ok().and_then(Result::ok).unwrap_or_else(|| self.fail(&format!("does not log {text:?}")));
        log.lines().find(|line| line.contains(text)).unwrap_or_default().to_owned()
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap_or_else(|| self.fail("has ended already"))
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.id();
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().await.expect("a shell");
        assert!(status.success(), "no signal for {}", self.command);
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        match timeout(DEADLINE, self.child.wait()).await {
            Ok(status) => status.expect("a child of this process"),
            Err(_) => self.fail("does not end"),
        }
    }

    /// Ends it without giving it a chance to say so, as `kill -9` does.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("a child of this process");
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{} {what}", self.command)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {} logged:\n{}", self.command, *self.stderr.borrow());
        }
    }
}

fn prepare(command: &str, env: &[(&str, &str)]) -> Command {
    let mut words = command.split_whitespace();
    let mut prepared = Command::new(example(words.next().expect("a name")));
    // What the machine of the test is set to is not the program's.
    for name in ["RUST_LOG", "RUNNER_TOKEN", "CALLER_TOKEN", "REQUEST_METHOD"] {
        prepared.env_remove(name);
    }
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        prepared.env_remove(name).env_remove(name.to_ascii_uppercase());
    }
    prepared.args(words).envs(env.iter().copied());
    prepared.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    prepared
}

/// Where cargo puts examples: beside the folder of the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps/TEST");
    let path = profile.join("examples").join(name);
    assert!(path.exists(), "{} is missing; `cargo test` or `cargo build --examples` makes it", path.display());
    path
}

/// Reads to the end in a task, so that the program never waits for a reader.
fn collect(from: impl AsyncRead + Unpin + Send + 'static) -> watch::Receiver<String> {
    let (sender, receiver) = watch::channel(String::new());
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            sender.send_modify(|log| {
                log.push_str(&line);
                log.push('\n');
            });
        }
    });
    receiver
}

//! The log, on standard error: one line for each event, without colours, as a terminal, a file and journald all take it.

use std::{
    fs,
    io::{self, StderrLock, Write},
    os::unix::fs::MetadataExt,
};

use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Begins the log: from `info` on, or what `RUST_LOG` says. Journald has times of its own, so that it gets none.
pub(crate) fn start(levels: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Lines { levels });
    if is_journald() { log.without_time().init() } else { log.init() }
}

/// Whether standard error is the socket that systemd says leads to journald: its device and inode.
fn is_journald() -> bool {
    let (told, stderr) = (std::env::var("JOURNAL_STREAM"), fs::metadata("/proc/self/fd/2"));
    told.is_ok_and(|told| stderr.is_ok_and(|stderr| told == format!("{}:{}", stderr.dev(), stderr.ino())))
}

/// Standard error, locked for a line at a time.
struct Lines {
    levels: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = StderrLock<'static>;

    fn make_writer(&'a self) -> Self::Writer {
        io::stderr().lock()
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Self::Writer {
        let mut stderr = io::stderr().lock();
        if self.levels {
            // As of sd-daemon(3).
            let level = match *event.level() {
                Level::ERROR => 3,
                Level::WARN => 4,
                Level::INFO => 6,
                _ => 7,
            };
            // A log that cannot be written is nothing to fail for.
            let _ = write!(stderr, "<{level}>");
        }
        stderr
    }
}

//! A fault that was found: which, the likely cause, and the next command.

use std::{fmt, process::ExitCode};

/// What is wrong, as an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Probe = 1,
    Name = 10,
    Tcp = 11,
    Tls = 12,
    Proxy = 13,
    Upgrade = 14,
    Auth = 15,
    NoConnection = 16,
    TimeOut = 17,
    Target = 18,
    Idle = 19,
}

impl Fault {
    pub(crate) fn code(self) -> u8 {
        self as u8
    }
}

impl From<Fault> for ExitCode {
    fn from(fault: Fault) -> Self {
        fault.code().into()
    }
}

/// A fault, told to somebody who has to mend it.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    /// What was seen.
    pub(crate) what: String,
    /// What it likely comes from.
    pub(crate) cause: String,
    /// What to run or to look at next.
    pub(crate) next: String,
}

impl Failure {
    pub(crate) fn new(
        fault: Fault,
        what: impl Into<String>,
        cause: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self { fault, what: what.into(), cause: cause.into(), next: next.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  cause  {}\n  next   {}", self.what, self.cause, self.next)
    }
}

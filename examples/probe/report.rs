//! The doctor's findings: a line for each step as it is done, or all of them as JSON in the end.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::{
    fault::{Failure, Fault},
    progress::during,
    words::say,
};

/// The exit code where no fault was found, and not all was looked at that was asked for.
const NOT_LOOKED_AT: u8 = 20;

/// What a step that found no fault says, and what it hands on.
pub(crate) struct Passed<T> {
    is_skipped: bool,
    /// Steps that were asked for by a flag, and of which nothing is known after this one.
    unseen: &'static [&'static str],
    what: String,
    value: T,
}

impl<T> Passed<T> {
    pub(crate) fn ok(what: impl Into<String>, value: T) -> Self {
        Self { is_skipped: false, unseen: &[], what: what.into(), value }
    }

    /// There was nothing to try, for this reason.
    pub(crate) fn skip(why: impl Into<String>, value: T) -> Self {
        Self { is_skipped: true, unseen: &[], what: why.into(), value }
    }

    /// These were asked for and could not be looked at, for this reason.
    pub(crate) fn unseen(steps: &'static [&'static str], why: impl Into<String>, value: T) -> Self {
        Self { unseen: steps, ..Self::skip(why, value) }
    }
}

pub(crate) type Outcome<T> = Result<Passed<T>, Failure>;

/// The steps, in order.
const STEPS: [&str; 11] =
    ["name", "tcp", "proxy", "tls", "middlebox", "upgrade", "auth", "tunnel", "target", "round trip", "idle"];

pub(crate) struct Report {
    json: bool,
    done: Vec<Value>,
    first: Option<(&'static str, Fault)>,
    unseen: Vec<&'static str>,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, done: Vec::new(), first: None, unseen: Vec::new() }
    }

    /// Does a step and tells its outcome. `None` if it found a fault.
    pub(crate) async fn step<T>(&mut self, name: &'static str, work: impl Future<Output = Outcome<T>>) -> Option<T> {
        match during(name, work).await {
            Ok(Passed { is_skipped, unseen, what, value }) => {
                self.unseen.extend(unseen);
                self.tell(name, if is_skipped { "skip" } else { "ok" }, &what, None);
                Some(value)
            }
            Err(failure) => {
                self.first.get_or_insert((name, failure.fault));
                self.tell(name, "FAIL", &failure.what, Some(&failure));
                None
            }
        }
    }

    /// Tells what was not come to, and the whole.
    pub(crate) fn finish(self) -> ExitCode {
        let missing: Vec<_> =
            STEPS.into_iter().filter(|name| !self.done.iter().any(|step| step["step"] == *name)).collect();
        let code = match self.first {
            Some((_, fault)) => fault.code(),
            None if self.unseen.is_empty() => 0,
            None => NOT_LOOKED_AT,
        };
        if self.json {
            let first = self.first.map(|(step, _)| step);
            let whole = json!({
                "steps": self.done,
                "not_come_to": missing,
                "not_looked_at": self.unseen,
                "first_fault": first,
                "exit_code": code,
            });
            say(format_args!("{whole:#}"));
            return code.into();
        }
        if !missing.is_empty() {
            say(format_args!("      not come to: {}", missing.join(", ")));
        }
        match self.first {
            None if self.unseen.is_empty() => say(format_args!("\nno fault found")),
            None => say(format_args!("\nno fault found; not looked at: {} (exit code {code})", self.unseen.join(", "))),
            Some((step, _)) => say(format_args!("\nfirst fault: {step} (exit code {code})")),
        }
        code.into()
    }

    fn tell(&mut self, name: &str, verdict: &str, what: &str, failure: Option<&Failure>) {
        if !self.json {
            say(format_args!("{verdict:<4}  {name:<10}  {what}"));
            if let Some(failure) = failure {
                say(format_args!("      cause       {}\n      next        {}", failure.cause, failure.next));
            }
        }
        let mut step = json!({ "step": name, "verdict": verdict.to_lowercase(), "what": what });
        if let Some(failure) = failure {
            step["cause"] = failure.cause.as_str().into();
            step["next"] = failure.next.as_str().into();
            step["exit_code"] = failure.fault.code().into();
        }
        self.done.push(step);
    }
}

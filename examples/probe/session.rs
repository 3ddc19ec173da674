//! A desktop's session, and what the gateway's routes to it answer.

use http::header;
use revdial::{AgentKey, InvalidName, TargetName};

use crate::{
    ask::{Answer, NoAnswer},
    fault::{Failure, Fault},
    gateway::{Gateway, kind_of, told, turned_away},
    progress::during,
    steps::tunnel,
};

/// A desktop, as callers name it.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) name: String,
    key: AgentKey,
}

impl Session {
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let key = format!("desktop-{name}").parse().map_err(|why: InvalidName| why.to_string())?;
        Ok(Self { name: name.to_owned(), key })
    }

    /// The path of what is at the end of the gateway's route to the desktop.
    pub(crate) fn path(&self, gateway: &Gateway, what: &str) -> String {
        gateway.way.server.route(&format!("/api/v1/external-agents/{}/{what}", self.name))
    }

    /// An answer that is not what was asked for, as a failure.
    pub(crate) fn refused(&self, gateway: &Gateway, answer: &Answer) -> Failure {
        if let Some(kind) = kind_of(answer) {
            return told(gateway, kind, &self.key, &TargetName::default());
        }
        turned_away(gateway, answer).unwrap_or_else(|| {
            let what = format!("answered {} ({})", answer.status, answer.header(header::CONTENT_TYPE));
            let cause = "what is behind the tunnel has no such route, or no gateway answered";
            Failure::new(Fault::Target, what, cause, self.doctor(gateway))
        })
    }

    /// No answer, as a failure. Who waited for a sandbox that is away did not wait for the desktop.
    pub(crate) async fn unanswered(&self, gateway: &Gateway, why: NoAnswer) -> Failure {
        let (fault, cause) = match &why {
            NoAnswer::Unreached(_) => return why.blamed(Fault::TimeOut, "", ""),
            NoAnswer::Broken(_) => {
                (Fault::NoConnection, "the tunnel was lost under the answer, or the gateway went away")
            }
            NoAnswer::TimedOut(_) => (Fault::TimeOut, "the tunnel is dead, or the desktop hangs"),
        };
        match during("the sandbox's state", tunnel::connected(gateway, &self.key)).await {
            Err(away) if away.fault == Fault::NoConnection => away,
            _ => why.blamed(fault, cause, &self.doctor(gateway)),
        }
    }

    /// The command that looks further.
    pub(crate) fn doctor(&self, gateway: &Gateway) -> String {
        gateway.command(&format!("doctor --key {}", self.key))
    }
}

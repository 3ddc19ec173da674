//! What an agent tells the outside about itself, and how it is told to stop.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::life::far;
use crate::error::ErrorKind;

/// What an agent is doing, as a `watch` for readiness checks; of its guards see [`Agent::status`](super::Agent::status).
///
/// ```no_run
/// # use revdial::agent::{Agent, AgentStatus};
/// # async fn ready(agent: &Agent) {
/// let mut status = agent.status();
/// let _ = status.wait_for(AgentStatus::is_connected).await;
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AgentStatus {
    /// An attempt is under way, or the run was not polled yet.
    Connecting,
    /// The server has welcomed the agent.
    Connected {
        /// Since when.
        since: Instant,
    },
    /// The last attempt failed or its link was lost; the next one comes soon.
    Waiting {
        /// When the next attempt begins.
        until: Instant,
        /// What went wrong.
        cause: ErrorKind,
        /// The same in words, for people: the status that the server answered, the reason of a refused connection.
        text: Arc<str>,
    },
    /// The server refused the agent in a way that trying sooner cannot mend: credentials, key, version, TLS, or the
    /// rules of a proxy on the way.
    Refused {
        /// When the next attempt begins.
        until: Instant,
        /// Why.
        cause: ErrorKind,
        /// The same in words, for people.
        text: Arc<str>,
    },
    /// The run has ended: it was shut down, dropped, or replaced.
    Stopped,
}

impl AgentStatus {
    /// Whether the server can reach this agent now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected { .. })
    }

    /// Whether the run has ended.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Stopped)
    }
}

/// Tells a running agent to stop in order. Cheap to clone; dropping it stops nothing.
#[derive(Debug, Clone)]
pub struct ShutdownHandle(watch::Sender<Option<Duration>>);

impl ShutdownHandle {
    /// A handle whose agent is not told to stop yet.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Asks the agent to stop: the server opens nothing new, what runs may finish within `drain`, what still runs
    /// then is reset, for callers [`ErrorKind::PeerReset`], or fails with the session if there is no link, and the agent's
    /// `run` resolves with `Ok`.
    ///
    /// Returns at once. Called again, the shorter time holds. [`Duration::ZERO`] waits for nothing.
    pub fn shutdown(&self, drain: Duration) {
        self.0.send_if_modified(|now| {
            let sooner = now.is_none_or(|before| drain < before);
            if sooner {
                *now = Some(drain);
            }
            sooner
        });
    }

    /// Resolves when the time to drain is up, which began at `asked` and may be shortened.
    pub(crate) async fn time_is_up(&self, asked: Instant) {
        let mut drain = self.0.subscribe();
        loop {
            let until = far(asked, drain.borrow_and_update().unwrap_or_default());
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                // The sender lives in `self`, so that there is always one.
                _ = drain.changed() => {}
            }
        }
    }

    /// Resolves when a shutdown was asked for, with the time to drain.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub(crate) async fn asked(&self) -> Duration {
        let mut asked = self.0.subscribe();
        // The sender lives in `self`, so that the wait cannot fail.
        let drain = asked.wait_for(Option::is_some).await.ok().and_then(|drain| *drain);
        drain.unwrap_or_default()
    }
}

//! How the agent of an absent key is started: what the host says, and the task that does it.

use std::{
    error::Error as StdError,
    fmt,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    callback,
    connman::{
        gone::Gone,
        handle::Handle,
        registry::{Refusal, Ticket},
        state::{Inner, now},
    },
    key::AgentKey,
};

/// How long a start may take by default: a container takes seconds, a virtual machine less than a minute.
const WITHIN: Duration = Duration::from_secs(60);

/// How much of a failure's text callers and the log are told, in characters.
const MAX_TEXT: usize = 500;

type Started = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// How to start the agent of an absent key; what [`Absent::Wake`](crate::connman::Absent::Wake) asks for.
///
/// One start runs at a time for a key. All dials that find the key absent meanwhile wait for it, and for the agent that
/// it brings: until [`within`](Self::within) has passed since its begin. It goes on when they are dropped, so that the
/// next one finds it on its way. At most as many starts as
/// [`max_pending_dials`](crate::connman::ConnectionManagerBuilder::max_pending_dials) run at once.
///
/// | the start | who waits gets |
/// | --- | --- |
/// | ends well, and the agent connects | its stream |
/// | ends well, and no agent connects in time | [`NoConnection`](crate::ErrorKind::NoConnection) |
/// | ends with an error | [`NoConnection`](crate::ErrorKind::NoConnection), with the error's text as its source, below it [`Gone`] if the key was there before, at once |
/// | panics, or takes longer than it may | [`Internal`](crate::ErrorKind::Internal); counted in `revdial_callback_failures_total` |
///
/// However it ended, the next dial that finds the key absent may start its agent again.
#[must_use = "nothing is started before a dial asks for it"]
pub struct Wake {
    start: Box<dyn FnOnce() -> Started + Send>,
    within: Duration,
}

impl Wake {
    /// Starts the agent by this. It is called on a task of its own, and only if no start runs for the key already.
    pub fn new<F, S, E>(start: F) -> Self
    where
        F: FnOnce() -> S + Send + 'static,
        S: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let start = move || -> Started {
            let started = start();
            Box::pin(async move { started.await.map_err(|error| error.into().to_string()) })
        };
        Self { start: Box::new(start), within: WITHIN }
    }

    /// How long it may take from its begin until the agent is connected. Default 60 s.
    pub fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    pub(super) const fn time(&self) -> Duration {
        self.within
    }

    /// Starts the key's agent, for the dial of this ticket; over at `until`. Keeps nothing alive.
    pub(super) fn begin<T: Handle>(self, inner: &Arc<Inner<T>>, key: AgentKey, by: Ticket, until: Instant) {
        let inner = Arc::downgrade(inner);
        tokio::spawn(async move {
            let outcome = self.run(&key, until).await;
            if let Some(inner) = inner.upgrade() {
                inner.with(|state, now| state.registry.woken(&key, by, outcome, now));
            }
        });
    }

    async fn run(self, key: &AgentKey, until: Instant) -> Result<(), Refusal> {
        let within = until.saturating_duration_since(now());
        match callback::ask_within(within, async move { (self.start)().await }).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(text)) => {
                let text: String = text.chars().take(MAX_TEXT).collect();
                tracing::warn!(%key, error = ?text, "an agent was not started");
                Err(Refusal::NotWoken(text.into(), None))
            }
            Err(failed) => {
                tracing::error!(%key, "the start of an agent {failed}");
                Err(Refusal::Fault)
            }
        }
    }
}

/// Why a start failed, in the host's words, and since when the key was gone before.
#[derive(Debug)]
pub(super) struct NotWoken {
    text: Arc<str>,
    gone: Option<Gone>,
}

impl NotWoken {
    pub(super) const fn new(text: Arc<str>, gone: Option<Gone>) -> Self {
        Self { text, gone }
    }
}

impl fmt::Display for NotWoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for NotWoken {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.gone.as_ref().map(|gone| gone as &(dyn StdError + 'static))
    }
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wake").field("within", &self.within).finish_non_exhaustive()
    }
}

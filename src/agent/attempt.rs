//! One attempt to attach, from the token to WELCOME: one at a time, for all sessions of an agent.

use std::{fmt, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio::sync::Mutex;

use super::{
    config::Config,
    connect::{Connect, reach},
    refusal::{Retry, Setback},
};
use crate::{
    error::ErrorKind,
    frame::{Hello, Welcome},
    key::AgentKey,
    link::MessageLink,
    metrics,
    mux::establish,
    proto::{Attempts, SessionConfig, Welcomed},
};

/// How long the token, the connect and the upgrade may take together.
const REACH_WITHIN: Duration = Duration::from_secs(20);

/// How long WELCOME may take.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);

/// The server, as the sessions of one agent reach it.
pub(crate) struct Server {
    config: Config,
    /// Held for the whole of an attempt. Two sessions may want to dial when one of them drains; but a server takes a
    /// link for stale that speaks up only after a newer one of its agent has.
    connector: Mutex<Box<dyn Connect>>,
}

/// A link with its WELCOME.
pub(crate) struct Welcoming {
    /// The link.
    pub(crate) link: MessageLink,
    /// What the server said.
    pub(crate) welcome: Welcome,
    /// What that brings.
    pub(crate) welcomed: Welcomed,
    /// How many counted messages of the session the server has.
    pub(crate) has: u64,
}

impl Server {
    /// The server that these settings name.
    pub(crate) fn new(config: Config, connector: Box<dyn Connect>) -> Self {
        Self { config, connector: Mutex::new(connector) }
    }

    /// The agent's key.
    pub(crate) fn key(&self) -> &AgentKey {
        &self.config.key
    }

    /// The bounds of the agent's sessions.
    pub(crate) fn session(&self) -> &SessionConfig {
        &self.config.session
    }

    /// One attempt, from the token to WELCOME: the next of `attempts`, of whose session the agent `has` so many counted
    /// messages.
    ///
    /// # Cancel safety
    /// Dropped midway, the link is closed without a word and the attempt used up.
    pub(crate) async fn attach(&self, attempts: &mut Attempts, base: &Hello, has: u64) -> Result<Welcoming, Setback> {
        let welcoming = async {
            let mut connector = self.connector.lock().await;
            let reached = tokio::time::timeout(REACH_WITHIN, self.reach(&mut **connector));
            let mut link = reached.await.unwrap_or_else(|_| {
                Err(Setback::new(ErrorKind::Handshake, Retry::Backoff, "the server did not answer in time"))
            })?;
            let offer = establish::offer(&mut link, attempts, base, has, WELCOME_WITHIN);
            let (welcome, welcomed, has) = offer.await.map_err(Setback::by_establish)?;
            Ok(Welcoming { link, welcome, welcomed, has })
        };
        welcoming.await.inspect_err(|setback: &Setback| {
            metrics::record_agent_connect_failure(setback.error.kind().as_str());
        })
    }

    async fn reach(&self, connector: &mut dyn Connect) -> Result<MessageLink, Setback> {
        let token = caught("the token source panicked", self.config.token.ask()).await?;
        caught("the connector panicked", reach(connector, &self.config.uri, token)).await?
    }
}

/// What `code`, some of it the user's, gives. That it panicked is a failed attempt, not the end of the agent.
async fn caught<T>(what: &'static str, code: impl Future<Output = T>) -> Result<T, Setback> {
    let caught = AssertUnwindSafe(code).catch_unwind().await;
    caught.map_err(|_| Setback::new(ErrorKind::Internal, Retry::Backoff, what))
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}

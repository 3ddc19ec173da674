//! One attempt to attach, from the token to WELCOME: one at a time, for all sessions of an agent.

use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use http::{HeaderMap, Uri};
use tokio::{sync::Mutex, time::timeout};

use super::{
    config::Config,
    connect::{Connect, Reached, failed, open, opening, upgrade},
    refusal::{Retry, Setback},
};
use crate::{
    dialback::{ControlLink, pickup_uri},
    error::ErrorKind,
    frame::{Hello, Welcome},
    key::AgentKey,
    link::{self, ByteLink, MessageLink, Protocol, Refused},
    metrics,
    mux::establish,
    proto::{Attempts, SessionConfig, Welcomed},
    spans::SessionSpan,
};

/// How long the token, the connect and the upgrade may take together, of a link and of a pick-up.
const REACH_WITHIN: Duration = Duration::from_secs(20);

/// How long WELCOME may take.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);

/// The server, as the sessions of one agent reach it.
pub(crate) struct Server {
    config: Config,
    /// Held for the whole of an attempt. Two sessions may want to dial when one of them drains; but a server takes a
    /// link for stale that speaks up only after a newer one of its agent has.
    attempt: Mutex<()>,
    connector: Mutex<Box<dyn Connect>>,
    /// How many sessions there were.
    sessions: AtomicU64,
}

/// What an attempt came to.
pub(crate) enum Attached {
    /// A link of the native protocol, with its WELCOME.
    Native(Welcoming),
    /// The control link of a server that speaks dial-back.
    Dialback(ControlLink),
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
        Self { config, attempt: Mutex::new(()), connector: Mutex::new(connector), sessions: AtomicU64::new(0) }
    }

    /// The agent's key.
    pub(crate) fn key(&self) -> &AgentKey {
        &self.config.key
    }

    /// The span of the next session.
    pub(crate) fn session_span(&self) -> SessionSpan {
        let number = self.sessions.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        SessionSpan::new(self.key().clone(), number)
    }

    /// The bounds of the agent's sessions.
    pub(crate) fn session(&self) -> &SessionConfig {
        &self.config.session
    }

    /// One attempt, from the token to WELCOME: the next of `attempts`, of whose session the agent `has` so many counted
    /// messages. With a server that speaks dial-back it is over before HELLO.
    ///
    /// # Cancel safety
    /// Dropped midway, the link is closed without a word and the attempt used up.
    pub(crate) async fn attach(&self, attempts: &mut Attempts, base: &Hello, has: u64) -> Result<Attached, Setback> {
        let attached = async {
            let _attempt = self.attempt.lock().await;
            let reached = timeout(REACH_WITHIN, self.reach());
            let (mut link, protocol) = reached.await.unwrap_or_else(|_| Err(too_late()))?;
            if protocol == Protocol::Dialback {
                return Ok(Attached::Dialback(ControlLink::new(link)));
            }
            let offer = establish::offer(&mut link, attempts, base, has, WELCOME_WITHIN);
            let (welcome, welcomed, has) = offer.await.map_err(Setback::by_establish)?;
            Ok(Attached::Native(Welcoming { link, welcome, welcomed, has }))
        };
        attached.await.inspect_err(|setback: &Setback| {
            metrics::record_agent_connect_failure(setback.error.kind().as_str());
        })
    }

    async fn reach(&self) -> Result<(MessageLink, Protocol), Setback> {
        let (reached, headers) = self.open(&self.config.uri).await?;
        upgrade(reached, &self.config.uri, headers, (self.config.http, self.config.protocol)).await
    }

    async fn open(&self, uri: &Uri) -> Result<(Reached, HeaderMap), Setback> {
        let token = caught("the token source panicked", self.config.token.ask()).await?;
        caught("the connector panicked", open(&self.connector, uri, token)).await?
    }

    /// Brings the connection that a dial-back server has asked for by this path.
    ///
    /// # Cancel safety
    /// Dropped midway, the connection is closed without a word.
    pub(crate) async fn pick_up(&self, path: &str) -> Result<ByteLink, Setback> {
        let uri = pickup_uri(&self.config.uri, path).map_err(|why| {
            metrics::record_path_rejected();
            Setback::caused(ErrorKind::Protocol, Retry::Never, "the server named a path that is not dialled", why)
        })?;
        let picked_up = async {
            let (reached, headers) = self.open(&uri).await?;
            let opening = opening(self.config.http, &reached);
            match link::pick_up(reached.io, opening, &uri, headers).await {
                Ok(Ok(link)) => Ok(link),
                Ok(Err(Refused { status, headers, body })) => {
                    Err(Setback::by_status(status, &headers, &body, SystemTime::now()))
                }
                Err(error) => Err(failed(error)),
            }
        };
        timeout(REACH_WITHIN, picked_up).await.unwrap_or_else(|_| Err(too_late()))
    }
}

fn too_late() -> Setback {
    Setback::new(ErrorKind::Handshake, Retry::Backoff, "the server did not answer in time")
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

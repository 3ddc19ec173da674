//! How the server is reached: the caller's connector, the credentials, the upgrade, HELLO and WELCOME, and what a
//! refusal means.

use std::{error::Error as StdError, fmt, future::poll_fn, panic::AssertUnwindSafe, pin::Pin, time::Duration};

use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Uri, header};
use hyper_util::client::legacy::connect::HttpConnector;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use tower_service::Service;

use super::{
    config::Config,
    refusal::{Retry, Setback},
};
use crate::{
    error::ErrorKind,
    frame::{Hello, MAX_MESSAGE, Welcome},
    key::AgentKey,
    link::{Handshake, MessageLink, connect},
    metrics,
    mux::establish,
    proto::{Attempts, SessionConfig, Welcomed},
};

/// How long the token, the connect and the upgrade may take together.
const REACH_WITHIN: Duration = Duration::from_secs(20);

/// How long WELCOME may take.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);

/// Any error.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// A boxed future that is bound to `'a`.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A byte stream to the server, of whatever type the connector gives.
pub(crate) trait ServerIo: hyper::rt::Read + hyper::rt::Write + Send + Unpin {}

impl<I: hyper::rt::Read + hyper::rt::Write + Send + Unpin> ServerIo for I {}

/// A connector without its type.
pub(crate) trait Connect: Send {
    /// A new byte stream to the host of `uri`.
    fn connect(&mut self, uri: Uri) -> BoxFuture<'_, Result<Box<dyn ServerIo>, BoxError>>;
}

/// Any `Service<Uri>` as a [`Connect`].
pub(crate) struct Connector<C>(pub(crate) C);

impl<C> Connect for Connector<C>
where
    C: Service<Uri> + Send,
    C::Response: ServerIo + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
{
    fn connect(&mut self, uri: Uri) -> BoxFuture<'_, Result<Box<dyn ServerIo>, BoxError>> {
        Box::pin(async move {
            poll_fn(|cx| self.0.poll_ready(cx)).await.map_err(Into::into)?;
            let io = self.0.call(uri).await.map_err(Into::into)?;
            Ok(Box::new(io) as Box<dyn ServerIo>)
        })
    }
}

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

/// The connector for plain TCP. TCP_NODELAY, since a frame must not wait for the ack of the one before.
pub(crate) fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    tcp
}

/// Reaches the server, asks for the upgrade, and gives the WebSocket.
async fn reach(
    connector: &mut dyn Connect,
    uri: &Uri,
    token: Result<SecretString, BoxError>,
) -> Result<MessageLink, Setback> {
    let token = token.map_err(|error| no_token("the token cannot be had", error))?;
    let bearer =
        bearer(&token).map_err(|error| no_token("the token has a character that no header can have", error))?;
    let io = connector.connect(uri.clone()).await.map_err(unreachable)?;
    let headers = HeaderMap::from_iter([(header::AUTHORIZATION, bearer)]);
    match connect(io, uri, headers, MAX_MESSAGE).await {
        Ok(Handshake::Native(link)) => Ok(link),
        Ok(Handshake::Dialback) => {
            let what = "the server chose no subprotocol that this agent speaks, which is revdial.v1";
            Err(Setback::new(ErrorKind::Version, Retry::Slow, what))
        }
        Ok(Handshake::Refused { status, headers, body }) => Err(Setback::by_status(status, &headers, &body)),
        Err(error) => Err(Setback::caused(ErrorKind::Handshake, Retry::Backoff, "the upgrade failed", error)),
    }
}

/// The value of `Authorization`; its `Debug` shows nothing of the token.
pub(crate) fn bearer(token: &SecretString) -> Result<HeaderValue, header::InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Nothing of it went to the server, so that trying sooner than after a refusal harms nobody.
fn no_token(what: &str, error: impl Into<BoxError>) -> Setback {
    Setback::caused(ErrorKind::Auth, Retry::Backoff, what, error)
}

/// A failed connect: slow if the server's TLS is not valid, since only its operator can mend that.
fn unreachable(error: BoxError) -> Setback {
    #[cfg(feature = "tls")]
    if super::tls::is_tls(error.as_ref()) {
        return Setback::caused(ErrorKind::Tls, Retry::Slow, "the server's TLS is not valid", error);
    }
    Setback::caused(ErrorKind::Handshake, Retry::Backoff, "the server cannot be reached", error)
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}

impl fmt::Debug for dyn Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

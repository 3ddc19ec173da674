//! One attempt to attach, from the token to WELCOME: one at a time, for all sessions of an agent.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use http::{HeaderMap, Uri};
use tokio::{sync::Mutex, time::timeout};
use tracing::warn;

use super::{
    choices::{HttpVersion, ProtocolChoice},
    config::Config,
    connect::{BoxError, Connect, Reached, ServerIo, credentials, failed, granted, is_not_offered, open, refused},
    refusal::{Retry, Setback},
    token::{Token, named},
};
use crate::{
    callback::{self, Failed},
    dialback::{ControlLink, pickup_uri},
    error::ErrorKind,
    frame::{Hello, Welcome},
    key::AgentKey,
    link::{self, ByteLink, MessageLink, Opening, Protocol, connect},
    metrics,
    mux::establish,
    proto::{Attempts, SessionConfig, Welcomed},
    spans::SessionSpan,
};

/// How long the token, the connect and the upgrade may take together, of a link and of a pick-up.
const REACH_WITHIN: Duration = Duration::from_secs(20);

/// How long a token may take, of that.
const TOKEN_WITHIN: Duration = Duration::from_secs(10);

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
    /// Whether the server is asked by HTTP/1.1 at once: the last attempt went well by that, and not by HTTP/2, which is
    /// set. Only [`attach`](Self::attach) writes it: one pick-up that fails is no news for all others.
    fallen_back: AtomicBool,
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

/// An answer of the server's, and over which HTTP it came.
type Asked<T> = Result<(T, HttpVersion), Setback>;

impl Server {
    /// The server that these settings name.
    pub(crate) fn new(config: Config, connector: Box<dyn Connect>) -> Self {
        Self {
            config,
            attempt: Mutex::new(()),
            connector: Mutex::new(connector),
            sessions: AtomicU64::new(0),
            fallen_back: AtomicBool::new(false),
        }
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
        let _attempt = self.attempt.lock().await;
        let attached = self.try_to_attach(attempts, base, has).await;
        // Whatever failed, the server may be another one the next time.
        let over = attached.as_ref().map_or(self.config.http, |(_, over)| *over);
        self.fallen_back.store(over != self.config.http, Ordering::Relaxed);
        attached.map(|(attached, _)| attached).inspect_err(|setback| {
            metrics::record_agent_connect_failure(setback.error.kind().as_str());
        })
    }

    async fn try_to_attach(&self, attempts: &mut Attempts, base: &Hello, has: u64) -> Asked<Attached> {
        let reached = timeout(REACH_WITHIN, self.reach()).await.unwrap_or_else(|_| Err(too_late()));
        let ((mut link, protocol), over) = reached?;
        if protocol == Protocol::Dialback {
            return Ok((Attached::Dialback(ControlLink::new(link)), over));
        }
        let offer = establish::offer(&mut link, attempts, base, has, WELCOME_WITHIN);
        let (welcome, welcomed, has) = offer.await.map_err(Setback::by_establish)?;
        Ok((Attached::Native(Welcoming { link, welcome, welcomed, has }), over))
    }

    async fn reach(&self) -> Asked<(MessageLink, Protocol)> {
        let (uri, choice) = (&self.config.uri, self.config.protocol);
        let offer = choice != ProtocolChoice::Dialback;
        let asked = self.ask(uri, |io, opening, headers| connect(io, opening, uri, headers, offer));
        let (handshake, over) = asked.await?;
        Ok((granted(handshake, choice)?, over))
    }

    /// Reaches the server and asks it for a WebSocket, over the HTTP that both of them speak: see [`HttpVersion::Http2`].
    async fn ask<T, A>(&self, uri: &Uri, ask: impl Fn(Box<dyn ServerIo>, Opening, HeaderMap) -> A) -> Asked<T>
    where
        A: Future<Output = Result<T, BoxError>>,
    {
        let headers = self.credentials().await?;
        match self.version() {
            HttpVersion::Http1 => self.ask_by_http1(uri, headers, ask).await,
            HttpVersion::Http2 => self.ask_by_http2(uri, headers, ask).await,
        }
    }

    async fn credentials(&self) -> Result<HeaderMap, Setback> {
        let token = self.config.token.ask();
        let token = match &self.config.token {
            // A slow disk is no fault of a callback's.
            Token::File(path, _) => timeout(TOKEN_WITHIN, callback::ask(token))
                .await
                .unwrap_or_else(|_| Ok(Err(named(path, "could not be read in time")))),
            _ => callback::ask_within(TOKEN_WITHIN, token).await,
        };
        credentials(token.map_err(|failed| failed_callback("token source", failed))?)
    }

    async fn ask_by_http1<T, A>(
        &self,
        uri: &Uri,
        headers: HeaderMap,
        ask: impl Fn(Box<dyn ServerIo>, Opening, HeaderMap) -> A,
    ) -> Asked<T>
    where
        A: Future<Output = Result<T, BoxError>>,
    {
        let reached = self.open(uri, HttpVersion::Http1).await?;
        let answer = ask(reached.io, Opening::Upgrade, headers).await.map_err(failed)?;
        Ok((answer, HttpVersion::Http1))
    }

    async fn ask_by_http2<T, A>(
        &self,
        uri: &Uri,
        headers: HeaderMap,
        ask: impl Fn(Box<dyn ServerIo>, Opening, HeaderMap) -> A,
    ) -> Asked<T>
    where
        A: Future<Output = Result<T, BoxError>>,
    {
        let Reached { io, http2 } = self.open(uri, HttpVersion::Http2).await?;
        if http2 == Some(false) {
            self.tell_fallback("its TLS did not agree on that");
            let answer = ask(io, Opening::Upgrade, headers).await.map_err(failed)?;
            return Ok((answer, HttpVersion::Http1));
        }
        match ask(io, Opening::Connect, headers.clone()).await {
            Err(error) if http2 == Some(true) && is_not_offered(&error) => {
                self.tell_fallback("it takes no WebSocket over that");
                match self.ask_by_http1(uri, headers, ask).await {
                    // It speaks nothing but HTTP/2, and so this is what is wrong.
                    Err(setback) if setback.error.kind() == ErrorKind::Tls => Err(failed(error)),
                    asked => asked,
                }
            }
            asked => Ok((asked.map_err(failed)?, HttpVersion::Http2)),
        }
    }

    /// Over which version the server is asked first.
    fn version(&self) -> HttpVersion {
        if self.fallen_back.load(Ordering::Relaxed) { HttpVersion::Http1 } else { self.config.http }
    }

    fn tell_fallback(&self, why: &str) {
        warn!(key = %self.key(), why, "the server is asked by HTTP/1.1, and not by HTTP/2, which this agent is set to");
    }

    async fn open(&self, uri: &Uri, version: HttpVersion) -> Result<Reached, Setback> {
        let opened = callback::ask(open(&self.connector, uri, version)).await;
        opened.map_err(|failed| failed_callback("connector", failed))?
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
            let asked = self.ask(&uri, |io, opening, headers| link::pick_up(io, opening, &uri, headers));
            let (answer, _) = asked.await?;
            answer.map_err(|answer| refused(&answer))
        };
        timeout(REACH_WITHIN, picked_up).await.unwrap_or_else(|_| Err(too_late()))
    }
}

fn too_late() -> Setback {
    Setback::new(ErrorKind::Handshake, Retry::Backoff, "the server did not answer in time")
}

/// That a callback of this name failed is a failed attempt, not the end of the agent.
fn failed_callback(name: &'static str, failed: Failed) -> Setback {
    let how = match failed {
        Failed::Panicked => "panicked",
        Failed::TimedOut => "did not answer in time",
    };
    callback::tell(name, how);
    Setback::new(ErrorKind::Internal, Retry::Backoff, format!("the {name} {how}"))
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

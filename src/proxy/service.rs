//! The proxy itself: sends a request to a target through pooled connections, and answers failures.

use std::{
    convert::Infallible,
    error::Error as StdError,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::capture_connection},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::Instant;
use tower_service::Service;
use tracing::{debug, warn};

use super::{
    body::ProxyBody,
    builder::{ProxyBuilder, Settings},
    expect::{Answered, Outgoing},
    extensions::{Destination, MaxWait},
    head::{self, Length},
    pool, status,
    upgrade::{self, Wanted},
};
use crate::{
    connector::RevDialConnector,
    connman::ConnectionManager,
    error::{Error, ErrorKind},
    key::{AgentKey, Epoch, TargetName},
    metrics,
};

/// What hyper takes as the error of a body.
pub(super) type BoxError = Box<dyn StdError + Send + Sync>;

/// How much of an error's text is logged, in characters: peers have a say in it.
const MAX_LOGGED: usize = 500;

/// Streams HTTP requests to targets behind agents, and the responses back; see [the module](crate::proxy).
///
/// `B` is the type of the requests' bodies: `axum::body::Body` in axum, [`Incoming`] in plain hyper. Cheap to clone;
/// clones share one pool.
///
/// Needs a tokio runtime with its timer on, where it starts a task for each connection.
pub struct Proxy<B> {
    inner: Arc<Inner<B>>,
}

struct Inner<B> {
    client: Client<RevDialConnector, Outgoing<B>>,
    /// For requests that say how long they wait, and have done so: its dials do not.
    hasty: Client<RevDialConnector, Outgoing<B>>,
    connman: ConnectionManager,
    settings: Settings,
}

impl Proxy<()> {
    /// Settings for a proxy through the tunnels of this connection manager.
    pub fn builder(connman: ConnectionManager) -> ProxyBuilder {
        ProxyBuilder::new(connman)
    }
}

impl<B> Proxy<B>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    /// A proxy with every default; see [`Proxy::builder`].
    #[must_use]
    pub fn new(connman: ConnectionManager) -> Self {
        ProxyBuilder::new(connman).build()
    }

    pub(super) fn with(connman: ConnectionManager, settings: Settings) -> Self {
        let connector = RevDialConnector::new(connman.clone()).early_data(settings.early_data).map_uri(pool::target_of);
        let connector = match settings.dial_timeout {
            Some(timeout) => connector.timeout(timeout),
            None => connector,
        };
        let client = |connector| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(settings.idle_timeout)
                .pool_max_idle_per_host(settings.max_idle)
                .set_host(false)
                .build(connector)
        };
        let (client, hasty) = (client(connector.clone()), client(connector.max_wait(Duration::ZERO)));
        Self { inner: Arc::new(Inner { client, hasty, connman, settings }) }
    }

    /// Sends a request to a target and gives its response, or the answer that its failure deserves. A [`MaxWait`] in the
    /// request's extensions bounds the wait for its agent.
    ///
    /// # Cancel safety
    /// Dropping the future, or the body of the response, gives the request up: the service is told at once.
    pub async fn forward(&self, key: &AgentKey, target: &TargetName, request: Request<B>) -> Response<ProxyBody> {
        match self.try_forward(key, target, request).await {
            Ok(response) => response,
            Err(error) => {
                log(key, target, &error);
                self.answer(&error)
            }
        }
    }

    /// As [`forward`](Self::forward), for callers that answer failures in their own way.
    ///
    /// # Errors
    /// Those of a [`Dial`](crate::connman::Dial) and those of a stream; besides
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a request that is not forwarded,
    /// [`Cancelled`](ErrorKind::Cancelled) when the body of the request failed, and
    /// [`PeerReset`](ErrorKind::PeerReset) when the service closed before it answered, or answered no HTTP.
    pub async fn try_forward(
        &self,
        key: &AgentKey,
        target: &TargetName,
        request: Request<B>,
    ) -> Result<Response<ProxyBody>, Error> {
        let (mut parts, body) = request.into_parts();
        let wait = parts.extensions.remove::<MaxWait>();
        let until = wait.and_then(|MaxWait(most)| Instant::now().checked_add(most));
        let upgrade = Wanted::take(&mut parts)?;
        head::request(&mut parts, &self.inner.settings, (key, target), upgrade.is_some(), length(&body))?;
        let (request, answered) = Outgoing::request(Request::from_parts(parts, body));

        self.there(key, until).await?;
        let (response, upgrade) = match upgrade {
            Some(upgrade) => (self.send_upgrade(key, target, request, until).await?, Some(upgrade)),
            None => (self.send(key, target, request, until).await?, None),
        };
        match (response.status(), upgrade) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(upgrade)) => upgrade.switch(key, response),
            (StatusCode::SWITCHING_PROTOCOLS, None) => {
                Err(Error::with_source(ErrorKind::PeerReset, "the service switches protocols unasked"))
            }
            (status, Some(upgrade)) if upgrade.is_taken_for_granted(status) => {
                Err(Error::with_source(ErrorKind::PeerReset, "the service takes no WebSocket and calls that success"))
            }
            _ => Ok(respond(response, answered)),
        }
    }

    /// The answer to an error, as [`forward`](Self::forward) gives it: a status, the kind as text and, with a 503,
    /// `Retry-After`.
    #[must_use]
    pub fn answer(&self, error: &Error) -> Response<ProxyBody> {
        status::answer(error, self.inner.settings.absent)
    }

    /// Waits for the agent, if the request says for how long. The pool's dial, which knows of no request, then finds it.
    async fn there(&self, key: &AgentKey, until: Option<Instant>) -> Result<(), Error> {
        match until {
            Some(until) => {
                let start = Instant::now();
                let there = self.inner.connman.wait_for(key).max_wait(left(until)).await;
                there.inspect_err(|error| metrics::record_failed_wait(error.kind(), start.elapsed()))
            }
            None => Ok(()),
        }
    }

    /// By a pooled connection; and by a new one, once, if a session has ended under a request that may be repeated.
    async fn send(
        &self,
        key: &AgentKey,
        target: &TargetName,
        request: Request<Outgoing<B>>,
        until: Option<Instant>,
    ) -> Result<Response<Incoming>, Error> {
        let again = repeatable(&request);
        let client = if until.is_some() { &self.inner.hasty } else { &self.inner.client };
        match (self.send_in(client, self.inner.connman.serial(key), (key, target), request).await, again) {
            (Err(error), Some(again)) if matches!(error.kind(), ErrorKind::SessionLost | ErrorKind::Replaced) => {
                debug!(%key, %target, kind = error.kind().as_str(), "a request is repeated");
                self.there(key, until).await?;
                // In the name of no session, where nothing is pooled: another connection of the one that was lost may
                // not know of its end yet.
                self.send_in(client, None, (key, target), again).await
            }
            (result, _) => result,
        }
    }

    /// By a connection that is pooled under this session's name.
    async fn send_in(
        &self,
        client: &Client<RevDialConnector, Outgoing<B>>,
        epoch: Option<Epoch>,
        (key, target): (&AgentKey, &TargetName),
        mut request: Request<Outgoing<B>>,
    ) -> Result<Response<Incoming>, Error> {
        *request.uri_mut() = head::uri(request.uri(), pool::authority(epoch, key, target)?)?;
        let connection = capture_connection(&mut request);
        let response = client.request(request).await.map_err(|error| {
            let dialled = !error.is_connect();
            failed(status::error_of(error), dialled)
        })?;
        // The dial waited, or met a newer session: then the connection stands under the wrong name, where it could
        // outlive what it belongs to. The pool has it already, perhaps, but gives no poisoned one away.
        if self.inner.connman.serial(key) != epoch
            && let Some(connected) = &*connection.connection_metadata()
        {
            connected.poison();
        }
        Ok(response)
    }

    /// By a stream of its own.
    async fn send_upgrade(
        &self,
        key: &AgentKey,
        target: &TargetName,
        mut request: Request<Outgoing<B>>,
        until: Option<Instant>,
    ) -> Result<Response<Incoming>, Error> {
        let Settings { early_data, dial_timeout, .. } = self.inner.settings;
        *request.uri_mut() = head::origin_form(request.uri())?;
        let dial = self.inner.connman.dial(key, target).early_data(early_data);
        let dial = match dial_timeout {
            Some(timeout) => dial.timeout(timeout),
            None => dial,
        };
        let dial = match until {
            Some(until) => dial.max_wait(left(until)),
            None => dial,
        };
        let stream = dial.await?;
        upgrade::send(stream, request).await.map_err(|error| failed(error, true))
    }
}

/// What is left of a time to wait.
fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// Counts a refusal, or that no answer came in time, if the dial had ended well: with early data it does not wait for the
/// answer.
fn failed(error: Error, dialled: bool) -> Error {
    use ErrorKind as K;
    let kind = error.kind();
    let refused = matches!(kind, K::TargetUnknown | K::TargetDenied | K::TargetRefused | K::TargetTimeout);
    if dialled && (refused || matches!(kind, K::Overloaded | K::DialTimeout)) {
        metrics::record_dial_failure(kind);
    }
    error
}

/// The same request once more, if it has no body and asks for nothing that twice would be more than once.
fn repeatable<B>(request: &Request<Outgoing<B>>) -> Option<Request<Outgoing<B>>>
where
    B: Body<Error: Into<BoxError>> + Unpin,
{
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !is_safe || !request.body().is_end_stream() {
        return None;
    }
    let mut again = Request::new(Outgoing::empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

fn length<B: Body>(body: &B) -> Length {
    if body.is_end_stream() || body.size_hint().exact().is_some() { Length::Known } else { Length::Unknown }
}

fn respond(mut response: Response<Incoming>, answered: Option<Answered>) -> Response<ProxyBody> {
    head::response(response.headers_mut());
    response.map(|body| ProxyBody::remote(body, answered))
}

fn log(key: &AgentKey, target: &TargetName, error: &Error) {
    use ErrorKind as K;
    // `Debug` escapes what a peer said.
    let text: String = format!("{error:?}").chars().take(MAX_LOGGED).collect();
    let kind = error.kind().as_str();
    match error.kind() {
        K::SessionLost | K::Replaced | K::Protocol | K::Overloaded | K::TooManyPendingDials | K::Internal => {
            warn!(%key, %target, kind, error = text, "a request failed");
        }
        _ => debug!(%key, %target, kind, error = text, "a request failed"),
    }
}

/// Forwards to the [`Destination`] in the request's extensions. Without one, which is a fault of the host's, the answer
/// is 500.
impl<B> Service<Request<B>> for Proxy<B>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = Forwarding;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(())) // what may wait is bounded by the connection manager
    }

    fn call(&mut self, mut request: Request<B>) -> Forwarding {
        let proxy = self.clone();
        Forwarding(Box::pin(async move {
            match request.extensions_mut().remove::<Destination>() {
                Some(Destination { key, target }) => proxy.forward(&key, &target, request).await,
                None => {
                    warn!("a request came to a proxy without a destination");
                    proxy.answer(&ErrorKind::Internal.into())
                }
            }
        }))
    }
}

/// The future of [`Proxy`] as a service. `Unpin` and `Send`.
///
/// # Cancel safety
/// As [`Proxy::forward`].
#[must_use = "futures do nothing unless polled"]
pub struct Forwarding(Pin<Box<dyn Future<Output = Response<ProxyBody>> + Send>>);

impl Future for Forwarding {
    type Output = Result<Response<ProxyBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarding").finish_non_exhaustive()
    }
}

impl<B> Clone for Proxy<B> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<B> fmt::Debug for Proxy<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("connman", &self.inner.connman)
            .field("settings", &self.inner.settings)
            .finish_non_exhaustive()
    }
}

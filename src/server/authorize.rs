//! Who may open a tunnel, and under which key: a request's parts to a grant or a rejection.

use std::{fmt, future::Future, net::SocketAddr, time::Duration};

use http::{HeaderValue, Response, StatusCode, header, request::Parts};

use super::route::BadKey;
use crate::{
    key::{AgentKey, InvalidName},
    metrics,
};

/// Decides who may open a tunnel. There is no layer without one.
///
/// Key and principal of the [`Grant`] have to come from the same verified object: a token, a certificate, a session
/// of the host's. [`requested_key`](crate::server::requested_key) reads the key that the agent asks for.
///
/// A closure `Fn(&Parts) -> Result<Grant, Rejection>` is one; whoever has to ask a database implements the trait,
/// with an `async fn`. Ready-made are [`KeyedBearer`](crate::server::KeyedBearer) and
/// [`SharedBearer`](crate::server::SharedBearer).
///
/// ```
/// use http::request::Parts;
/// use revdial::server::{Authorize, Grant, Rejection, requested_key};
///
/// struct Directory;
///
/// impl Authorize for Directory {
///     async fn authorize(&self, parts: &Parts) -> Result<Grant, Rejection> {
///         let Some(user) = parts.headers.get("x-verified-user").and_then(|user| user.to_str().ok()) else {
///             return Err(Rejection::unauthorized());
///         };
///         Ok(Grant::new(requested_key(parts)?, user))
///     }
/// }
/// ```
///
/// # When it runs
/// Once for each request on the tunnel's path that is a WebSocket upgrade, on the task that serves the request, and
/// before the upgrade is answered. It must not block. One that panics costs its request a 500, one that takes longer
/// than the layer's handshake timeout a 503; nothing else is touched.
///
/// # Cancel safety
/// The future is dropped at the timeout, and when the agent goes away.
pub trait Authorize: Send + Sync + 'static {
    /// Judges one request. Its extensions are those that the host's server and outer layers have set.
    fn authorize(&self, parts: &Parts) -> impl Future<Output = Result<Grant, Rejection>> + Send;
}

impl<F> Authorize for F
where
    F: Fn(&Parts) -> Result<Grant, Rejection> + Send + Sync + 'static,
{
    fn authorize(&self, parts: &Parts) -> impl Future<Output = Result<Grant, Rejection>> + Send {
        std::future::ready(self(parts))
    }
}

/// The leave to open a tunnel: under which key, and on whose behalf.
///
/// ```
/// use std::time::Duration;
/// use revdial::server::Grant;
///
/// let grant = Grant::new("desktop-7".parse()?, "alice").expires_in(Duration::from_secs(3600));
/// assert_eq!((grant.key().as_str(), grant.principal()), ("desktop-7", "alice"));
/// # Ok::<(), revdial::InvalidName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    key: AgentKey,
    principal: String,
    lifetime: Option<Duration>,
    peer_addr: Option<SocketAddr>,
}

impl Grant {
    /// A grant without end. Two agents with one key are taken for the same if `principal` is equal, and the second
    /// is refused if not.
    #[must_use]
    pub fn new(key: AgentKey, principal: impl Into<String>) -> Self {
        Self { key, principal: principal.into(), lifetime: None, peer_addr: None }
    }

    /// Closes the tunnel with 4401 this long after it was granted, so that the agent comes back with new
    /// credentials. Zero grants nothing: the answer is 401.
    #[must_use]
    pub fn expires_in(self, lifetime: Duration) -> Self {
        Self { lifetime: Some(lifetime), ..self }
    }

    /// Where the agent connects from, for lists and logs; only the host's server knows (axum's is in the extension
    /// `ConnectInfo`).
    #[must_use]
    pub fn peer_addr(self, addr: SocketAddr) -> Self {
        Self { peer_addr: Some(addr), ..self }
    }

    /// The key under which the tunnel is registered.
    #[must_use]
    pub fn key(&self) -> &AgentKey {
        &self.key
    }

    /// On whose behalf.
    #[must_use]
    pub fn principal(&self) -> &str {
        &self.principal
    }

    pub(crate) fn lifetime(&self) -> Option<Duration> {
        self.lifetime
    }

    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.peer_addr
    }
}

/// Why a tunnel is not granted, and so with which status the request is answered. The answer's body is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    cause: Cause,
    retry_after: Option<Duration>,
}

/// What a rejection stands for: a status and a metric each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    NoCredentials,
    Credentials,
    Origin,
    Rate,
    Key(BadKey),
    Denied,
    Overload(&'static str),
    Panic,
    Timeout,
}

impl Rejection {
    const fn new(cause: Cause) -> Self {
        Self { cause, retry_after: None }
    }

    /// 401 with `WWW-Authenticate: Bearer`: credentials that do not prove anything.
    #[must_use]
    pub const fn unauthorized() -> Self {
        Self::new(Cause::Credentials)
    }

    /// As [`unauthorized`](Self::unauthorized), told apart in the metrics: there are no credentials at all.
    pub(crate) const fn no_credentials() -> Self {
        Self::new(Cause::NoCredentials)
    }

    /// 400: the request names no key, or none that can be.
    #[must_use]
    pub fn bad_key(why: impl Into<BadKey>) -> Self {
        Self::new(Cause::Key(why.into()))
    }

    /// 403: credentials that do not allow this key.
    #[must_use]
    pub const fn forbidden() -> Self {
        Self::new(Cause::Denied)
    }

    /// 429 with `Retry-After`: too many failed attempts from there.
    #[must_use]
    pub const fn too_many_attempts(retry_after: Duration) -> Self {
        Self { cause: Cause::Rate, retry_after: Some(retry_after) }
    }

    /// 503 with `Retry-After`: nothing against the request, but not now.
    #[must_use]
    pub const fn unavailable(retry_after: Duration) -> Self {
        Self { cause: Cause::Overload("authorize"), retry_after: Some(retry_after) }
    }

    pub(crate) const fn origin() -> Self {
        Self::new(Cause::Origin)
    }

    pub(crate) const fn too_many_handshakes(retry_after: Duration) -> Self {
        Self { cause: Cause::Overload("handshakes"), retry_after: Some(retry_after) }
    }

    pub(crate) const fn panicked() -> Self {
        Self::new(Cause::Panic)
    }

    pub(crate) const fn timed_out(retry_after: Duration) -> Self {
        Self { cause: Cause::Timeout, retry_after: Some(retry_after) }
    }

    /// The status of the answer.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self.cause {
            Cause::NoCredentials | Cause::Credentials => StatusCode::UNAUTHORIZED,
            Cause::Origin | Cause::Denied => StatusCode::FORBIDDEN,
            Cause::Rate => StatusCode::TOO_MANY_REQUESTS,
            Cause::Key(_) => StatusCode::BAD_REQUEST,
            Cause::Overload(_) | Cause::Timeout => StatusCode::SERVICE_UNAVAILABLE,
            Cause::Panic => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Counts it in the metric of its cause and tells it in the log, once.
    pub(crate) fn report(&self) {
        match self.cause {
            Cause::NoCredentials => metrics::record_auth_failure("missing"),
            Cause::Credentials => metrics::record_auth_failure("credentials"),
            Cause::Origin => metrics::record_auth_failure("origin"),
            Cause::Rate => metrics::record_auth_failure("rate"),
            Cause::Key(_) => metrics::record_handshake_rejected("key"),
            Cause::Denied => metrics::record_key_conflict("denied"),
            Cause::Overload(what) => metrics::record_overload(what),
            Cause::Panic | Cause::Timeout => metrics::record_callback_failure(),
        }
        match self.cause {
            Cause::Panic | Cause::Timeout => {
                tracing::error!(status = self.status().as_u16(), reason = %self, "tunnel refused")
            }
            _ => tracing::info!(status = self.status().as_u16(), reason = %self, "tunnel refused"),
        }
    }

    pub(crate) fn response<B: Default>(&self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = self.status();
        if self.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0)).max(1);
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::NoCredentials => f.write_str("authentication required"),
            Cause::Credentials => f.write_str("wrong credentials"),
            Cause::Origin => f.write_str("the origin is not allowed"),
            Cause::Rate => f.write_str("too many failed attempts"),
            Cause::Key(why) => why.fmt(f),
            Cause::Denied => f.write_str("key not permitted"),
            Cause::Overload(what) => write!(f, "overloaded: {what}"),
            Cause::Panic => f.write_str("the authorization panicked"),
            Cause::Timeout => f.write_str("the authorization took too long"),
        }
    }
}

impl std::error::Error for Rejection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Key(BadKey::Invalid(invalid)) => Some(invalid),
            _ => None,
        }
    }
}

impl From<BadKey> for Rejection {
    fn from(why: BadKey) -> Self {
        Self::bad_key(why)
    }
}

impl From<InvalidName> for Rejection {
    fn from(why: InvalidName) -> Self {
        Self::bad_key(why)
    }
}

//! Why a tunnel is not granted: the status, the metric and the words of each cause.

use std::{fmt, time::Duration};

use http::{HeaderValue, Response, StatusCode, header};

use super::route::BadKey;
use crate::{callback::Failed, key::InvalidName, metrics};

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
    /// What the host gave has failed: what it is.
    Callback(&'static str, Failed),
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

    /// One of this side's limits is reached.
    pub(crate) const fn overloaded(limit: &'static str, retry_after: Duration) -> Self {
        Self { cause: Cause::Overload(limit), retry_after: Some(retry_after) }
    }

    pub(super) const fn failed(callback: &'static str, failed: Failed) -> Self {
        Self::new(Cause::Callback(callback, failed))
    }

    /// The status of the answer.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self.cause {
            Cause::NoCredentials | Cause::Credentials => StatusCode::UNAUTHORIZED,
            Cause::Origin | Cause::Denied => StatusCode::FORBIDDEN,
            Cause::Rate => StatusCode::TOO_MANY_REQUESTS,
            Cause::Key(_) => StatusCode::BAD_REQUEST,
            Cause::Overload(_) => StatusCode::SERVICE_UNAVAILABLE,
            Cause::Callback(_, Failed::TimedOut) => StatusCode::REQUEST_TIMEOUT,
            Cause::Callback(_, Failed::Panicked) => StatusCode::INTERNAL_SERVER_ERROR,
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
            Cause::Callback(_, Failed::TimedOut) => metrics::record_handshake_timeout(),
            Cause::Callback(_, Failed::Panicked) => {} // counted as the failure of a callback
        }
        let status = self.status().as_u16();
        match self.cause {
            Cause::Callback(..) => tracing::error!(status, reason = %self, "tunnel refused"),
            _ => tracing::info!(status, reason = %self, "tunnel refused"),
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
            Cause::Callback(what, failed) => write!(f, "the {what} {failed}"),
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

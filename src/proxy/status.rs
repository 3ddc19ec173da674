//! What an error is to an HTTP client.

use std::{error::Error as StdError, fmt};

use http::{HeaderValue, Method, Response, StatusCode, header};

use super::body::ProxyBody;
use crate::{
    connman::Gone,
    error::{Blame, Error, ErrorKind},
};

/// When a client that met an agent's absence, or too much of a load, may ask again, in seconds.
const RETRY_AFTER: &str = "1";

/// What may follow in an `Allow`.
const ALLOWED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE";

/// The status that a kind of error is answered with.
///
/// | kind | status |
/// |---|---|
/// | `NoConnection`, `ReconnectTimeout`, `TooManyPendingDials`, `Overloaded`, `Shutdown` | 503, with `Retry-After` |
/// | `DialTimeout`, `TargetTimeout` | 504 |
/// | `InvalidInput`, `Cancelled` | 400 |
/// | `Internal` | 500 |
/// | any other | 502 |
///
/// `NoConnection` of a key that was never connected is 404 where a proxy is
/// [told so](super::ProxyBuilder::absent_is_not_found); of one that is [gone](Gone) it is 503 all the same.
///
/// ```
/// use revdial::{ErrorKind, proxy::status_of};
///
/// assert_eq!(status_of(ErrorKind::NoConnection), 503);
/// assert_eq!(status_of(ErrorKind::TargetRefused), 502);
/// ```
#[must_use]
pub const fn status_of(kind: ErrorKind) -> StatusCode {
    use ErrorKind as K;
    match kind {
        K::NoConnection | K::ReconnectTimeout | K::TooManyPendingDials => StatusCode::SERVICE_UNAVAILABLE,
        K::Overloaded | K::Shutdown => StatusCode::SERVICE_UNAVAILABLE,
        K::DialTimeout | K::TargetTimeout => StatusCode::GATEWAY_TIMEOUT,
        K::InvalidInput | K::Cancelled => StatusCode::BAD_REQUEST,
        K::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        K::TargetUnknown | K::TargetDenied | K::TargetRefused | K::PeerReset => StatusCode::BAD_GATEWAY,
        K::SessionLost | K::Replaced | K::Protocol => StatusCode::BAD_GATEWAY,
        // None of them is met on the way to a target.
        K::Auth | K::Forbidden | K::KeyInUse | K::Version | K::Handshake | K::Tls => StatusCode::BAD_GATEWAY,
    }
}

/// The answer to an error; `absent` is the status for a key that was never there.
pub(super) fn answer(error: &Error, absent: StatusCode) -> Response<ProxyBody> {
    let refused = error.source().and_then(|source| source.downcast_ref::<Refused>());
    let status = match (refused, error.kind()) {
        (Some(refused), _) => refused.status(),
        (None, ErrorKind::NoConnection) if Gone::find(error).is_none() => absent,
        (None, kind) => status_of(kind),
    };
    let mut response = Response::new(ProxyBody::text(error.kind().as_str()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static(ALLOWED));
    }
    response
}

/// A failure of hyper's, or of its client, as one of ours: of the kind that the stream below gave as the cause, if it
/// was that.
pub(super) fn error_of(error: impl StdError + Send + Sync + 'static) -> Error {
    let (kind, blame, safe) = match Error::find(&error) {
        Some(ours) => (ours.kind(), ours.blame(), ours.is_retry_safe()),
        None if is_the_callers(&error) => (ErrorKind::Cancelled, Blame::Caller, false),
        // The service speaks no HTTP, or closed in the midst of it.
        None => (ErrorKind::PeerReset, Blame::Target, false),
    };
    Error::with_source(kind, error).blamed_on(blame).retry_safe(safe)
}

/// Whether it was the body of the request that failed.
fn is_the_callers(error: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(error), |error| StdError::source(*error))
        .filter_map(|error| error.downcast_ref::<hyper::Error>())
        .any(hyper::Error::is_user)
}

/// Why a request is not forwarded at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// CONNECT.
    Connect,
    /// CONNECT for another protocol than WebSocket, over HTTP/2.
    ExtendedConnect,
    /// The request is for another host than it says.
    Foreign,
    /// More than one host, or one that cannot be.
    Host,
    /// There is no path.
    Path,
    /// An upgrade to HTTP/2.
    H2c,
}

impl Refused {
    /// A CONNECT of this kind.
    pub(super) fn connect(method: &Method, is_extended: bool) -> Result<(), Self> {
        match (method, is_extended) {
            (&Method::CONNECT, true) => Err(Self::ExtendedConnect),
            (&Method::CONNECT, false) => Err(Self::Connect),
            _ => Ok(()),
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::ExtendedConnect => StatusCode::NOT_IMPLEMENTED,
            Self::Foreign | Self::Host | Self::Path | Self::H2c => StatusCode::BAD_REQUEST,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "CONNECT is not forwarded",
            Self::ExtendedConnect => "extended CONNECT is for WebSockets only",
            Self::Foreign => "the request's target is another host than its Host header says",
            Self::Host => "the request has no single valid Host",
            Self::Path => "the request's target has no path",
            Self::H2c => "upgrades to h2c are not forwarded",
        })
    }
}

impl StdError for Refused {}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::with_source(ErrorKind::InvalidInput, refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_statuses_of_the_table() {
        use ErrorKind as K;
        for (kind, status, retry_after) in [
            (K::NoConnection, 503, true),
            (K::ReconnectTimeout, 503, true),
            (K::TooManyPendingDials, 503, true),
            (K::DialTimeout, 504, false),
            (K::TargetUnknown, 502, false),
            (K::TargetDenied, 502, false),
            (K::TargetRefused, 502, false),
            (K::TargetTimeout, 504, false),
            (K::SessionLost, 502, false),
            (K::Replaced, 502, false),
            (K::Protocol, 502, false),
            (K::Overloaded, 503, true),
            (K::Shutdown, 503, true),
            (K::PeerReset, 502, false),
            (K::InvalidInput, 400, false),
            (K::Internal, 500, false),
        ] {
            let response = answer(&kind.into(), status_of(K::NoConnection));
            assert_eq!(response.status(), status, "{kind:?}");
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), retry_after, "{kind:?}");
        }
    }

    #[test]
    fn an_absent_key_can_be_a_404_without_a_promise() {
        let response = answer(&ErrorKind::NoConnection.into(), StatusCode::NOT_FOUND);
        assert_eq!(response.status(), 404);
        assert!(!response.headers().contains_key(header::RETRY_AFTER));
    }

    #[test]
    fn refused_requests_have_statuses_of_their_own() {
        for (refused, status) in [(Refused::Connect, 405), (Refused::ExtendedConnect, 501), (Refused::H2c, 400)] {
            let response = answer(&refused.into(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.status(), status);
            assert_eq!(response.headers().contains_key(header::ALLOW), status == 405);
        }
    }
}

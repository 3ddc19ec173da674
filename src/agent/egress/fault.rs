//! What goes wrong at a proxy, and whether an operator has to mend it.

use std::{error::Error as StdError, fmt};

use http::{StatusCode, Uri};

use super::{super::connect::BoxError, socks::Fault};
use crate::error::ErrorKind;

/// What went wrong at a proxy. It names the proxy, and nothing of its credentials.
#[derive(Debug)]
pub(crate) struct ProxyError {
    /// The proxy and what it did.
    what: String,
    /// The kind of a refusal that trying sooner cannot mend; `None` of all that may pass.
    pub(crate) refusal: Option<ErrorKind>,
    source: Option<BoxError>,
}

impl ProxyError {
    /// A fault of the connection to it, or of what is spoken on that: one of TLS is a refusal.
    pub(super) fn caused(at: &Uri, what: &str, source: BoxError) -> Self {
        #[cfg(feature = "tls")]
        let refusal = super::super::tls::is_tls(source.as_ref()).then_some(ErrorKind::Tls);
        #[cfg(not(feature = "tls"))]
        let refusal = None;
        Self { refusal, source: Some(source), ..Self::new(at, what) }
    }

    /// It answered a `CONNECT` with a status other than one of success.
    pub(super) fn by_status(at: &Uri, status: StatusCode, to: &str) -> Self {
        let (refusal, hint) = match status {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                (Some(ErrorKind::Auth), ": it asks for a user and password, or takes others")
            }
            StatusCode::FORBIDDEN => (Some(ErrorKind::Handshake), ": its rules do not allow this"),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                (Some(ErrorKind::Handshake), ": it is no proxy, or one that does not do this")
            }
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                (None, ": it cannot reach the server")
            }
            _ => (None, ""),
        };
        Self { refusal, ..Self::new(at, &format!("answered {status} to CONNECT {to}{hint}")) }
    }

    /// One of SOCKS5 did not connect to `to`, at none of the addresses that it was asked for: the last fault decides.
    pub(super) fn by_socks(at: &Uri, to: &str, faults: &[(String, Fault)]) -> Self {
        let told: Vec<_> = faults.iter().map(|(address, fault)| format!("{address}: {fault}")).collect();
        let passes = faults.iter().any(|(_, fault)| fault.refusal().is_none());
        let refusal = faults.last().filter(|_| !passes).and_then(|(_, fault)| fault.refusal());
        Self { refusal, ..Self::new(at, &format!("did not connect to {to}: {}", told.join("; "))) }
    }

    fn new(at: &Uri, what: &str) -> Self {
        // The URI of a proxy here is one without its user.
        let proxy = at.to_string();
        Self { what: format!("the proxy {} {what}", proxy.trim_end_matches('/')), refusal: None, source: None }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl StdError for ProxyError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

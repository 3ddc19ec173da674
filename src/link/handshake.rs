//! What both ends of the opening handshake must agree on: names, and how token lists are read.

use http::{HeaderMap, HeaderName};

/// The subprotocol of the native protocol, as offered and chosen in `Sec-WebSocket-Protocol`.
pub(super) const SUBPROTOCOL: &str = "revdial.v1";

/// Tells in the 101 what the server is going to speak, under a name that no proxy on the way knows how to strip: the
/// subprotocol, or [`MARKER_DIALBACK`]. Servers of the deployed dial-back protocol do not send it.
pub(super) const MARKER: HeaderName = HeaderName::from_static("revdial-protocol");

/// The marker of a server that speaks both protocols and was not offered the native one.
pub(super) const MARKER_DIALBACK: &str = "dial-back";

/// What two ends speak over an upgraded connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// The native one, of which [`frame`](crate::frame) tells.
    Native,
    /// The deployed one with a connection for each stream, of which [`dialback`](crate::dialback) tells.
    Dialback,
}

impl Protocol {
    /// The protocol as a word: `revdial.v1` or `dial-back`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => SUBPROTOCOL,
            Self::Dialback => MARKER_DIALBACK,
        }
    }
}

/// Whether one of the comma-separated lists in the headers of this name has the token. `Upgrade` and `Connection`
/// compare without case; subprotocols are exact, as the peer compares our answer with its offer byte by byte.
pub(super) fn has_token(headers: &HeaderMap, name: HeaderName, same: impl Fn(&str) -> bool) -> bool {
    let mut tokens = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    tokens.any(|list| list.split(',').any(|token| same(token.trim())))
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    #[test]
    fn tokens_are_found_in_any_place_of_any_header() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONNECTION, HeaderValue::from_static("keep-alive"));
        headers.append(header::CONNECTION, HeaderValue::from_static("close-ish ,\tUPgrade, x"));
        let has = |token: &str| has_token(&headers, header::CONNECTION, |t| t.eq_ignore_ascii_case(token));
        assert!(has("upgrade") && has("keep-alive") && has("x"));
        assert!(!has("close") && !has("up"));
    }
}

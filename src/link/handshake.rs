//! What both ends of the opening handshake must agree on: names, and how token lists are read.

use http::{HeaderMap, HeaderName};

/// The subprotocol of the native protocol, as offered and chosen in `Sec-WebSocket-Protocol`.
pub(super) const SUBPROTOCOL: &str = "revdial.v1";

/// Repeats the chosen subprotocol in the 101, under a name that no proxy on the way knows how to strip.
pub(super) const MARKER: HeaderName = HeaderName::from_static("revdial-protocol");

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

//! The key that asks for a WebSocket over HTTP/1.1, and the answer that only a server gives that has read it.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE},
};
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

use super::handshake::has_token;

/// The value of a `Sec-WebSocket-Key`, fresh and random.
#[derive(Debug)]
pub(crate) struct Challenge(String);

impl Challenge {
    /// Another one.
    pub(crate) fn new() -> Self {
        Self(generate_key())
    }

    /// As a header's value.
    ///
    /// # Errors
    /// None, since base64 is made of nothing but visible characters.
    pub(crate) fn value(&self) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
        HeaderValue::from_str(&self.0)
    }

    /// Whether the headers of a 101 are those of a WebSocket server that has read the request.
    ///
    /// # Errors
    /// The header that is missing or wrong.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), HeaderName> {
        if !has_token(headers, UPGRADE, |token| token.eq_ignore_ascii_case("websocket")) {
            return Err(UPGRADE);
        }
        if !has_token(headers, CONNECTION, |token| token.eq_ignore_ascii_case("upgrade")) {
            return Err(CONNECTION);
        }
        let right = derive_accept_key(self.0.as_bytes());
        match headers.get(SEC_WEBSOCKET_ACCEPT) {
            Some(accept) if *accept == right => Ok(()),
            _ => Err(SEC_WEBSOCKET_ACCEPT),
        }
    }
}

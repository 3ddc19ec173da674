//! The server's end of the opening handshake: what an upgrade request must have, and what it is answered.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{
        ALLOW, CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
    },
    request::Parts,
};
use hyper::{
    ext::Protocol as ExtendedProtocol,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::{rt::TokioIo, server::conn::auto};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    bytes::ByteLink,
    handshake::{MARKER, Protocol, SUBPROTOCOL, has_token},
    messages::{MAX_STREAM_MESSAGE, MessageLink, Side},
};

/// A refusal before the 101: status, extra headers, and the label of the metric.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The status to answer.
    pub(crate) status: StatusCode,
    /// What the answer says beside it.
    pub(crate) headers: HeaderMap,
    /// The label of `revdial_handshake_rejected_total`: what was wrong, in a word.
    pub(crate) reason: &'static str,
}

impl Refusal {
    /// Status and label, and no headers.
    pub(crate) fn new(status: StatusCode, reason: &'static str) -> Self {
        Self { status, headers: HeaderMap::new(), reason }
    }

    /// 426. Over HTTP/1 it has to name the protocol; HTTP/2 knows no such headers.
    fn upgrade_required(version: Version, reason: &'static str) -> Self {
        let refusal = Self::new(StatusCode::UPGRADE_REQUIRED, reason);
        if version >= Version::HTTP_2 {
            return refusal;
        }
        refusal.with((UPGRADE, "websocket")).with((CONNECTION, "upgrade"))
    }

    /// After which the connection is of no more use: a body may follow that nobody is going to read. HTTP/2 ends the
    /// one stream by itself.
    fn closing(self, version: Version) -> Self {
        if version >= Version::HTTP_2 { self } else { self.with((CONNECTION, "close")) }
    }

    fn with(mut self, (name, value): (http::HeaderName, &'static str)) -> Self {
        self.headers.append(name, HeaderValue::from_static(value));
        self
    }

    /// The answer; its body is empty.
    pub(crate) fn response<B: Default>(self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// A WebSocket upgrade that was asked for and not answered yet.
#[derive(Debug)]
pub(crate) struct Upgrade {
    on_upgrade: OnUpgrade,
    opening: Opening,
}

/// How a WebSocket is asked for.
#[derive(Debug)]
enum Opening {
    /// `GET` with `Upgrade`, over HTTP/1.1; with the answer to its key, if it has one that can be.
    Upgrade { accept: Option<HeaderValue> },
    /// Extended `CONNECT`, over HTTP/2.
    Connect,
}

impl Upgrade {
    /// First checks, before anybody is asked who the caller is: method (405), an upgrade asked for at all (426). Takes
    /// `OnUpgrade` out.
    pub(crate) fn begin<B>(request: &mut Request<B>) -> Result<Self, Refusal> {
        let (version, protocol) = (request.version(), request.extensions().get::<ExtendedProtocol>());
        let method = if version >= Version::HTTP_2 { "CONNECT" } else { "GET" };
        let opening = if request.method() == Method::CONNECT && protocol.is_some_and(is_websocket) {
            Opening::Connect
        } else if request.method() != Method::GET && protocol.is_none() {
            let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method");
            return Err(refusal.with((ALLOW, method)).closing(version));
        } else if version == Version::HTTP_11 && asks_for_websocket(request.headers()) {
            Opening::Upgrade { accept: key(request.headers()).and_then(accept) }
        } else {
            return Err(Refusal::upgrade_required(version, "no_upgrade"));
        };
        Ok(Self { on_upgrade: hyper::upgrade::on(request), opening })
    }

    /// Last checks: WebSocket version (426), key headers and a body (400), subprotocols that are all strange (426). Who
    /// offers none speaks dial-back.
    pub(crate) fn check(&self, parts: &Parts) -> Result<Protocol, Refusal> {
        let mut versions = parts.headers.get_all(SEC_WEBSOCKET_VERSION).iter();
        if versions.next().is_none_or(|version| version != "13") || versions.next().is_some() {
            let refusal = Refusal::upgrade_required(parts.version, "version");
            return Err(refusal.with((SEC_WEBSOCKET_VERSION, "13")));
        }
        if matches!(self.opening, Opening::Upgrade { accept: None }) {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "websocket_key"));
        }
        if has_body(&parts.headers) {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "body").closing(parts.version));
        }
        if !offers_protocols(parts) {
            return Ok(Protocol::Dialback);
        }
        if !has_token(&parts.headers, SEC_WEBSOCKET_PROTOCOL, |token| token == SUBPROTOCOL) {
            let refusal = Refusal::upgrade_required(parts.version, "subprotocol");
            return Err(refusal.with((SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)));
        }
        Ok(Protocol::Native)
    }

    /// The 101 (over HTTP/2: 200) of a link on which this is spoken.
    pub(crate) fn response<B: Default>(&self, protocol: Protocol) -> Response<B> {
        let mut response = self.bare_response();
        let headers: &mut HeaderMap = response.headers_mut();
        if protocol == Protocol::Native {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        }
        headers.insert(MARKER, HeaderValue::from_static(protocol.as_str()));
        response
    }

    /// The 101 (over HTTP/2: 200) alone, as for the connection of one stream. No extension is chosen, whatever was
    /// offered.
    pub(crate) fn bare_response<B: Default>(&self) -> Response<B> {
        let mut response = Response::new(B::default());
        let headers = response.headers_mut();
        if let Opening::Upgrade { accept } = &self.opening {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.extend(accept.clone().map(|accept| (SEC_WEBSOCKET_ACCEPT, accept)));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        }
        response
    }

    /// Waits for the host to hand the connection over, which it does once the answer is written.
    ///
    /// # Errors
    /// The connection ended first, or the host serves without upgrades.
    pub(crate) async fn complete(self, max_message: usize) -> Result<MessageLink, hyper::Error> {
        Ok(match tcp_below(self.on_upgrade.await?) {
            Ok((tcp, early)) => {
                // Without it small answers wait for the peer's delayed acks; a socket that refuses works all the same.
                let _ = tcp.set_nodelay(true);
                MessageLink::with_early(tcp, &early, Side::Server, max_message)
            }
            Err(upgraded) => MessageLink::with_early(TokioIo::new(*upgraded), &[], Side::Server, max_message),
        })
    }

    /// The same for a connection that bears one stream.
    pub(crate) async fn complete_bytes(self) -> Result<ByteLink, hyper::Error> {
        Ok(ByteLink::new(self.complete(MAX_STREAM_MESSAGE).await?))
    }
}

/// Whether a request offers subprotocols, of whatever name. Who does not speaks dial-back.
pub(crate) fn offers_protocols(parts: &Parts) -> bool {
    parts.headers.contains_key(SEC_WEBSOCKET_PROTOCOL)
}

/// The TCP stream below an upgraded connection and what was read of it too much, for hosts that serve plain TCP by
/// hyper itself or by `auto`, as `axum::serve` does.
fn tcp_below(upgraded: Upgraded) -> Result<(TcpStream, Bytes), Box<Upgraded>> {
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => Ok((parts.io.into_inner(), parts.read_buf)),
        Err(upgraded) => match auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded) {
            Ok(parts) => Ok((parts.io.into_inner(), parts.read_buf)),
            Err(upgraded) => Err(Box::new(upgraded)),
        },
    }
}

fn is_websocket(protocol: &ExtendedProtocol) -> bool {
    protocol.as_str().eq_ignore_ascii_case("websocket")
}

fn asks_for_websocket(headers: &HeaderMap) -> bool {
    has_token(headers, CONNECTION, |token| token.eq_ignore_ascii_case("upgrade"))
        && has_token(headers, UPGRADE, |token| token.eq_ignore_ascii_case("websocket"))
}

/// The one `Sec-WebSocket-Key`, if it is 16 bytes in base64.
fn key(headers: &HeaderMap) -> Option<&[u8]> {
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = keys.next()?.as_bytes();
    let digits = key.strip_suffix(b"==")?;
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    (keys.next().is_none() && digits.len() == 22 && digits.iter().all(is_digit)).then_some(key)
}

fn accept(key: &[u8]) -> Option<HeaderValue> {
    derive_accept_key(key).try_into().ok()
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING) || headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0")
}

#[cfg(test)]
mod tests;

//! The agent's end of the opening handshake: asks for the WebSocket, and tells what the server made of it.

use std::{error::Error as StdError, fmt, future::poll_fn, pin::Pin, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri,
    header::{SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL},
};
use hyper::body::{Body, Incoming};

use super::{
    bytes::ByteLink,
    handshake::{MARKER, Protocol, SUBPROTOCOL},
    messages::{MAX_CONTROL_MESSAGE, MAX_STREAM_MESSAGE, MessageLink},
};
use crate::frame::MAX_MESSAGE;

mod extended;
mod upgrade;

/// How the WebSocket is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// `GET` with `Upgrade`, over HTTP/1.1.
    Upgrade,
    /// Extended `CONNECT`, over HTTP/2, on a connection of its own.
    Connect,
}

/// What the server answered to the upgrade request.
#[derive(Debug)]
pub(crate) enum Handshake {
    /// 101 (over HTTP/2: 200), with the protocol that the server is going to speak.
    Switched {
        /// The connection.
        link: MessageLink,
        /// What is spoken on it.
        protocol: Protocol,
        /// The offer of a subprotocol, or its choice, did not come through: something on the way takes headers out.
        stripped: bool,
    },
    /// Anything else; redirects are not followed.
    Refused(Refused),
}

/// An answer that grants nothing.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its headers, `Retry-After` among them.
    pub(crate) headers: HeaderMap,
    /// Up to 1 KiB of its body, as text for logs.
    pub(crate) body: String,
}

/// The server takes no WebSockets over HTTP/2.
#[derive(Debug)]
pub(crate) enum NoConnect {
    /// The connection ended before the server's settings came.
    NoHttp2,
    /// Its settings do not offer it, or did not come in time.
    NotOffered,
}

type BoxError = Box<dyn StdError + Send + Sync>;

/// Asks over `io` for the WebSocket, by hyper's client, and offers the native protocol or does not. `uri` gives path, query
/// and `Host`; `headers` are added (`Authorization`), where they do not touch the handshake itself. How long the answer
/// may take is the caller's affair.
///
/// # Errors
/// The connection failed, an answer that no WebSocket server gives, or [`NoConnect`].
///
/// # Cancel safety
/// Dropping the future drops the connection; there is no task behind it.
pub(crate) async fn connect<I>(
    io: I,
    opening: Opening,
    uri: &Uri,
    headers: HeaderMap,
    offer: bool,
) -> Result<Handshake, BoxError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let judge = |granted: &HeaderMap| {
        let (protocol, stripped) = choice(granted, offer)?;
        // Over HTTP/1.1 the accept key tells a WebSocket server from others; here nothing else does.
        if opening == Opening::Connect && !granted.contains_key(SEC_WEBSOCKET_PROTOCOL) && !granted.contains_key(MARKER)
        {
            return Err(BadGrant(MARKER).into());
        }
        let max_message = match protocol {
            Protocol::Native => MAX_MESSAGE,
            Protocol::Dialback => MAX_CONTROL_MESSAGE,
        };
        Ok((max_message, (protocol, stripped)))
    };
    let answer = open(io, opening, uri, headers, offer, judge).await?;
    Ok(match answer {
        Ok((link, (protocol, stripped))) => Handshake::Switched { link, protocol, stripped },
        Err(refused) => Handshake::Refused(refused),
    })
}

/// Asks over `io` for the connection that a dial-back server waits for, likewise.
///
/// # Errors
/// As of [`connect`]; the inner one is an answer that grants nothing.
pub(crate) async fn pick_up<I>(
    io: I,
    opening: Opening,
    uri: &Uri,
    headers: HeaderMap,
) -> Result<Result<ByteLink, Refused>, BoxError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let judge = |granted: &HeaderMap| choice(granted, false).map(|_| (MAX_STREAM_MESSAGE, ()));
    let answer = open(io, opening, uri, headers, false, judge).await?;
    Ok(answer.map(|(link, ())| ByteLink::new(link)))
}

/// What the server answered: a link, and what was judged of the answer that grants it.
type Answer<T> = Result<(MessageLink, T), Refused>;

/// Asks, and makes a link of what is granted, with the longest message that `judge` finds right.
async fn open<I, T>(
    io: I,
    opening: Opening,
    uri: &Uri,
    headers: HeaderMap,
    offer: bool,
    judge: impl FnOnce(&HeaderMap) -> Result<(usize, T), BoxError>,
) -> Result<Answer<T>, BoxError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    match opening {
        Opening::Upgrade => upgrade::open(io, uri, headers, offer, judge).await,
        Opening::Connect => extended::open(io, uri, headers, offer, judge).await,
    }
}

/// Offers the native protocol, or nothing.
fn offer_protocol(headers: &mut HeaderMap, offer: bool) {
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if offer {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
}

/// Judges what a server that grants says: what it is going to speak, and whether something on the way took headers out.
fn choice(headers: &HeaderMap, offered: bool) -> Result<(Protocol, bool), BoxError> {
    if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Err(BadGrant(SEC_WEBSOCKET_EXTENSIONS).into());
    }
    let marker = headers.get(MARKER);
    match headers.get(SEC_WEBSOCKET_PROTOCOL) {
        Some(chosen) if offered && chosen == SUBPROTOCOL => Ok((Protocol::Native, false)),
        Some(_) => Err(BadGrant(SEC_WEBSOCKET_PROTOCOL).into()),
        // The server has chosen, and is going to speak the native protocol.
        None if offered && marker.is_some_and(|marker| marker == SUBPROTOCOL) => Ok((Protocol::Native, true)),
        // One that speaks both has not seen the offer.
        None => Ok((Protocol::Dialback, offered && marker.is_some())),
    }
}

/// Takes down what a refusal says. A body that is slow to come, or fails, does not hide the status.
async fn refused(response: Response<Incoming>) -> Refused {
    let (parts, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    let read = async {
        while body.len() < MAX_BODY
            && let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await
        {
            let data = frame.into_data().unwrap_or_else(|_trailers| Bytes::new());
            body.extend(data.into_iter().take(MAX_BODY - body.len()));
        }
    };
    let _ = tokio::time::timeout(MAX_BODY_WAIT, read).await;
    let body = String::from_utf8_lossy(&body).into_owned();
    Refused { status: parts.status, headers: parts.headers, body }
}

/// An answer that grants the WebSocket, in which this header is missing or wrong.
#[derive(Debug)]
struct BadGrant(HeaderName);

impl fmt::Display for BadGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server switched protocols with a missing or wrong {}", self.0)
    }
}

impl StdError for BadGrant {}

/// A URI without a host.
#[derive(Debug)]
struct BadUri;

impl fmt::Display for BadUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server's address has no host")
    }
}

impl StdError for BadUri {}

impl fmt::Display for NoConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHttp2 => {
                "the connection ended before any HTTP/2 settings came, as of a server that speaks HTTP/1.1"
            }
            Self::NotOffered => "its settings offer no extended CONNECT, SETTINGS_ENABLE_CONNECT_PROTOCOL of RFC 8441",
        })
    }
}

impl StdError for NoConnect {}

/// What the agent calls itself.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("revdial/", env!("CARGO_PKG_VERSION")));

/// How much of a refusal's body is kept: a line or two for the log.
const MAX_BODY: usize = 1024;

/// How long a refusal's body is waited for, once its head is there.
const MAX_BODY_WAIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

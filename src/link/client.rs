//! The agent's end of the opening handshake: asks for the upgrade, and tells what the server made of it.

use std::{
    error::Error as StdError,
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri,
    header::{
        CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
    },
    uri::PathAndQuery,
};
use hyper::{
    body::{Body, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

use super::{
    bytes::ByteLink,
    handshake::{MARKER, Protocol, SUBPROTOCOL, has_token},
    messages::{Limits, MessageLink, Side},
};

/// What the server answered to the upgrade request.
#[derive(Debug)]
pub(crate) enum Handshake {
    /// 101, with the protocol that the server is going to speak.
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

/// An answer other than 101.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its headers, `Retry-After` among them.
    pub(crate) headers: HeaderMap,
    /// Up to 1 KiB of its body, as text for logs.
    pub(crate) body: String,
}

type BoxError = Box<dyn StdError + Send + Sync>;

/// Asks over `io` for the upgrade, by hyper's client, and offers the native protocol or does not. `uri` gives path, query
/// and `Host`; `headers` are added (`Authorization`), where they do not touch the handshake itself. How long the answer
/// may take is the caller's affair.
///
/// # Errors
/// The connection failed, or a 101 that no WebSocket server gives.
///
/// # Cancel safety
/// Dropping the future drops the connection; there is no task behind it.
pub(crate) async fn connect<I>(io: I, uri: &Uri, headers: HeaderMap, offer: bool) -> Result<Handshake, BoxError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    exchange(io, uri, headers, offer, async |response: Response<Incoming>, key: &str| {
        let (protocol, stripped) = judge(response.headers(), key, offer)?;
        let limits = match protocol {
            Protocol::Native => Limits::NATIVE,
            Protocol::Dialback => Limits::CONTROL,
        };
        Ok(Handshake::Switched { link: take_over::<I>(response, limits).await?, protocol, stripped })
    })
    .await
    .map(|answer| answer.unwrap_or_else(Handshake::Refused))
}

/// Asks over `io` for the connection that a dial-back server waits for, likewise.
///
/// # Errors
/// As of [`connect`]; the inner one is an answer other than 101.
pub(crate) async fn pick_up<I>(io: I, uri: &Uri, headers: HeaderMap) -> Result<Result<ByteLink, Refused>, BoxError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    exchange(io, uri, headers, false, async |response: Response<Incoming>, key: &str| {
        judge(response.headers(), key, false)?;
        Ok(ByteLink::new(take_over::<I>(response, Limits::BYTES).await?))
    })
    .await
}

async fn exchange<I, T>(
    io: I,
    uri: &Uri,
    headers: HeaderMap,
    offer: bool,
    switched: impl AsyncFnOnce(Response<Incoming>, &str) -> Result<T, BoxError>,
) -> Result<Result<T, Refused>, BoxError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let key = generate_key();
    let request = request(uri, headers, &key, offer)?;
    let (mut sender, connection) = http1::handshake::<I, String>(io).await?;
    let mut exchange = pin!(async {
        let response = sender.send_request(request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            switched(response, &key).await.map(Ok)
        } else {
            Ok(Err(refused(response).await))
        }
    });
    tokio::select! {
        outcome = &mut exchange => outcome,
        // Ended by the upgrade, or failed: the exchange is told in both cases, and knows better what it means.
        _ = connection.with_upgrades() => exchange.await,
    }
}

/// The headers stand in the order of the deployed agents'.
fn request(uri: &Uri, more: HeaderMap, key: &str, offer: bool) -> Result<Request<String>, BoxError> {
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut request = Request::new(String::new());
    *request.uri_mut() = Uri::from(path);
    let headers = request.headers_mut();
    headers.insert(HOST, host(uri)?);
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("revdial/", env!("CARGO_PKG_VERSION"))));
    headers.extend(more);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(key)?);
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if offer {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Ok(request)
}

/// Host and port as `Host` has them: no user, and no port that the scheme implies.
fn host(uri: &Uri) -> Result<HeaderValue, BoxError> {
    let host = uri.host().ok_or(BadUri)?;
    let implied = match uri.scheme_str() {
        Some("http" | "ws") => Some(80),
        Some("https" | "wss") => Some(443),
        _ => None,
    };
    Ok(match uri.port_u16().filter(|port| Some(*port) != implied) {
        Some(port) => HeaderValue::try_from(format!("{host}:{port}"))?,
        None => HeaderValue::from_str(host)?,
    })
}

/// Judges a 101: what the server is going to speak, and whether something on the way took headers out.
fn judge(headers: &HeaderMap, key: &str, offered: bool) -> Result<(Protocol, bool), BoxError> {
    if !has_token(headers, UPGRADE, |token| token.eq_ignore_ascii_case("websocket")) {
        return Err(Bad101(UPGRADE.as_str()).into());
    }
    if !has_token(headers, CONNECTION, |token| token.eq_ignore_ascii_case("upgrade")) {
        return Err(Bad101(CONNECTION.as_str()).into());
    }
    if headers.get(SEC_WEBSOCKET_ACCEPT).is_none_or(|accept| accept != derive_accept_key(key.as_bytes()).as_str()) {
        return Err(Bad101(SEC_WEBSOCKET_ACCEPT.as_str()).into());
    }
    if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Err(Bad101(SEC_WEBSOCKET_EXTENSIONS.as_str()).into());
    }
    let marker = headers.get(MARKER);
    match headers.get(SEC_WEBSOCKET_PROTOCOL) {
        Some(chosen) if offered && chosen == SUBPROTOCOL => Ok((Protocol::Native, false)),
        Some(_) => Err(Bad101(SEC_WEBSOCKET_PROTOCOL.as_str()).into()),
        // The server has chosen, and is going to speak the native protocol.
        None if offered && marker.is_some_and(|marker| marker == SUBPROTOCOL) => Ok((Protocol::Native, true)),
        // One that speaks both has not seen the offer.
        None => Ok((Protocol::Dialback, offered && marker.is_some())),
    }
}

async fn take_over<I>(response: Response<Incoming>, limits: Limits) -> Result<MessageLink, BoxError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let upgraded = hyper::upgrade::on(response).await?;
    Ok(match upgraded.downcast::<I>() {
        Ok(parts) => MessageLink::with_early(TokioIo::new(parts.io), parts.read_buf, Side::Client, limits).await,
        Err(upgraded) => MessageLink::with_early(TokioIo::new(upgraded), Bytes::new(), Side::Client, limits).await,
    })
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

/// A 101 in which this header is missing or wrong.
#[derive(Debug)]
struct Bad101(&'static str);

impl fmt::Display for Bad101 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server switched protocols with a missing or wrong {}", self.0)
    }
}

impl StdError for Bad101 {}

/// A URI without a host.
#[derive(Debug)]
struct BadUri;

impl fmt::Display for BadUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server's address has no host")
    }
}

impl StdError for BadUri {}

/// How much of a refusal's body is kept: a line or two for the log.
const MAX_BODY: usize = 1024;

/// How long a refusal's body is waited for, once its head is there.
const MAX_BODY_WAIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

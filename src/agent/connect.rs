//! How the server is reached: the caller's connector, the credentials, the upgrade, and what a refusal of it means.

use std::{
    error::Error as StdError,
    fmt,
    future::poll_fn,
    pin::Pin,
    str::FromStr,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderValue, Uri, header};
use hyper_util::client::legacy::connect::HttpConnector;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use tower_service::Service;
use tracing::warn;

use super::refusal::{Retry, Setback};
use crate::{
    error::ErrorKind,
    link::{Handshake, MessageLink, Protocol, Refused, connect},
};

/// Any error.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// A boxed future that is bound to `'a`.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A byte stream to the server, of whatever type the connector gives.
pub(crate) trait ServerIo: hyper::rt::Read + hyper::rt::Write + Send + Unpin {}

impl<I: hyper::rt::Read + hyper::rt::Write + Send + Unpin> ServerIo for I {}

/// A connector without its type.
pub(crate) trait Connect: Send {
    /// As of [`Service::poll_ready`].
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>;
    /// A new byte stream to the host of `uri`.
    fn call(&mut self, uri: Uri) -> BoxFuture<'static, Result<Box<dyn ServerIo>, BoxError>>;
}

/// Any `Service<Uri>` as a [`Connect`].
pub(crate) struct Connector<C>(pub(crate) C);

impl<C> Connect for Connector<C>
where
    C: Service<Uri> + Send,
    C::Response: ServerIo + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send + 'static,
{
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> BoxFuture<'static, Result<Box<dyn ServerIo>, BoxError>> {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            let io = connecting.await.map_err(Into::into)?;
            Ok(Box::new(io) as Box<dyn ServerIo>)
        })
    }
}

/// The connector for plain TCP. TCP_NODELAY, since a frame must not wait for the ack of the one before.
pub(crate) fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    tcp
}

/// Which protocol an agent speaks. From text: `auto`, `native` or `dialback`.
///
/// ```
/// use revdial::agent::ProtocolChoice;
///
/// assert_eq!("auto".parse(), Ok(ProtocolChoice::default()));
/// assert!("http".parse::<ProtocolChoice>().is_err());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProtocolChoice {
    /// The native one if the server does, else [dial-back](crate::dialback), on the same connection.
    #[default]
    Auto,
    /// The native one only: a server that does not speak it is refused, slowly and loudly.
    Native,
    /// Dial-back only.
    Dialback,
}

/// A text that names no [`ProtocolChoice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownProtocol;

impl FromStr for ProtocolChoice {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        match text {
            "auto" => Ok(Self::Auto),
            "native" => Ok(Self::Native),
            "dialback" => Ok(Self::Dialback),
            _ => Err(UnknownProtocol),
        }
    }
}

impl fmt::Display for UnknownProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is none of auto, native, dialback")
    }
}

impl StdError for UnknownProtocol {}

/// Connects to the server. The connector is held until it has begun, not until it is done.
pub(super) async fn open(
    connector: &Mutex<Box<dyn Connect>>,
    uri: &Uri,
    token: Result<SecretString, BoxError>,
) -> Result<(Box<dyn ServerIo>, HeaderMap), Setback> {
    let token = token.map_err(|error| no_token("the token cannot be had", error))?;
    let bearer =
        bearer(&token).map_err(|error| no_token("the token has a character that no header can have", error))?;
    let connecting = {
        let mut connector = connector.lock().await;
        poll_fn(|cx| connector.poll_ready(cx)).await.map_err(unreachable)?;
        connector.call(uri.clone())
    };
    let io = connecting.await.map_err(unreachable)?;
    Ok((io, HeaderMap::from_iter([(header::AUTHORIZATION, bearer)])))
}

/// Asks for the upgrade, and gives the WebSocket and what is spoken on it.
pub(super) async fn upgrade(
    io: Box<dyn ServerIo>,
    uri: &Uri,
    headers: HeaderMap,
    choice: ProtocolChoice,
) -> Result<(MessageLink, Protocol), Setback> {
    match connect(io, uri, headers, choice != ProtocolChoice::Dialback).await {
        Ok(Handshake::Switched { protocol: Protocol::Dialback, .. }) if choice == ProtocolChoice::Native => {
            let what = "the server chose no subprotocol that this agent speaks, which is revdial.v1";
            Err(Setback::new(ErrorKind::Version, Retry::Slow, what))
        }
        Ok(Handshake::Switched { link, protocol, stripped }) => {
            if stripped {
                warn!(
                    protocol = protocol.as_str(),
                    "something between this agent and the server, a proxy perhaps, takes Sec-WebSocket-Protocol out: \
                     let it pass, and streams survive lost connections"
                );
            }
            Ok((link, protocol))
        }
        Ok(Handshake::Refused(Refused { status, headers, body })) => Err(Setback::by_status(status, &headers, &body)),
        Err(error) => Err(Setback::caused(ErrorKind::Handshake, Retry::Backoff, "the upgrade failed", error)),
    }
}

/// The value of `Authorization`; its `Debug` shows nothing of the token.
pub(crate) fn bearer(token: &SecretString) -> Result<HeaderValue, header::InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Nothing of it went to the server, so that trying sooner than after a refusal harms nobody.
fn no_token(what: &str, error: impl Into<BoxError>) -> Setback {
    Setback::caused(ErrorKind::Auth, Retry::Backoff, what, error)
}

/// A failed connect: slow if the server's TLS is not valid, since only its operator can mend that.
fn unreachable(error: BoxError) -> Setback {
    #[cfg(feature = "tls")]
    if super::tls::is_tls(error.as_ref()) {
        return Setback::caused(ErrorKind::Tls, Retry::Slow, "the server's TLS is not valid", error);
    }
    Setback::caused(ErrorKind::Handshake, Retry::Backoff, "the server cannot be reached", error)
}

impl fmt::Debug for dyn Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

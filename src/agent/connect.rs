//! How the server is reached: the caller's connector, the credentials, the upgrade, and what a refusal of it means.

use std::{error::Error as StdError, fmt, future::poll_fn, pin::Pin};

use http::{HeaderMap, HeaderValue, Uri, header};
use hyper_util::client::legacy::connect::HttpConnector;
use secrecy::{ExposeSecret, SecretString};
use tower_service::Service;

use super::refusal::{Retry, Setback};
use crate::{
    error::ErrorKind,
    frame::MAX_MESSAGE,
    link::{Handshake, MessageLink, connect},
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
    /// A new byte stream to the host of `uri`.
    fn connect(&mut self, uri: Uri) -> BoxFuture<'_, Result<Box<dyn ServerIo>, BoxError>>;
}

/// Any `Service<Uri>` as a [`Connect`].
pub(crate) struct Connector<C>(pub(crate) C);

impl<C> Connect for Connector<C>
where
    C: Service<Uri> + Send,
    C::Response: ServerIo + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
{
    fn connect(&mut self, uri: Uri) -> BoxFuture<'_, Result<Box<dyn ServerIo>, BoxError>> {
        Box::pin(async move {
            poll_fn(|cx| self.0.poll_ready(cx)).await.map_err(Into::into)?;
            let io = self.0.call(uri).await.map_err(Into::into)?;
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

/// Reaches the server, asks for the upgrade, and gives the WebSocket.
pub(super) async fn reach(
    connector: &mut dyn Connect,
    uri: &Uri,
    token: Result<SecretString, BoxError>,
) -> Result<MessageLink, Setback> {
    let token = token.map_err(|error| no_token("the token cannot be had", error))?;
    let bearer =
        bearer(&token).map_err(|error| no_token("the token has a character that no header can have", error))?;
    let io = connector.connect(uri.clone()).await.map_err(unreachable)?;
    let headers = HeaderMap::from_iter([(header::AUTHORIZATION, bearer)]);
    match connect(io, uri, headers, MAX_MESSAGE).await {
        Ok(Handshake::Native(link)) => Ok(link),
        Ok(Handshake::Dialback) => {
            let what = "the server chose no subprotocol that this agent speaks, which is revdial.v1";
            Err(Setback::new(ErrorKind::Version, Retry::Slow, what))
        }
        Ok(Handshake::Refused { status, headers, body }) => Err(Setback::by_status(status, &headers, &body)),
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

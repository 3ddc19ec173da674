//! How the server is reached: the caller's connector, the credentials, the upgrade, and what a refusal of it means.

use std::{
    error::Error as StdError,
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::SystemTime,
};

use http::{HeaderMap, Uri, header};
use secrecy::SecretString;
use tokio::sync::Mutex;
use tower_service::Service;
use tracing::warn;

use super::{
    choices::{HttpVersion, ProtocolChoice},
    egress::ProxyError,
    exhausted::tell_if_below,
    refusal::{Retry, Setback},
    token::bearer,
};
use crate::{
    error::ErrorKind,
    link::{Handshake, MessageLink, NoConnect, Protocol, Refused},
};

/// Any error.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// A boxed future that is bound to `'a`.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A byte stream to the server, of whatever type the connector gives.
pub(crate) trait ServerIo: hyper::rt::Read + hyper::rt::Write + Send + Unpin {}

impl<I: hyper::rt::Read + hyper::rt::Write + Send + Unpin> ServerIo for I {}

/// A connection to the server.
pub(crate) struct Reached {
    /// Its bytes.
    pub(crate) io: Box<dyn ServerIo>,
    /// Whether TLS has agreed on HTTP/2; `None` where that was not asked.
    pub(crate) http2: Option<bool>,
}

/// A connector without its type.
pub(crate) trait Connect: Send {
    /// As of [`Service::poll_ready`].
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>;
    /// A new connection to the host of `uri`, on which this version of HTTP is spoken at most.
    fn call(&mut self, uri: Uri, version: HttpVersion) -> BoxFuture<'static, Result<Reached, BoxError>>;
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

    fn call(&mut self, uri: Uri, _: HttpVersion) -> BoxFuture<'static, Result<Reached, BoxError>> {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            let io = connecting.await.map_err(Into::into)?;
            Ok(Reached { io: Box::new(io), http2: None })
        })
    }
}

/// What shows the server who asks.
pub(super) fn credentials(token: Result<SecretString, BoxError>) -> Result<HeaderMap, Setback> {
    let token = token.map_err(|error| no_token("the token cannot be had", error))?;
    let bearer =
        bearer(&token).map_err(|error| no_token("the token has a character that no header can have", error))?;
    Ok(HeaderMap::from_iter([(header::AUTHORIZATION, bearer)]))
}

/// Connects to the server. The connector is held until it has begun, not until it is done.
pub(super) async fn open(
    connector: &Mutex<Box<dyn Connect>>,
    uri: &Uri,
    version: HttpVersion,
) -> Result<Reached, Setback> {
    let connecting = {
        let mut connector = connector.lock().await;
        poll_fn(|cx| connector.poll_ready(cx)).await.map_err(unreachable)?;
        connector.call(uri.clone(), version)
    };
    connecting.await.map_err(unreachable)
}

/// The link that the server has granted, and what is spoken on it.
pub(super) fn granted(handshake: Handshake, choice: ProtocolChoice) -> Result<(MessageLink, Protocol), Setback> {
    match handshake {
        Handshake::Switched { protocol: Protocol::Dialback, .. } if choice == ProtocolChoice::Native => {
            let what = "the server chose no subprotocol that this agent speaks, which is revdial.v1";
            Err(Setback::new(ErrorKind::Version, Retry::Slow, what))
        }
        Handshake::Switched { link, protocol, stripped } => {
            if stripped {
                warn!(
                    protocol = protocol.as_str(),
                    "something between this agent and the server, a proxy perhaps, takes Sec-WebSocket-Protocol out: \
                     let it pass, and streams survive lost connections"
                );
            }
            Ok((link, protocol))
        }
        Handshake::Refused(answer) => Err(refused(&answer)),
    }
}

/// The server answered otherwise.
pub(super) fn refused(Refused { status, headers, body }: &Refused) -> Setback {
    Setback::by_status(*status, headers, body, SystemTime::now())
}

/// Nothing of it went to the server, so that trying sooner than after a refusal harms nobody.
fn no_token(what: &str, error: impl Into<BoxError>) -> Setback {
    Setback::caused(ErrorKind::Auth, Retry::Backoff, what, error)
}

/// A failed connect: slow where only an operator can mend it, as of TLS that is not valid or a proxy that refuses.
fn unreachable(error: BoxError) -> Setback {
    tell_if_below(error.as_ref());
    if let Some(proxy) = error.downcast_ref::<ProxyError>() {
        let (kind, retry) = match proxy.refusal {
            Some(kind) => (kind, Retry::Slow),
            None => (ErrorKind::Handshake, Retry::Backoff),
        };
        return Setback::caused(kind, retry, "no way to the server", error);
    }
    #[cfg(feature = "tls")]
    if super::tls::is_tls(error.as_ref()) {
        return Setback::caused(ErrorKind::Tls, Retry::Slow, "the server's TLS is not valid", error);
    }
    Setback::caused(ErrorKind::Handshake, Retry::Backoff, "the server cannot be reached", error)
}

/// Whether the server's HTTP/2 takes no WebSockets.
pub(super) fn is_not_offered(error: &BoxError) -> bool {
    matches!(error.downcast_ref(), Some(NoConnect::NotOffered))
}

/// A handshake without an answer.
pub(super) fn failed(error: BoxError) -> Setback {
    if is_not_offered(&error) {
        let what = "the server takes no WebSocket over HTTP/2, which this agent is set to";
        return Setback::caused(ErrorKind::Version, Retry::Slow, what, error);
    }
    #[cfg(feature = "tls")]
    if super::tls::is_tls(error.as_ref()) {
        // Where a server asks for a certificate, it refuses only after the client has taken the handshake for done.
        return Setback::caused(ErrorKind::Tls, Retry::Slow, "the server ended TLS", error);
    }
    Setback::caused(ErrorKind::Handshake, Retry::Backoff, "the upgrade failed", error)
}

impl fmt::Debug for dyn Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

//! The agent's own connector: TCP to the server, straight or through a proxy, and TLS on top of it.

use std::{
    error::Error as StdError,
    fmt,
    future::{Ready, ready},
    pin::pin,
    task::{Context, Poll},
};

use http::{HeaderValue, Request, StatusCode, Uri, header};
use hyper::client::conn::http1;
use hyper_util::client::{
    legacy::connect::{HttpConnector, proxy::SocksV5},
    proxy::matcher::Intercept,
};
use tower_service::Service;

use super::connect::{BoxError, BoxFuture, Connect, Reached, ServerIo};
#[cfg(feature = "tls")]
use super::tls::Tls;

/// The way from this agent to its server.
#[derive(Clone, Debug)]
pub(crate) struct Egress {
    tcp: HttpConnector,
    proxy: Option<Intercept>,
    #[cfg(feature = "tls")]
    tls: Tls,
}

/// What went wrong at a proxy. It names the proxy, and nothing of its credentials.
#[derive(Debug)]
pub(crate) struct ProxyError {
    /// The proxy and what it did.
    what: String,
    /// Whether the proxy refuses in a way that trying sooner cannot mend.
    pub(crate) refused: bool,
    source: Option<BoxError>,
}

impl Egress {
    /// The way through this proxy, or straight.
    pub(crate) fn new(proxy: Option<Intercept>, #[cfg(feature = "tls")] tls: Tls) -> Self {
        let mut tcp = HttpConnector::new();
        // A frame must not wait for the ack of the one before.
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        Self {
            tcp,
            proxy,
            #[cfg(feature = "tls")]
            tls,
        }
    }

    async fn reach(mut self, server: Uri) -> Result<Reached, BoxError> {
        let io: Box<dyn ServerIo> = match self.proxy.take() {
            None => Box::new(self.tcp.call(server.clone()).await?),
            Some(proxy) => self.reach_through(&proxy, &server).await?,
        };
        #[cfg(feature = "tls")]
        if server.scheme_str() == Some("https") {
            let (io, http2) = self.tls.to_server(io, &server).await?;
            return Ok(Reached { io, http2: Some(http2) });
        }
        Ok(Reached { io, http2: None })
    }

    async fn reach_through(&mut self, proxy: &Intercept, server: &Uri) -> Result<Box<dyn ServerIo>, ProxyError> {
        let at = with_port(proxy.uri());
        let unreached = |error: BoxError| ProxyError::new(&at, "cannot be reached", Some(error));
        let io = self.tcp.call(at.clone()).await.map_err(|error| unreached(error.into()))?;
        let io: Box<dyn ServerIo> = Box::new(io);
        let server = with_port(server);
        match at.scheme_str() {
            Some("socks5" | "socks5h") => socks(io, &at, proxy.raw_auth(), server).await,
            #[cfg(feature = "tls")]
            Some("https") => {
                let io = self.tls.to_proxy(io, &at).await.map_err(unreached)?;
                tunnel(io, &at, proxy.basic_auth(), &server).await
            }
            _ => tunnel(io, &at, proxy.basic_auth(), &server).await,
        }
    }
}

impl Connect for Egress {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, server: Uri) -> BoxFuture<'static, Result<Reached, BoxError>> {
        Box::pin(self.clone().reach(server))
    }
}

/// Has an HTTP proxy open a connection to the server. By hyper's client: hyper-util's own tunnel does not tell the status
/// of a refusal.
async fn tunnel(
    io: Box<dyn ServerIo>,
    at: &Uri,
    auth: Option<&HeaderValue>,
    server: &Uri,
) -> Result<Box<dyn ServerIo>, ProxyError> {
    let failed = |error: hyper::Error| ProxyError::new(at, "failed", Some(error.into()));
    let (mut sender, connection) = http1::handshake::<_, String>(io).await.map_err(failed)?;
    let to = server.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::connect(to).header(header::HOST, to);
    if let Some(auth) = auth {
        request = request.header(header::PROXY_AUTHORIZATION, auth);
    }
    let request = request.body(String::new()).map_err(|error| ProxyError::new(at, "failed", Some(error.into())))?;
    let mut exchange = pin!(async {
        let response = sender.send_request(request).await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(ProxyError::by_status(at, response.status(), to));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(failed)?;
        Ok(Box::new(upgraded) as Box<dyn ServerIo>)
    });
    tokio::select! {
        outcome = &mut exchange => outcome,
        // Ended by the upgrade, or failed: the exchange is told in both cases.
        _ = connection.with_upgrades() => exchange.await,
    }
}

/// Has a SOCKS5 proxy open a connection to the server.
async fn socks(
    io: Box<dyn ServerIo>,
    at: &Uri,
    auth: Option<(&str, &str)>,
    mut server: Uri,
) -> Result<Box<dyn ServerIo>, ProxyError> {
    let to = server.authority().map_or_else(String::new, ToString::to_string);
    if at.scheme_str() == Some("socks5") {
        server = looked_up(&server)
            .await
            .map_err(|error| ProxyError::new(at, &format!("was not asked: {to} has no address"), Some(error)))?;
    }
    let mut socks = SocksV5::new(at.clone(), Given(Some(io)));
    if let Some((user, password)) = auth {
        socks = socks.with_auth(user.to_owned(), password.to_owned());
    }
    // Its errors have no sources, and tell what the proxy answered.
    let refused = format!("did not connect to {to}");
    socks.call(server).await.map_err(|error| ProxyError::new(at, &format!("{refused}: {error}"), None))
}

/// The same URI with the host's address in the place of its name.
async fn looked_up(server: &Uri) -> Result<Uri, BoxError> {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    let mut found = tokio::net::lookup_host((host, server.port_u16().unwrap_or_default())).await?;
    let address = found.next().ok_or("the name has no address")?;
    let mut parts = server.clone().into_parts();
    parts.authority = Some(address.to_string().parse()?);
    Ok(Uri::from_parts(parts)?)
}

/// The same URI with its port, also where the scheme implies it.
fn with_port(uri: &Uri) -> Uri {
    let implied = match uri.scheme_str() {
        Some("https") => 443,
        Some("socks5" | "socks5h") => 1080,
        _ => 80,
    };
    let host = uri.host().unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    parts.authority = format!("{host}:{}", uri.port_u16().unwrap_or(implied)).parse().ok();
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

/// A connection that is there already, as a connector.
struct Given(Option<Box<dyn ServerIo>>);

impl Service<Uri> for Given {
    type Response = Box<dyn ServerIo>;
    type Error = &'static str;
    type Future = Ready<Result<Box<dyn ServerIo>, &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or("the connection was taken"))
    }
}

impl ProxyError {
    fn new(at: &Uri, what: &str, source: Option<BoxError>) -> Self {
        // The URI of a proxy here is one without its user.
        let proxy = at.to_string();
        Self { what: format!("the proxy {} {what}", proxy.trim_end_matches('/')), refused: false, source }
    }

    fn by_status(at: &Uri, status: StatusCode, to: &str) -> Self {
        let hint = match status {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => ": it asks for a user and password, or takes others",
            StatusCode::FORBIDDEN => ": its rules do not allow this",
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                ": it cannot reach the server"
            }
            _ => "",
        };
        let refused = matches!(status, StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::FORBIDDEN);
        Self { refused, ..Self::new(at, &format!("answered {status} to CONNECT {to}{hint}"), None) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_has_its_port_in_the_end() {
        let table = [
            ("http://h/x", "http://h:80/x"),
            ("https://h/x?y", "https://h:443/x?y"),
            ("https://h:8443/", "https://h:8443/"),
            ("socks5h://[::1]/", "socks5h://[::1]:1080/"),
        ];
        for (uri, expected) in table {
            assert_eq!(with_port(&Uri::from_static(uri)), expected);
        }
    }

    #[tokio::test]
    async fn a_name_that_is_an_address_already_stays() {
        for uri in ["http://127.0.0.1:80/x", "http://[::1]:80/x"] {
            assert_eq!(looked_up(&Uri::from_static(uri)).await.unwrap(), uri);
        }
    }
}

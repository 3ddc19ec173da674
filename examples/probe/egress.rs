//! The proxy of the environment: which it is, and a connection through it.

use std::{error::Error as StdError, fmt, time::Duration};

use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::{
    client::{
        legacy::connect::proxy::SocksV5,
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use revdial::agent::ProxyChoice;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tower::{ServiceExt, service_fn};

use crate::{
    fault::{Failure, Fault},
    server::Server,
    tls,
    way::BoxedIo,
    words::shown,
};

/// A proxy that the environment names for a server.
#[derive(Clone)]
pub(crate) struct Egress {
    proxy: Intercept,
    /// The variable that names it.
    pub(crate) variable: &'static str,
    /// For one that is spoken to in TLS, and where it is.
    tls: Option<(TlsConnector, Server)>,
}

/// What the environment says of proxies.
#[derive(Clone)]
pub(crate) enum Environment {
    /// There is none.
    Direct,
    /// This variable names one, but not for this server.
    Excepted(&'static str),
    Proxy(Box<Egress>),
}

/// All that may name a proxy, those for the other scheme too.
const VARIABLES: [&str; 6] = ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];

impl Environment {
    /// What there is for a server, as an agent goes there. `tls` makes a connector.
    pub(crate) fn of(
        server: &Server,
        tls: impl FnOnce() -> Result<TlsConnector, Box<dyn StdError>>,
    ) -> Result<Self, Box<dyn StdError>> {
        let value = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let uri = server.uri()?;
        let named = ProxyChoice::Environment.url_for(&uri);
        let Some(url) = named.map_err(|error| error.source().map_or_else(|| error.to_string(), ToString::to_string))?
        else {
            let others = VARIABLES.into_iter().find(|name| value(name).is_some());
            return Ok(others.map_or(Self::Direct, Self::Excepted));
        };
        let others = if server.is_tls { "http_proxy" } else { "https_proxy" };
        let mut own = VARIABLES.into_iter().filter(|name| !name.eq_ignore_ascii_case(others));
        let url = url.with_credentials();
        let variable = own.find(|name| value(name).as_deref() == Some(url)).ok_or("no variable names it")?;
        let proxy = Matcher::builder().all(url).build().intercept(&uri).ok_or("it is none that is spoken to")?;
        let mut egress = Egress { proxy, variable, tls: None };
        if egress.proxy.uri().scheme_str() == Some("https") {
            egress.tls = Some((tls()?, egress.url().parse()?));
        }
        Ok(Self::Proxy(Box::new(egress)))
    }
}

impl Egress {
    pub(crate) fn host(&self) -> &str {
        self.proxy.uri().host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    pub(crate) fn port(&self) -> u16 {
        let implied = match self.proxy.uri().scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            _ => 1080,
        };
        self.proxy.uri().port_u16().unwrap_or(implied)
    }

    /// Without its user and password.
    pub(crate) fn url(&self) -> String {
        let uri = self.proxy.uri();
        let (scheme, authority) = (uri.scheme_str().unwrap_or("http"), uri.authority());
        format!("{scheme}://{}", authority.map_or("", |authority| authority.as_str()))
    }

    /// Has the proxy connect to the server.
    pub(crate) async fn through(
        &self,
        tcp: TcpStream,
        server: &Server,
        patience: Duration,
    ) -> Result<BoxedIo, Failure> {
        let to = server.host_and_port();
        let io: BoxedIo = match &self.tls {
            Some((connector, proxy)) => tls::secure(connector, proxy, Box::new(tcp), patience).await?.0,
            None => Box::new(tcp),
        };
        let connecting = async {
            match self.proxy.uri().scheme_str() {
                Some("http" | "https") => connect(io, &to, self.proxy.basic_auth()).await,
                Some("socks5" | "socks5h") => self.socks(io, server).await,
                _ => Err(Refusal::Other("neither the probe nor an agent speaks to such a proxy".to_owned())),
            }
        };
        let connected = timeout(patience, connecting).await;
        connected.unwrap_or_else(|_| Err(Refusal::Other("no answer".to_owned()))).map_err(|why| {
            let next = format!("curl -v --proxytunnel --proxy {} {server}", self.url());
            let what = format!("{} ({}) does not connect to {to}: {why}", self.url(), self.variable);
            Failure::new(
                Fault::Proxy,
                what,
                why.cause(),
                format!("{next} ; without it: NO_PROXY={} probe …", server.host),
            )
        })
    }

    async fn socks(&self, io: BoxedIo, server: &Server) -> Result<BoxedIo, Refusal> {
        let mut io = Some(TokioIo::new(io));
        let connected = service_fn(move |_: Uri| {
            let io = io.take().ok_or_else(|| std::io::Error::other("asked twice"));
            async { io }
        });
        let mut socks = SocksV5::new(self.proxy.uri().clone(), connected);
        socks = socks.local_dns(self.proxy.uri().scheme_str() == Some("socks5"));
        if let Some((user, password)) = self.proxy.raw_auth() {
            socks = socks.with_auth(user.to_owned(), password.to_owned());
        }
        let uri = server.uri().map_err(Refusal::other)?;
        // Boxed here, or the compiler does not see that what is around it is `Send` for every lifetime.
        let connecting: BoxFuture<'static, _> = Box::pin(socks.oneshot(uri));
        Ok(Box::new(TokioIo::new(connecting.await.map_err(Refusal::other)?)))
    }
}

/// Asks an HTTP proxy for a connection.
async fn connect(io: BoxedIo, to: &str, credentials: Option<&HeaderValue>) -> Result<BoxedIo, Refusal> {
    let mut request = Request::connect(to).header(header::HOST, to);
    if let Some(credentials) = credentials {
        request = request.header(header::PROXY_AUTHORIZATION, credentials);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(Refusal::other)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(Refusal::other)?;
    tokio::spawn(connection.with_upgrades());
    let response = sender.send_request(request).await.map_err(Refusal::other)?;
    if !response.status().is_success() {
        return Err(Refusal::Status(response.status()));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(Refusal::other)?;
    Ok(Box::new(TokioIo::new(upgraded)))
}

/// Why a proxy does not connect.
#[derive(Debug)]
enum Refusal {
    Status(StatusCode),
    Other(String),
}

impl Refusal {
    fn other(error: impl fmt::Display) -> Self {
        Self::Other(shown(&error.to_string()))
    }

    /// What it likely comes from.
    fn cause(&self) -> &'static str {
        match self {
            Self::Status(StatusCode::PROXY_AUTHENTICATION_REQUIRED) => {
                "it wants a user and a password: http://USER:PASSWORD@HOST:PORT in the variable"
            }
            Self::Status(StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED) => {
                "its rules do not allow CONNECT to this host and port"
            }
            Self::Status(status) if status.is_server_error() => "it cannot reach the server itself",
            _ => "it is down, is no proxy, or does not let this server through",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            Self::Other(why) => f.write_str(why),
        }
    }
}

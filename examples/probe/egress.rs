//! The proxy of the environment: which it is, and a connection through it.

use std::{fmt, time::Duration};

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
use tokio::{net::TcpStream, time::timeout};
use tower::{ServiceExt, service_fn};

use crate::{
    fault::{Failure, Fault},
    server::Server,
    way::BoxedIo,
    words::shown,
};

/// A proxy that the environment names for a server.
#[derive(Debug, Clone)]
pub(crate) struct Egress {
    proxy: Intercept,
    /// The variable that names it.
    pub(crate) variable: &'static str,
}

impl Egress {
    /// The proxy for a server, by the same rules as curl's and the agent's.
    pub(crate) fn of(server: &Server) -> Option<Self> {
        let proxy = Matcher::from_env().intercept(&server.uri().ok()?)?;
        Some(Self { proxy, variable: named(server)? })
    }

    /// Whether a variable names a proxy that this server is excepted from.
    pub(crate) fn excepted(server: &Server) -> Option<&'static str> {
        let variable = named(server)?;
        Self::of(server).is_none().then_some(variable)
    }

    pub(crate) fn host(&self) -> &str {
        self.proxy.uri().host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    pub(crate) fn port(&self) -> u16 {
        let implied = if self.is_socks() { 1080 } else { 80 };
        self.proxy.uri().port_u16().unwrap_or(implied)
    }

    /// Without its user and password.
    pub(crate) fn url(&self) -> String {
        let uri = self.proxy.uri();
        let (scheme, authority) = (uri.scheme_str().unwrap_or("http"), uri.authority());
        format!("{scheme}://{}", authority.map_or("", |authority| authority.as_str()))
    }

    fn is_socks(&self) -> bool {
        self.proxy.uri().scheme_str().is_some_and(|scheme| scheme.starts_with("socks"))
    }

    /// Has the proxy connect to the server.
    pub(crate) async fn through(
        &self,
        tcp: TcpStream,
        server: &Server,
        patience: Duration,
    ) -> Result<BoxedIo, Failure> {
        let to = server.host_and_port();
        let connecting = async {
            match self.proxy.uri().scheme_str() {
                Some("http") => connect(tcp, &to, self.proxy.basic_auth()).await,
                Some("socks5" | "socks5h") => self.socks(tcp, server).await,
                _ => Err(Refusal::Other("the probe speaks to proxies of http:// and socks5:// only".to_owned())),
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

    async fn socks(&self, tcp: TcpStream, server: &Server) -> Result<BoxedIo, Refusal> {
        let mut tcp = Some(TokioIo::new(tcp));
        let connected = service_fn(move |_: Uri| {
            let tcp = tcp.take().ok_or_else(|| std::io::Error::other("asked twice"));
            async { tcp }
        });
        let mut socks = SocksV5::new(self.proxy.uri().clone(), connected);
        if let Some((user, password)) = self.proxy.raw_auth() {
            socks = socks.with_auth(user.to_owned(), password.to_owned());
        }
        let uri = server.uri().map_err(Refusal::other)?;
        let io = socks.oneshot(uri).await.map_err(Refusal::other)?;
        Ok(Box::new(TokioIo::new(io)))
    }
}

/// Asks an HTTP proxy for a connection.
async fn connect(tcp: TcpStream, to: &str, credentials: Option<&HeaderValue>) -> Result<BoxedIo, Refusal> {
    let mut request = Request::connect(to).header(header::HOST, to);
    if let Some(credentials) = credentials {
        request = request.header(header::PROXY_AUTHORIZATION, credentials);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(Refusal::other)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await.map_err(Refusal::other)?;
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

/// The first variable that is set to something, in the order in which they are looked at.
fn named(server: &Server) -> Option<&'static str> {
    let own = if server.is_tls { ["HTTPS_PROXY", "https_proxy"] } else { ["HTTP_PROXY", "http_proxy"] };
    let names = own.into_iter().chain(["ALL_PROXY", "all_proxy"]);
    names.into_iter().find(|name| std::env::var(name).is_ok_and(|value| !value.is_empty()))
}

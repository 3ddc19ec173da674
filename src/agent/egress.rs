//! The agent's own connector: TCP to the server, straight or through a proxy, and TLS on top of it.

use std::{
    net::SocketAddr,
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Uri, header};
use hyper::client::conn::http1;
use hyper_util::{
    client::{legacy::connect::HttpConnector, proxy::matcher::Intercept},
    rt::TokioIo,
};
use tokio::{
    net::lookup_host,
    time::{Instant, error::Elapsed, timeout, timeout_at},
};
use tower_service::Service;

use self::socks::{Destination, Fault};
#[cfg(feature = "tls")]
use super::tls::Tls;
use super::{
    choices::HttpVersion,
    connect::{BoxError, BoxFuture, Connect, Reached, ServerIo},
};

mod fault;
mod socks;

pub(crate) use fault::ProxyError;

/// Addresses of a server that a SOCKS5 proxy is asked for, one after the other.
const MAX_DESTINATIONS: usize = 8;

/// How long a SOCKS5 proxy may take, from the look-up of the server to an answer for the last of its addresses. An attempt
/// has more, so that it is told what the proxy did, and to which address.
const SOCKS_WITHIN: Duration = Duration::from_secs(15);

/// The way from this agent to its server.
#[derive(Clone, Debug)]
pub(crate) struct Egress {
    tcp: HttpConnector,
    proxy: Option<Intercept>,
    #[cfg(feature = "tls")]
    tls: Tls,
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

    async fn reach(
        mut self,
        server: Uri,
        #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "TLS agrees on it"))] version: HttpVersion,
    ) -> Result<Reached, BoxError> {
        let io: Box<dyn ServerIo> = match self.proxy.take() {
            None => Box::new(self.tcp.call(server.clone()).await?),
            Some(proxy) => self.reach_through(&proxy, &server).await?,
        };
        #[cfg(feature = "tls")]
        if server.scheme_str() == Some("https") {
            let (io, http2) = self.tls.to_server(io, &server, version).await?;
            return Ok(Reached { io, http2: Some(http2) });
        }
        Ok(Reached { io, http2: None })
    }

    async fn reach_through(&mut self, proxy: &Intercept, server: &Uri) -> Result<Box<dyn ServerIo>, ProxyError> {
        let (at, server) = (with_port(proxy.uri()), with_port(server));
        if let Some("socks5" | "socks5h") = at.scheme_str() {
            return self.reach_by_socks(&at, proxy.raw_auth(), &server).await;
        }
        let io = self.connect(&at).await?;
        #[cfg(feature = "tls")]
        if at.scheme_str() == Some("https") {
            let shaken = self.tls.to_proxy(io, &at).await;
            let io = shaken.map_err(|error| ProxyError::caused(&at, "cannot be reached by TLS", error))?;
            return tunnel(io, &at, proxy.basic_auth(), &server).await;
        }
        tunnel(io, &at, proxy.basic_auth(), &server).await
    }

    async fn reach_by_socks(
        &mut self,
        at: &Uri,
        auth: Option<(&str, &str)>,
        server: &Uri,
    ) -> Result<Box<dyn ServerIo>, ProxyError> {
        let until = Instant::now() + SOCKS_WITHIN;
        let host = server.host().unwrap_or_default();
        let late = |elapsed: Elapsed| {
            ProxyError::caused(at, &format!("was not asked: {host} could not be looked up"), elapsed.into())
        };
        let to = timeout_at(until, destinations(at, server)).await.map_err(late)??;
        self.reach_one_of(at, auth, server, to, until).await
    }

    /// Has a SOCKS5 proxy open a connection to the first of these that it can reach, all of which have an equal share of
    /// the time: however many it is silent about, the last one is asked for.
    async fn reach_one_of(
        &mut self,
        at: &Uri,
        auth: Option<(&str, &str)>,
        server: &Uri,
        destinations: Vec<Destination>,
        until: Instant,
    ) -> Result<Box<dyn ServerIo>, ProxyError> {
        let mut faults = Vec::new();
        let mut left = u32::try_from(destinations.len()).unwrap_or(u32::MAX);
        for to in destinations {
            let share = until.saturating_duration_since(Instant::now()) / left;
            left -= 1;
            match timeout(share, self.ask_for(at, auth, &to)).await.unwrap_or(Ok(Err(Fault::Timeout)))? {
                Ok(io) => return Ok(io),
                Err(fault) => {
                    let goes_on = fault.is_of_destination();
                    faults.push((to.to_string(), fault));
                    if !goes_on {
                        break;
                    }
                }
            }
        }
        Err(ProxyError::by_socks(at, server.authority().map_or("", |to| to.as_str()), &faults))
    }

    /// Asks a SOCKS5 proxy for this one, on a connection of its own: a proxy closes the one on which it refused.
    async fn ask_for(
        &mut self,
        at: &Uri,
        auth: Option<(&str, &str)>,
        to: &Destination,
    ) -> Result<Result<Box<dyn ServerIo>, Fault>, ProxyError> {
        let mut io = TokioIo::new(self.connect(at).await?);
        let asked = socks::connect(&mut io, auth, to).await;
        Ok(asked.map(|()| io.into_inner()))
    }

    /// TCP to the proxy.
    async fn connect(&mut self, at: &Uri) -> Result<Box<dyn ServerIo>, ProxyError> {
        match self.tcp.call(at.clone()).await {
            Ok(io) => Ok(Box::new(io)),
            Err(error) => Err(ProxyError::caused(at, "cannot be reached", error.into())),
        }
    }
}

impl Connect for Egress {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, server: Uri, version: HttpVersion) -> BoxFuture<'static, Result<Reached, BoxError>> {
        Box::pin(self.clone().reach(server, version))
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
    let failed = |error: hyper::Error| ProxyError::caused(at, "failed", error.into());
    let (mut sender, connection) = http1::handshake::<_, String>(io).await.map_err(failed)?;
    let to = server.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::connect(to).header(header::HOST, to);
    if let Some(auth) = auth {
        request = request.header(header::PROXY_AUTHORIZATION, auth);
    }
    let request = request.body(String::new()).map_err(|error| ProxyError::caused(at, "failed", error.into()))?;
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

/// What a SOCKS5 proxy is asked for: the server's name, or with `socks5` each of its first addresses.
async fn destinations(at: &Uri, server: &Uri) -> Result<Vec<Destination>, ProxyError> {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = server.port_u16().unwrap_or_default();
    if let Ok(ip) = host.parse() {
        return Ok(vec![Destination::Address(SocketAddr::new(ip, port))]);
    }
    if at.scheme_str() == Some("socks5h") {
        return Ok(vec![Destination::Named(host.to_owned(), port)]);
    }
    let unknown = |error| ProxyError::caused(at, &format!("was not asked: {host} has no address"), error);
    let found = lookup_host((host, port)).await.map_err(|error| unknown(error.into()))?;
    let found: Vec<_> = found.take(MAX_DESTINATIONS).map(Destination::Address).collect();
    if found.is_empty() { Err(unknown("the name has none".into())) } else { Ok(found) }
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

#[cfg(test)]
mod tests;

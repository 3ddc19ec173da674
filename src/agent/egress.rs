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
use tokio::{net::lookup_host, time::timeout};
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

/// How long a SOCKS5 proxy may take for one of several addresses.
const DESTINATION_WITHIN: Duration = Duration::from_secs(5);

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
            let to = destinations(&at, &server).await?;
            return self.reach_by_socks(&at, proxy.raw_auth(), &server, to).await;
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

    /// Has a SOCKS5 proxy open a connection to the first of these that it can reach. Each is asked for on a connection of
    /// its own: a proxy closes the one on which it refused.
    async fn reach_by_socks(
        &mut self,
        at: &Uri,
        auth: Option<(&str, &str)>,
        server: &Uri,
        destinations: Vec<Destination>,
    ) -> Result<Box<dyn ServerIo>, ProxyError> {
        let mut faults = Vec::new();
        let last = destinations.len().saturating_sub(1);
        for (n, to) in destinations.into_iter().enumerate() {
            let mut io = TokioIo::new(self.connect(at).await?);
            let asked = socks::connect(&mut io, auth, &to);
            let asked = async {
                // The last one has what is left of the attempt's time.
                if n == last {
                    asked.await
                } else {
                    timeout(DESTINATION_WITHIN, asked).await.unwrap_or(Err(Fault::Timeout))
                }
            };
            match asked.await {
                Ok(()) => return Ok(io.into_inner()),
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
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::error::ErrorKind;

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
    async fn an_address_is_asked_for_as_it_is_and_a_name_is_looked_up_or_not() {
        let table = [
            ("socks5://p", "http://127.0.0.1:80/x", "Address(127.0.0.1:80)"),
            ("socks5h://p", "http://[::1]:80/x", "Address([::1]:80)"),
            ("socks5h://p", "http://localhost:80/x", "Named(\"localhost\", 80)"),
        ];
        for (at, server, expected) in table {
            let found = destinations(&Uri::from_static(at), &Uri::from_static(server)).await.unwrap();
            assert_eq!(format!("{found:?}"), format!("[{expected}]"));
        }
        let found =
            destinations(&Uri::from_static("socks5://p"), &Uri::from_static("http://localhost:80")).await.unwrap();
        assert!(found.iter().all(|to| matches!(to, Destination::Address(address) if address.ip().is_loopback())));
    }

    /// A SOCKS5 proxy that gives each connection one of these replies, or none to `SILENT`; and the last parts of the
    /// addresses that it was asked for.
    async fn proxy(replies: &'static [u8]) -> (Uri, Arc<Mutex<Vec<u8>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("socks5://{}", listener.local_addr().unwrap()).parse().unwrap();
        let asked = Arc::<Mutex<Vec<u8>>>::default();
        let told = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut silent = Vec::new();
            for reply in replies {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut bytes = [0; 13];
                socket.read_exact(&mut bytes[..3]).await.unwrap();
                socket.write_all(&[5, 0]).await.unwrap();
                socket.read_exact(&mut bytes[3..]).await.unwrap();
                told.lock().unwrap().push(bytes[10]);
                match *reply {
                    SILENT => silent.push(socket),
                    reply => socket.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap(),
                }
            }
        });
        (at, asked)
    }

    const SILENT: u8 = 99;

    /// What comes of it if the server has this many addresses.
    async fn in_turn(at: &Uri, addresses: u8) -> Result<(), ProxyError> {
        let to = (1..=addresses).map(|n| Destination::Address(([192, 0, 2, n], 80).into())).collect();
        let mut egress = Egress::new(
            None,
            #[cfg(feature = "tls")]
            super::super::tls::TlsOptions::new().build(false).unwrap(),
        );
        egress.reach_by_socks(at, None, &Uri::from_static("http://gateway.example:80"), to).await.map(drop)
    }

    #[tokio::test]
    async fn the_addresses_of_a_server_are_asked_for_in_turn() {
        let (at, asked) = proxy(&[5, 2, 0]).await;
        in_turn(&at, 4).await.unwrap();
        assert_eq!(*asked.lock().unwrap(), [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_for_which_the_proxy_is_silent_does_not_use_up_the_time() {
        let (at, _) = proxy(&[SILENT, 0]).await;
        let start = tokio::time::Instant::now();
        in_turn(&at, 2).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn a_server_is_refused_if_all_its_addresses_are() {
        for (replies, refusal) in [(&[2, 8], Some(ErrorKind::Handshake)), (&[2, 5], None), (&[5, 2], None)] {
            let (at, _) = proxy(replies).await;
            let error = in_turn(&at, 2).await.unwrap_err();
            assert_eq!(error.refusal, refusal, "{error}");
            let told = error.to_string();
            assert!(told.contains("gateway.example:80") && told.contains("192.0.2.2:80: it answered"), "{told}");
        }
    }
}

//! The way to the server, stage by stage: its name, TCP, the proxy of the environment, TLS.

use std::{error::Error as StdError, io, net::SocketAddr, path::Path, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    egress::{Egress, Environment},
    fault::{Failure, Fault},
    server::Server,
    tls,
    words::took,
};

/// A byte stream, of whatever it is made.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<I: AsyncRead + AsyncWrite + Send + Unpin> Io for I {}

pub(crate) type BoxedIo = Box<dyn Io>;

/// How the server is reached.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) server: Server,
    pub(crate) environment: Environment,
    tls: Option<TlsConnector>,
    /// Whether the certificate is looked at.
    pub(crate) is_verified: bool,
    /// How long each stage may take, and each answer.
    pub(crate) patience: Duration,
}

impl Way {
    pub(crate) fn new(
        server: Server,
        ca: Option<&Path>,
        insecure: bool,
        patience: Duration,
    ) -> Result<Self, Box<dyn StdError>> {
        let connector = || tls::connector(ca, insecure);
        let tls = if server.is_tls { Some(connector()?) } else { None };
        Ok(Self { environment: Environment::of(&server, connector)?, server, tls, is_verified: !insecure, patience })
    }

    /// Every stage.
    pub(crate) async fn open(&self) -> Result<BoxedIo, Failure> {
        let tcp = self.connect(&self.resolve().await?).await?;
        let io = self.pass(tcp).await?;
        Ok(self.secure(io).await?.0)
    }

    /// The proxy of the environment, if it is for this server.
    pub(crate) fn egress(&self) -> Option<&Egress> {
        if let Environment::Proxy(egress) = &self.environment { Some(egress) } else { None }
    }

    /// Whom TCP is to reach: the server, or the proxy in front of it.
    pub(crate) fn first_hop(&self) -> (&str, u16) {
        match self.egress() {
            Some(egress) => (egress.host(), egress.port()),
            None => (&self.server.host, self.server.port),
        }
    }

    /// The addresses of the first hop, at least one.
    pub(crate) async fn resolve(&self) -> Result<Vec<SocketAddr>, Failure> {
        let (host, port) = self.first_hop();
        let why = match timeout(self.patience, lookup_host((host, port))).await {
            Ok(Ok(addrs)) => {
                let addrs: Vec<_> = addrs.collect();
                if !addrs.is_empty() {
                    return Ok(addrs);
                }
                "it has no address".to_owned()
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {}", took(self.patience)),
        };
        let what = format!("{host} does not resolve: {why}");
        Err(Failure::new(
            Fault::Name,
            what,
            "a slip in the name, or no working DNS here",
            format!("getent hosts {host}"),
        ))
    }

    /// The first address that takes the connection.
    pub(crate) async fn connect(&self, addrs: &[SocketAddr]) -> Result<TcpStream, Failure> {
        // Several share the time, so that one in a black hole leaves some to the next.
        let share = self.patience / u32::try_from(addrs.len().max(1)).unwrap_or(u32::MAX);
        let mut whys = Vec::new();
        let mut refused = false;
        for addr in addrs {
            match timeout(share, TcpStream::connect(addr)).await {
                Ok(Ok(tcp)) => {
                    // Small requests must not wait for acks; a socket that refuses works all the same.
                    let _ = tcp.set_nodelay(true);
                    return Ok(tcp);
                }
                Ok(Err(error)) => {
                    refused |= error.kind() == io::ErrorKind::ConnectionRefused;
                    whys.push(format!("{addr}: {error}"));
                }
                Err(_) => whys.push(format!("{addr}: no answer within {}", took(share))),
            }
        }
        let (host, port) = self.first_hop();
        let cause = if refused {
            "nothing listens there: it is down, or the port is another"
        } else {
            "the machine is down, or a firewall lets nothing through"
        };
        Err(Failure::new(Fault::Tcp, whys.join("; "), cause, format!("nc -vz {host} {port} ; there: ss -ltnp")))
    }

    /// Through the proxy of the environment, if there is one.
    pub(crate) async fn pass(&self, tcp: TcpStream) -> Result<BoxedIo, Failure> {
        match self.egress() {
            Some(egress) => egress.through(tcp, &self.server, self.patience).await,
            None => Ok(Box::new(tcp)),
        }
    }

    /// TLS, if the URL asks for it; the second value tells its version.
    pub(crate) async fn secure(&self, io: BoxedIo) -> Result<(BoxedIo, Option<String>), Failure> {
        match &self.tls {
            Some(connector) => {
                let (io, version) = tls::secure(connector, &self.server, io, self.patience).await?;
                Ok((io, Some(version)))
            }
            None => Ok((io, None)),
        }
    }
}

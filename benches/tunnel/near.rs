//! The near side: the gateway with its connection manager, and open pipes to the far side over each carrier.

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use revdial::{AgentKey, TargetName, connector::RevDialConnector, connman::ConnectionManager};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{WebSocketStream, accept_async};

use super::far::{self, Addresses};
use crate::{
    commands::HTTP,
    gateway::{Pipe, gateway},
};

/// What carries the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// A stream of ours, dialled with the agent's word that it took it.
    Tunnel,
    /// A stream of ours, on which data follows OPEN at once.
    EarlyTunnel,
    /// A stream of ours, of an agent that speaks dial-back.
    Dialback,
    /// A TCP connection to the far side, as if there were no need for a tunnel.
    Tcp,
    /// The messages of a WebSocket, as if one pipe were enough.
    WebSocket,
}

impl Carrier {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::EarlyTunnel => "tunnel, early data",
            Self::Dialback => "dial-back",
            Self::Tcp => "TCP",
            Self::WebSocket => "WebSocket",
        }
    }
}

/// All that is open between the two sides.
pub(crate) struct Near {
    key: AgentKey,
    classic: AgentKey,
    connman: ConnectionManager,
    far: Addresses,
    /// Open streams of ours.
    pub(crate) tunnel: Vec<Box<dyn Pipe>>,
    /// Open dial-back streams of ours.
    pub(crate) dialback: Vec<Box<dyn Pipe>>,
    /// Open TCP connections.
    pub(crate) tcp: Vec<Box<dyn Pipe>>,
    /// The one WebSocket, of which this is the server.
    pub(crate) websocket: WebSocketStream<TcpStream>,
    /// Pools streams of ours.
    pub(crate) tunnel_client: Client<RevDialConnector, Empty<Bytes>>,
    /// Pools TCP connections.
    pub(crate) tcp_client: Client<HttpConnector, Empty<Bytes>>,
}

/// Open pipes of each sort.
const PIPES: usize = 8;

impl Near {
    /// Starts both sides and connects them.
    pub(crate) async fn connect() -> Self {
        let connman = ConnectionManager::new();
        let gateway = gateway(connman.clone()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let far = far::start(gateway, listener.local_addr().expect("a bound listener"));
        let (stream, _) = listener.accept().await.expect("the far side dials");
        stream.set_nodelay(true).expect("a TCP socket");
        let websocket = accept_async(stream).await.expect("a handshake");

        let [key, classic, classic_http]: [AgentKey; 3] =
            [far::KEY, far::CLASSIC[0].0, far::CLASSIC[1].0].map(|key| key.parse().expect("a key"));
        while [&key, &classic, &classic_http].into_iter().any(|key| connman.epoch(key).is_none()) {
            tokio::task::yield_now().await;
        }
        let mut tcp_connector = HttpConnector::new();
        tcp_connector.set_nodelay(true);
        let mut near = Self {
            key,
            classic,
            far,
            tunnel: Vec::new(),
            dialback: Vec::new(),
            tcp: Vec::new(),
            websocket,
            tunnel_client: Client::builder(TokioExecutor::new()).build(RevDialConnector::new(connman.clone())),
            tcp_client: Client::builder(TokioExecutor::new()).build(tcp_connector),
            connman,
        };
        for _ in 0..PIPES {
            near.tunnel.push(near.dial(Carrier::Tunnel).await);
            near.dialback.push(near.dial(Carrier::Dialback).await);
            near.tcp.push(near.dial(Carrier::Tcp).await);
        }
        near
    }

    /// A new pipe.
    pub(crate) async fn dial(&self, carrier: Carrier) -> Box<dyn Pipe> {
        match carrier {
            Carrier::Tunnel | Carrier::EarlyTunnel => {
                let dial = self.connman.dial(&self.key, &TargetName::default());
                Box::new(dial.early_data(carrier == Carrier::EarlyTunnel).await.expect("the agent is there"))
            }
            Carrier::Dialback => {
                let dial = self.connman.dial(&self.classic, &TargetName::default());
                Box::new(dial.await.expect("the agent is there"))
            }
            Carrier::Tcp => {
                let stream = TcpStream::connect(self.far.commands).await.expect("the far side listens");
                stream.set_nodelay(true).expect("a TCP socket");
                // Thousands of closed connections in TIME_WAIT would use up the ports; it makes TCP's close cheaper.
                stream.set_zero_linger().expect("a TCP socket");
                Box::new(stream)
            }
            Carrier::WebSocket => unreachable!("there is one WebSocket"),
        }
    }

    /// The open pipes of a carrier.
    pub(crate) fn pipes(&mut self, carrier: Carrier) -> &mut Vec<Box<dyn Pipe>> {
        match carrier {
            Carrier::Tunnel | Carrier::EarlyTunnel => &mut self.tunnel,
            Carrier::Dialback => &mut self.dialback,
            Carrier::Tcp => &mut self.tcp,
            Carrier::WebSocket => unreachable!("a WebSocket is no pipe"),
        }
    }

    /// Where a GET over this carrier goes.
    pub(crate) fn uri(&self, carrier: Carrier) -> hyper::Uri {
        let uri = match carrier {
            Carrier::Tcp => format!("http://{}/", self.far.http),
            Carrier::Dialback => format!("http://{}/", far::CLASSIC[1].0),
            _ => format!("http://{}~{}/", HTTP, self.key),
        };
        uri.parse().expect("a URI")
    }
}

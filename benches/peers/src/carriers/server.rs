//! The server's side of every carrier: where agents dial in, and how streams to them are opened.

use std::net::SocketAddr;

use revdial::{AgentKey, connman::ConnectionManager};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_tungstenite::accept_async;
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::{
    bare, h2,
    message_bytes::MessageBytes,
    native, raw,
    sockets::{accept, connect, listen},
    upgraded, yamux,
};
use crate::carrier::Carrier;

/// A byte stream to the agent.
pub(crate) trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<P: AsyncRead + AsyncWrite + Send + Unpin> Pipe for P {}

/// Opens streams of one tunnel.
#[derive(Clone)]
pub(crate) enum Opener {
    Native(ConnectionManager, AgentKey),
    Tcp(SocketAddr),
    Upgraded(SocketAddr),
    Bare(bare::Opener),
    Yamux(yamux::Opener),
    H2(h2::Opener),
}

impl Opener {
    /// A new stream. `early`: what is written follows at once, without a word of the agent before it.
    pub(crate) async fn dial(&self, early: bool) -> Box<dyn Pipe> {
        match self {
            Self::Native(connman, key) => native::dial(connman, key, early).await,
            Self::Tcp(address) => {
                let stream = connect(*address).await;
                // Thousands of closed connections in TIME_WAIT would use up the ports; it makes TCP's close cheaper.
                stream.set_zero_linger().expect("a TCP socket");
                Box::new(stream)
            }
            Self::Upgraded(address) => Box::new(upgraded::dial(*address).await),
            Self::Bare(opener) => opener.dial(),
            Self::Yamux(opener) => opener.dial().await,
            Self::H2(opener) => opener.dial().await,
        }
    }
}

/// A server at work.
pub(crate) struct Server {
    carrier: Carrier,
    door: Door,
    /// One for each tunnel, in the order in which they came.
    pub(crate) tunnels: Vec<Opener>,
    /// The one WebSocket, where that is the carrier.
    pub(crate) raw: Option<raw::Socket>,
    /// Plain TCP has no tunnels: what stands for idle ones is a connection each.
    idle: Vec<Box<dyn Pipe>>,
}

/// Where agents come in.
enum Door {
    Gateway(ConnectionManager),
    Listener(TcpListener),
    /// They do not: the server dials them.
    None,
}

impl Server {
    /// Starts it; the address is where agents dial.
    pub(crate) async fn start(carrier: Carrier) -> (Self, Option<SocketAddr>) {
        let (door, address) = match carrier {
            Carrier::Native | Carrier::NativeWide | Carrier::NativeNoGrace | Carrier::Dialback => {
                let (connman, address) = native::gateway(carrier).await;
                (Door::Gateway(connman), Some(address))
            }
            Carrier::Raw
            | Carrier::Bare
            | Carrier::BareWide
            | Carrier::YamuxTcp
            | Carrier::YamuxWebSocket
            | Carrier::H2 => {
                let (listener, address) = listen().await;
                (Door::Listener(listener), Some(address))
            }
            Carrier::Tcp | Carrier::Upgraded => (Door::None, None),
        };
        (Self { carrier, door, tunnels: Vec::new(), raw: None, idle: Vec::new() }, address)
    }

    /// Waits for so many tunnels in all.
    pub(crate) async fn meet(&mut self, count: usize, agent: Option<SocketAddr>) {
        while self.tunnels.len() < count {
            let opener = match &self.door {
                Door::Gateway(connman) => {
                    let key = native::key(self.tunnels.len());
                    native::arrival(connman, &key).await;
                    Opener::Native(connman.clone(), key)
                }
                Door::None => {
                    let agent = agent.expect("an agent to dial");
                    let opener = match self.carrier {
                        Carrier::Upgraded => Opener::Upgraded(agent),
                        _ => Opener::Tcp(agent),
                    };
                    self.idle.push(opener.dial(true).await);
                    opener
                }
                Door::Listener(listener) => {
                    let stream = accept(listener).await;
                    match self.carrier {
                        Carrier::Bare | Carrier::BareWide => {
                            Opener::Bare(bare::Opener::start(self.carrier, stream).await)
                        }
                        Carrier::H2 => Opener::H2(h2::Opener::start(stream).await),
                        Carrier::YamuxTcp => Opener::Yamux(yamux::Opener::start(stream.compat())),
                        Carrier::YamuxWebSocket => {
                            let socket = accept_async(stream).await.expect("a handshake");
                            Opener::Yamux(yamux::Opener::start(MessageBytes::new(socket).compat()))
                        }
                        _ => {
                            self.raw = Some(accept_async(stream).await.expect("a handshake"));
                            return;
                        }
                    }
                }
            };
            self.tunnels.push(opener);
        }
    }
}

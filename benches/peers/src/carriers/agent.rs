//! The agent's side of every carrier: dials in, and serves the streams that it is given.

use std::net::SocketAddr;

use tokio::{net::TcpStream, spawn};
use tokio_tungstenite::client_async;
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::{
    bare, h2,
    message_bytes::MessageBytes,
    native, raw,
    sockets::{accept, connect, listen},
    upgraded, yamux,
};
use crate::{carrier::Carrier, commands::serve};

/// An agent at work.
pub(crate) struct Agent {
    carrier: Carrier,
    server: Option<SocketAddr>,
    tunnels: usize,
}

impl Agent {
    /// Starts it; the address is where the server dials, if it is the one that does.
    pub(crate) async fn start(carrier: Carrier, server: Option<SocketAddr>) -> (Self, Option<SocketAddr>) {
        let address = if carrier.is_dialled_by_server() { Some(listen_for_streams(carrier).await) } else { None };
        (Self { carrier, server, tunnels: 0 }, address)
    }

    /// Opens tunnels up to so many in all, one after the other.
    pub(crate) async fn open(&mut self, count: usize) {
        let Some(server) = self.server else { return };
        while self.tunnels < count {
            match self.carrier {
                Carrier::Tcp | Carrier::Upgraded => {}
                Carrier::Raw => drop(spawn(raw::agent(websocket(server).await))),
                Carrier::Bare | Carrier::BareWide => bare::agent(self.carrier, websocket(server).await).await,
                Carrier::YamuxTcp => yamux::agent(connect(server).await.compat()),
                Carrier::YamuxWebSocket => yamux::agent(MessageBytes::new(websocket(server).await).compat()),
                Carrier::H2 => h2::agent(connect(server).await).await,
                _ => native::agent(self.carrier, server, self.tunnels).await,
            }
            self.tunnels += 1;
        }
    }
}

async fn listen_for_streams(carrier: Carrier) -> SocketAddr {
    let (listener, address) = listen().await;
    spawn(async move {
        loop {
            let stream = accept(&listener).await;
            match carrier {
                Carrier::Upgraded => drop(spawn(async move { serve(upgraded::accept(stream).await).await })),
                _ => drop(spawn(serve(stream))),
            }
        }
    });
    address
}

async fn websocket(server: SocketAddr) -> tokio_tungstenite::WebSocketStream<TcpStream> {
    let (socket, _) = client_async(format!("ws://{server}/"), connect(server).await).await.expect("a handshake");
    socket
}

//! How the two ends of a link come to be: tungstenite shakes hands, and then the socket is ours.

use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::{net::TcpStream, spawn};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config, tungstenite::Message};

use super::{
    driver::Driver,
    stream::{NARROW, Queue, WIDE},
};
use crate::{
    carrier::Carrier,
    carriers::{framing::KEY, server::Pipe, upgraded},
};

/// Opens streams of a link.
#[derive(Clone)]
pub(crate) struct Opener(Arc<Queue>);

impl Opener {
    /// The server's side of a connection that an agent has dialled.
    pub(crate) async fn start(carrier: Carrier, io: TcpStream) -> Self {
        let mut socket = accept_async_with_config(io, Some(upgraded::config())).await.expect("a handshake");
        // Before it the agent may still be at its handshake, and would take for a part of that what comes behind.
        socket.next().await.expect("an open socket").expect("an open socket");
        let queue = Arc::new(Queue::new(None, window(carrier)));
        spawn(Driver::new(socket.into_inner(), queue.clone()));
        Self(queue)
    }

    pub(crate) fn dial(&self) -> Box<dyn Pipe> {
        Box::new(self.0.open())
    }
}

/// The agent's side, which serves what the server opens.
pub(crate) async fn agent(carrier: Carrier, mut socket: WebSocketStream<TcpStream>) {
    socket.send(Message::Binary(Bytes::new())).await.expect("an open socket");
    spawn(Driver::new(socket.into_inner(), Arc::new(Queue::new(Some(KEY), window(carrier)))));
}

fn window(carrier: Carrier) -> usize {
    if carrier == Carrier::BareWide { WIDE } else { NARROW }
}

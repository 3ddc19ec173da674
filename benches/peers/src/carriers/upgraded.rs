//! A WebSocket for each stream: the connect and the handshake that each dial of dial-back has too, and then the least
//! framing. As there, it is the agent that masks, though here the server dials.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_tungstenite::{accept_async_with_config, client_async_with_config, tungstenite::protocol::WebSocketConfig};

use super::{
    framing::{self, BEFORE_DATA, Body, KEY, Key},
    inbox::Inbox,
    outbox::Outbox,
    sockets::connect,
};

/// A stream to this address.
pub(crate) async fn dial(address: SocketAddr) -> Messages {
    let stream = connect(address).await;
    // As with plain TCP: ports would be used up otherwise.
    stream.set_zero_linger().expect("a TCP socket");
    let (socket, _) =
        client_async_with_config(format!("ws://{address}/"), stream, Some(config())).await.expect("a handshake");
    Messages::new(socket.into_inner(), None)
}

/// The other side of it, which the dialler does not write to before it is done.
pub(crate) async fn accept(stream: TcpStream) -> Messages {
    let socket = accept_async_with_config(stream, Some(config())).await.expect("a handshake");
    Messages::new(socket.into_inner(), Some(KEY))
}

/// Tungstenite allocates its buffers at once: small ones make a handshake cheap.
pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(4 * 1024).write_buffer_size(0)
}

/// Each write is a message.
pub(crate) struct Messages {
    socket: TcpStream,
    key: Option<Key>,
    outbox: Outbox,
    inbox: Inbox,
    body: Body,
}

impl Messages {
    fn new(socket: TcpStream, key: Option<Key>) -> Self {
        Self { socket, key, outbox: Outbox::default(), inbox: Inbox::default(), body: Body::default() }
    }

    /// Whether there is data to read.
    fn find(&mut self) -> bool {
        while self.body.left == 0
            && let Some((body, at)) = Body::begin(&self.inbox.unread)
        {
            self.inbox.unread.advance(at);
            self.body = body;
        }
        self.body.left > 0 && !self.inbox.unread.is_empty()
    }
}

impl AsyncRead for Messages {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.find() {
            this.inbox.relax();
            if ready!(this.inbox.poll_fill(&mut this.socket, cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let before = buf.filled().len();
        let unread = &mut this.inbox.unread;
        let n = unread.len().min(this.body.left).min(buf.remaining());
        buf.put_slice(&unread[..n]);
        unread.advance(n);
        this.body.unmask(&mut buf.filled_mut()[before..]);
        this.inbox.relax();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Messages {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.outbox.poll_drain(&mut this.socket, cx))?;
        this.outbox.bytes.reserve(BEFORE_DATA + buf.len());
        framing::begin(&mut this.outbox.bytes, this.key, buf.len());
        framing::append(&mut this.outbox.bytes, this.key, buf);
        // What the socket does not take now it takes with the next write, or with the flush.
        match this.outbox.poll_drain(&mut this.socket, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(buf.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.outbox.poll_drain(&mut this.socket, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.outbox.poll_drain(&mut this.socket, cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

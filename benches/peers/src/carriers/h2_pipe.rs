//! The two bodies of an HTTP/2 exchange as a byte stream.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream, client::ResponseFuture};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Where what the peer sends comes from.
pub(crate) enum Incoming {
    /// A client's: nothing comes before the response's head.
    Awaited(ResponseFuture),
    Open(RecvStream),
}

/// Dropped, it resets the exchange, which is the cheapest close that HTTP/2 has.
pub(crate) struct H2Pipe {
    outgoing: SendStream<Bytes>,
    incoming: Incoming,
    unread: Bytes,
}

impl H2Pipe {
    pub(crate) fn new(outgoing: SendStream<Bytes>, incoming: Incoming) -> Self {
        Self { outgoing, incoming, unread: Bytes::new() }
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut RecvStream, h2::Error>> {
        if let Incoming::Awaited(response) = &mut self.incoming {
            let body = ready!(Pin::new(response).poll(cx))?.into_body();
            self.incoming = Incoming::Open(body);
        }
        match &mut self.incoming {
            Incoming::Open(body) => Poll::Ready(Ok(body)),
            Incoming::Awaited(_) => Poll::Pending,
        }
    }
}

impl AsyncRead for H2Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            let body = ready!(self.poll_incoming(cx)).map_err(io::Error::other)?;
            match ready!(body.poll_data(cx)) {
                Some(Ok(bytes)) => self.unread = bytes,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..n]);
        self.unread.advance(n);
        let body = ready!(self.poll_incoming(cx)).map_err(io::Error::other)?;
        body.flow_control().release_capacity(n).map_err(io::Error::other)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for H2Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.outgoing.reserve_capacity(buf.len());
        while self.outgoing.capacity() == 0 {
            match ready!(self.outgoing.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let n = self.outgoing.capacity().min(buf.len());
        self.outgoing.send_data(Bytes::copy_from_slice(&buf[..n]), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(n))
    }

    /// The connection's task writes as soon as it runs.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.outgoing.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}

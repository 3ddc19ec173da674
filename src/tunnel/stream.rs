//! A byte stream through a tunnel, for tokio, for hyper and for hyper-util's clients.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    dialback::{DialbackStream, Slices},
    frame::ResetCode,
    key::TargetName,
    mux::MuxStream,
};

/// A byte stream through a tunnel: one connection to a target behind an agent, or, on the agent's side, one that the
/// server asked for.
///
/// It implements tokio's [`AsyncRead`] and [`AsyncWrite`], hyper's [`Read`](hyper::rt::Read) and
/// [`Write`](hyper::rt::Write) and, with the features `connector` or `agent`, hyper-util's `Connection`, so that no
/// adapter is needed. Both directions are independent: after a shutdown the other one goes on.
///
/// Writes take what credit and buffers allow and wait for more; flushing is ready at once, since what was written is
/// sent by itself. Where the same methods exist in two traits, call them by trait, as in
/// `tokio::io::AsyncWriteExt::write_all(&mut stream, ..)`.
///
/// # Ends
/// The end of the stream is only ever the peer's own: a lost session, a reset or a violation is an error, whose kind
/// is found with [`Error::find`](crate::Error::find). What arrived before a reset is read first.
///
/// A stream to an agent of the dial-back protocol cannot promise that: its end may be a loss, see
/// [`eof_is_verified`](Self::eof_is_verified). It flushes what is written as far as its connection takes it, so that
/// flushing is only ready when all has left. Its server's side ends its direction when it is dropped, and not at a shutdown
/// already: the deployed agents take the end of one direction for that of both.
///
/// Dropping a stream delivers what was written, then the end, and has the peer stop writing. Dropped by a panic, it
/// is reset instead.
///
/// # Cancel safety
/// Reading and writing lose nothing when the future around them is dropped.
#[derive(Debug)]
pub struct TunnelStream {
    inner: Inner,
    target: TargetName,
}

/// The stream of either protocol.
#[derive(Debug)]
pub(super) enum Inner {
    Mux(MuxStream),
    Dialback(Box<DialbackStream>),
}

impl From<MuxStream> for Inner {
    fn from(stream: MuxStream) -> Self {
        Self::Mux(stream)
    }
}

impl From<Box<DialbackStream>> for Inner {
    fn from(stream: Box<DialbackStream>) -> Self {
        Self::Dialback(stream)
    }
}

impl TunnelStream {
    /// A stream that was opened for `target`.
    pub(super) fn new(inner: Inner, target: TargetName) -> Self {
        Self { inner, target }
    }

    /// Ends both directions at once: the peer sees a reset, never an end.
    pub fn reset(self) {
        self.reset_with(ResetCode::CANCELLED);
    }

    /// The same with a reason of the caller's.
    pub(crate) fn reset_with(self, code: ResetCode) {
        match self.inner {
            Inner::Mux(mux) => mux.reset(code),
            Inner::Dialback(dialback) => dialback.reset(),
        }
    }

    /// The target that was asked for.
    #[must_use]
    pub fn target(&self) -> &TargetName {
        &self.target
    }

    /// Whether an end of this stream is known to be the peer's wish: false with agents and servers of the dial-back
    /// protocol, where a lost connection looks the same. Who must not take a truncated stream for a whole one has it
    /// fail instead, by [`strict_eof`](crate::connman::Dial::strict_eof).
    #[must_use]
    pub fn eof_is_verified(&self) -> bool {
        matches!(self.inner, Inner::Mux(_))
    }

    /// Has an end that is not verified be an error.
    #[cfg(feature = "server")]
    pub(crate) fn strict_eof(&mut self) {
        if let Inner::Dialback(dialback) = &mut self.inner {
            dialback.strict_eof();
        }
    }

    /// Ready once the peer reads no more of this stream: it dropped its side, reset the stream, or the session ended.
    /// The end of a dial-back stream's connection is that of both directions, and noticed by reading.
    ///
    /// For a side that has nothing to write now, and would not learn otherwise that what it waits for is of use to
    /// nobody. Only the last task that asked is woken.
    pub fn poll_stopped(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.inner {
            Inner::Mux(mux) => mux.poll_stopped(cx),
            Inner::Dialback(dialback) => dialback.poll_stopped(cx),
        }
    }

    fn poll_chunks(&mut self, cx: &mut Context<'_>, room: usize, sink: impl FnMut(&[u8])) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Mux(mux) => mux.poll_chunks(cx, room, sink),
            Inner::Dialback(dialback) => dialback.poll_chunks(cx, room, sink),
        }
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = buf.remaining();
        self.get_mut().poll_chunks(cx, room, |bytes| buf.put_slice(bytes))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Mux(mux) => Pin::new(mux).poll_write(cx, buf),
            Inner::Dialback(dialback) => dialback.poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Mux(mux) => Pin::new(mux).poll_write_vectored(cx, bufs),
            Inner::Dialback(dialback) => dialback.poll_write(cx, Slices::new(bufs)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Mux(mux) => Pin::new(mux).poll_flush(cx),
            Inner::Dialback(dialback) => dialback.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Mux(mux) => Pin::new(mux).poll_shutdown(cx),
            Inner::Dialback(dialback) => dialback.poll_shutdown(cx),
        }
    }
}

impl hyper::rt::Read for TunnelStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buf.remaining();
        self.get_mut().poll_chunks(cx, room, |bytes| buf.put_slice(bytes))
    }
}

/// As by tokio's trait.
impl hyper::rt::Write for TunnelStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(self, cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write_vectored(self, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        AsyncWrite::is_write_vectored(self)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(self, cx)
    }
}

#[cfg(any(feature = "connector", feature = "agent"))]
impl hyper_util::client::legacy::connect::Connection for TunnelStream {
    fn connected(&self) -> hyper_util::client::legacy::connect::Connected {
        hyper_util::client::legacy::connect::Connected::new()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use hyper::{Request, Response, body::Incoming as Body, service::service_fn};
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::{
        error::{Error, ErrorKind},
        frame::Metadata,
        key::Epoch,
        link::{MessageLink, Side},
        mux::MuxTunnel,
        proto::{Role, Session, SessionConfig, SessionEnd},
        spans::SessionSpan,
        tunnel::{Incoming, Tunnel},
    };

    /// A server's tunnel and an agent's, on a pipe.
    fn tunnels() -> (Tunnel, MuxTunnel) {
        let config = SessionConfig::default();
        let (near, far) = tokio::io::duplex(16 * 1024);
        let ends = [(Role::Server, near, Side::Server), (Role::Agent, far, Side::Client)];
        let mut tunnels = Vec::new();
        for (role, io, side) in ends {
            let session = Session::new(role, config.clone(), config.bounds(), 1);
            let tunnel = MuxTunnel::new(session, Epoch::new(1), SessionSpan::new("a".parse().unwrap(), 1));
            let link = MessageLink::new(io, side, crate::frame::MAX_MESSAGE);
            tokio::spawn(tunnel.link_up(link, Epoch::new(1), 0).unwrap());
            tunnels.push(tunnel);
        }
        let agent = tunnels.pop().unwrap();
        (Tunnel::Mux(tunnels.pop().unwrap()), agent)
    }

    async fn streams() -> (TunnelStream, TunnelStream, Tunnel) {
        let (server, agent) = tunnels();
        let vnc: TargetName = "vnc".parse().unwrap();
        let (near, far) = tokio::join!(server.open(vnc, Metadata::default(), false), async {
            Incoming::Mux(agent.incoming().await.unwrap()).accept()
        });
        (near.unwrap(), far.unwrap(), server)
    }

    #[test]
    fn is_what_hyper_tokio_and_tonic_ask_of_a_connection() {
        fn asks<T>()
        where
            T: AsyncRead + AsyncWrite + hyper::rt::Read + hyper::rt::Write + Send + Sync + Unpin + 'static,
        {
        }
        asks::<TunnelStream>();
    }

    #[tokio::test(start_paused = true)]
    async fn both_ends_know_the_target() {
        let (near, far, _server) = streams().await;
        assert_eq!((near.target().as_str(), far.target().as_str()), ("vnc", "vnc"));
    }

    #[tokio::test(start_paused = true)]
    async fn carries_hyper_both_ways_without_an_adapter() {
        let (near, far, _server) = streams().await;
        let echo = service_fn(|request: Request<Body>| async move {
            Ok::<_, hyper::Error>(Response::new(Full::new(request.into_body().collect().await?.to_bytes())))
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(far, echo));
        let (mut client, connection) = hyper::client::conn::http1::handshake(near).await.unwrap();
        tokio::spawn(connection);
        for size in [0, 1, 3_000_000] {
            let body = Bytes::from(vec![b'x'; size]);
            let request = Request::post("/").header("host", "agent").body(Full::new(body.clone())).unwrap();
            let response = client.send_request(request).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lost_session_is_found_in_hypers_error_and_is_no_end() {
        let (near, mut far, server) = streams().await;
        let (mut client, connection) = hyper::client::conn::http1::handshake(near).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::get("/").body(Full::new(Bytes::new())).unwrap();
        let answer = tokio::spawn(async move { client.send_request(request).await });
        far.read_u8().await.unwrap();
        server.end(SessionEnd::Lost);
        assert!(answer.await.unwrap().is_err());
        let error = connection.await.unwrap().unwrap_err();
        assert_eq!(Error::find(&error).map(Error::kind), Some(ErrorKind::SessionLost));
    }

    #[tokio::test(start_paused = true)]
    async fn reset_is_an_error_for_the_peer_never_an_end() {
        let (mut near, far, _server) = streams().await;
        far.reset();
        let error = near.read_u8().await.unwrap_err();
        assert_eq!(Error::find(&error).map(Error::kind), Some(ErrorKind::PeerReset));
    }
}

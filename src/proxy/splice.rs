//! Raw bytes between a caller and a stream, until both have ended; the way that one ends is the way of the other.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::{rt::TokioIo, server::conn::auto};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::tunnel::TunnelStream;

/// Bytes copied at a time each way: a quantum of the scheduler.
const BUFFER: usize = 16 * 1024;

/// Buffers that one poll moves each way, before other tasks get their turn.
const ROUNDS: usize = 16;

/// How a splice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SpliceEnd {
    /// Both sides have ended.
    Clean,
    /// The caller's connection failed: the stream was reset.
    CallerFailed,
    /// The stream failed: the caller's connection was cut.
    StreamFailed,
}

/// A caller's connection.
pub(super) trait Caller: AsyncRead + AsyncWrite + Unpin + Send {
    /// Closes it so that it looks like no clean end, as far as its kind can.
    fn cut(self);
}

impl Caller for TokioIo<Upgraded> {
    /// A TCP socket below, as plain hyper, `auto` and `axum::serve` have it, sends RST. What lies deeper, as below
    /// TLS, is closed without the goodbye of its protocol.
    fn cut(self) {
        let tcp = match self.into_inner().downcast::<TokioIo<TcpStream>>() {
            Ok(parts) => Some(parts.io),
            Err(upgraded) => auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded).ok().map(|parts| parts.io),
        };
        if let Some(tcp) = tcp {
            // Refused only by a socket that is broken, and so ends no cleaner.
            let _ = tcp.inner().set_zero_linger();
        }
    }
}

/// Copies both ways and keeps half-closes. Dropped before the end it resets the stream and cuts the caller off.
#[must_use = "futures do nothing unless polled"]
pub(super) struct Splice<C: Caller> {
    // Both taken at the end.
    caller: Option<C>,
    stream: Option<TunnelStream>,
    up: Pipe,
    down: Pipe,
}

impl<C: Caller> Splice<C> {
    /// `early` was read from the stream already.
    pub(super) fn new(caller: C, stream: TunnelStream, early: Bytes) -> Self {
        Self { caller: Some(caller), stream: Some(stream), up: Pipe::new(Bytes::new()), down: Pipe::new(early) }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<SpliceEnd> {
        let (Some(caller), Some(stream)) = (&mut self.caller, &mut self.stream) else {
            return Poll::Ready(SpliceEnd::Clean);
        };
        match self.up.poll(cx, caller, stream) {
            Poll::Ready(Err(Side::Reader)) => return Poll::Ready(SpliceEnd::CallerFailed),
            // Nobody reads it: what the other direction still brings tells whether that is an end or a failure.
            Poll::Ready(Err(Side::Writer)) => self.up.end(),
            // With a silent caller there would be no write to learn it from.
            Poll::Pending if stream.poll_stopped(cx).is_ready() => self.up.end(),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        match self.down.poll(cx, stream, caller) {
            Poll::Ready(Err(Side::Reader)) => return Poll::Ready(SpliceEnd::StreamFailed),
            Poll::Ready(Err(Side::Writer)) => return Poll::Ready(SpliceEnd::CallerFailed),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if self.up.has_ended() && self.down.has_ended() { Poll::Ready(SpliceEnd::Clean) } else { Poll::Pending }
    }

    fn end(&mut self, end: SpliceEnd) {
        let (caller, stream) = (self.caller.take(), self.stream.take());
        match end {
            SpliceEnd::Clean => {}
            SpliceEnd::CallerFailed => drop(stream.map(TunnelStream::reset)),
            SpliceEnd::StreamFailed => drop(caller.map(C::cut)),
        }
    }
}

impl<C: Caller> Future for Splice<C> {
    type Output = SpliceEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SpliceEnd> {
        let end = ready!(self.poll_step(cx));
        self.end(end);
        Poll::Ready(end)
    }
}

impl<C: Caller> Drop for Splice<C> {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.reset();
        }
        if let Some(caller) = self.caller.take() {
            caller.cut();
        }
    }
}

/// Which side of a pipe failed.
#[derive(Debug)]
enum Side {
    Reader,
    Writer,
}

/// One direction.
struct Pipe {
    /// Made when there is something to read.
    buffer: Vec<u8>,
    /// Read and not written yet.
    chunk: Chunk,
    unflushed: bool,
    state: State,
}

enum Chunk {
    Early(Bytes),
    Buffered { from: usize, to: usize },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Copying,
    /// The reader is at its end, the writer is being told.
    Ending,
    Ended,
}

impl Pipe {
    const fn new(early: Bytes) -> Self {
        Self { buffer: Vec::new(), chunk: Chunk::Early(early), unflushed: false, state: State::Copying }
    }

    fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Nothing more goes this way.
    fn end(&mut self) {
        self.state = State::Ended;
        self.buffer = Vec::new();
    }

    fn poll<R, W>(&mut self, cx: &mut Context<'_>, reader: &mut R, writer: &mut W) -> Poll<Result<(), Side>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..ROUNDS {
            if self.state == State::Copying {
                ready!(self.poll_write(cx, writer)).map_err(|_| Side::Writer)?;
                match self.poll_read(cx, reader) {
                    Poll::Ready(result) => result.map_err(|_| Side::Reader)?,
                    Poll::Pending => {
                        ready!(self.poll_flush(cx, writer)).map_err(|_| Side::Writer)?;
                        return Poll::Pending;
                    }
                }
            }
            if self.state == State::Ending {
                ready!(Pin::new(&mut *writer).poll_shutdown(cx)).map_err(|_| Side::Writer)?;
                self.end();
            }
            if self.has_ended() {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes all that was read.
    fn poll_write(&mut self, cx: &mut Context<'_>, writer: &mut (impl AsyncWrite + Unpin)) -> Poll<io::Result<()>> {
        loop {
            let rest = match &self.chunk {
                Chunk::Early(bytes) => bytes,
                Chunk::Buffered { from, to } => self.buffer.get(*from..*to).unwrap_or_default(),
            };
            if rest.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let n = ready!(Pin::new(&mut *writer).poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            match &mut self.chunk {
                Chunk::Early(bytes) => *bytes = bytes.split_off(n.min(bytes.len())),
                Chunk::Buffered { from, .. } => *from += n,
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, reader: &mut (impl AsyncRead + Unpin)) -> Poll<io::Result<()>> {
        self.buffer.resize(BUFFER, 0);
        let mut into = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(reader).poll_read(cx, &mut into))?;
        let to = into.filled().len();
        self.chunk = Chunk::Buffered { from: 0, to };
        if to == 0 {
            self.state = State::Ending;
        }
        Poll::Ready(Ok(()))
    }

    /// Writers such as TLS hold bytes back until told.
    fn poll_flush(&mut self, cx: &mut Context<'_>, writer: &mut (impl AsyncWrite + Unpin)) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(writer).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

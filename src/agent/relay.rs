//! How a stream and a local socket are joined, so that each kind of end on one side is the same kind on the other.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use crate::{frame::ResetCode, tunnel::TunnelStream};

/// Bytes copied at a time each way: two quanta of the scheduler, so that one is read while the other leaves.
const BUFFER: usize = 32 * 1024;

/// How long a service may take none of what a caller has left behind. A service that works on an upload reads some of
/// it now and then; one that is stuck would hold a task, a socket and a place among the streams for ever, for nobody.
const PATIENCE: Duration = Duration::from_secs(5);

/// A local socket.
pub(crate) trait Local: AsyncRead + AsyncWrite + Send + Unpin {
    /// Makes its close look like no clean end, as far as its kind can.
    fn cut(&self);
}

impl Local for TcpStream {
    fn cut(&self) {
        // Closed with a linger time of zero, a TCP socket sends RST in place of FIN. If the option cannot be set the
        // socket is broken, and so ends no cleaner.
        let _ = self.set_zero_linger();
    }
}

#[cfg(unix)]
impl Local for tokio::net::UnixStream {
    /// Unix sockets have no reset: theirs is the close with unread bytes, which the other side sees if it has sent any.
    fn cut(&self) {}
}

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelayEnd {
    /// Both sides finished.
    Clean,
    /// The caller neither reads nor writes any more: the local socket was closed, or cut if not all that the caller
    /// wrote has reached it.
    Cancelled,
    /// The stream was reset or its session ended: the local socket was cut.
    StreamFailed,
    /// The local socket failed: the stream was reset.
    LocalFailed,
}

/// Copies between a stream and a local socket until both have ended, and keeps half-closes.
///
/// # Cancel safety
/// Dropping it resets the stream and cuts the socket.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Relay<L: Local> {
    // Taken at the end, since a reset consumes it.
    tunnel: Option<TunnelStream>,
    local: L,
    up: Pipe,
    down: Pipe,
    // Runs while the caller has left and a write to the service is stuck, which had got so far.
    patience: Option<(Pin<Box<Sleep>>, u64)>,
    ended: bool,
}

impl<L: Local> Relay<L> {
    /// A relay between these two.
    pub(crate) fn new(tunnel: TunnelStream, local: L) -> Self {
        let (up, down) = (Pipe::new(), Pipe::new());
        Self { tunnel: Some(tunnel), local, up, down, patience: None, ended: false }
    }

    /// `None`: goes on.
    fn step(&mut self, cx: &mut Context<'_>) -> Option<RelayEnd> {
        let tunnel = self.tunnel.as_mut()?;
        if let Poll::Ready(Err(side)) = self.up.poll(cx, tunnel, &mut self.local) {
            match side {
                Side::Reader => return Some(RelayEnd::StreamFailed),
                // The service may have answered before it closed: what the caller sends is thrown away from here on,
                // and the other direction tells how the service ended.
                Side::Writer(error) => {
                    self.up.sink(cx);
                    self.down.broken |= error.kind() != io::ErrorKind::BrokenPipe;
                }
            }
        }
        // A silent service gives nothing to write, and a stuck one has nothing read: neither would tell.
        if tunnel.poll_stopped(cx).is_ready() {
            // After STOP this changes nothing; only a stream that has failed objects to being ended.
            match Pin::new(&mut *tunnel).poll_shutdown(cx) {
                Poll::Ready(Err(_)) => return Some(RelayEnd::StreamFailed),
                _ if self.up.has_ended() => return Some(RelayEnd::Cancelled),
                // What it wrote before is still delivered, to a service that takes it. That is waited for here, since
                // the end of the caller's half lies behind it.
                _ if is_stuck(cx, &self.up, &mut self.patience) => return Some(RelayEnd::Cancelled),
                _ => {}
            }
        }
        if let Poll::Ready(Err(side)) = self.down.poll(cx, &mut self.local, tunnel) {
            return Some(match side {
                Side::Reader => RelayEnd::LocalFailed,
                Side::Writer(error) if error.kind() == io::ErrorKind::BrokenPipe => RelayEnd::Cancelled,
                Side::Writer(_) => RelayEnd::StreamFailed,
            });
        }
        (self.up.has_ended() && self.down.has_ended()).then_some(RelayEnd::Clean)
    }

    fn end(&mut self, end: RelayEnd) {
        self.ended = true;
        let tunnel = self.tunnel.take();
        match end {
            RelayEnd::Clean => {}
            RelayEnd::Cancelled if self.up.has_ended() => {}
            RelayEnd::Cancelled => self.local.cut(),
            RelayEnd::StreamFailed => {
                self.local.cut();
                reset(tunnel, ResetCode::CANCELLED);
            }
            RelayEnd::LocalFailed => reset(tunnel, ResetCode::TARGET_RESET),
        }
    }
}

impl<L: Local> Future for Relay<L> {
    type Output = RelayEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        match self.step(cx) {
            Some(end) => {
                self.end(end);
                Poll::Ready(end)
            }
            None => Poll::Pending,
        }
    }
}

impl<L: Local> Drop for Relay<L> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.local.cut();
        reset(self.tunnel.take(), ResetCode::SHUTDOWN);
    }
}

/// Whether a pipe's writer has taken nothing for too long. To wait for the reader is not to be stuck.
fn is_stuck(cx: &mut Context<'_>, pipe: &Pipe, patience: &mut Option<(Pin<Box<Sleep>>, u64)>) -> bool {
    if !pipe.is_writing() {
        *patience = None;
        return false;
    }
    let (timer, at) = patience.get_or_insert_with(|| (Box::pin(sleep(PATIENCE)), pipe.written));
    if *at != pipe.written {
        (*timer, *at) = (Box::pin(sleep(PATIENCE)), pipe.written);
    }
    timer.as_mut().poll(cx).is_ready()
}

fn reset(tunnel: Option<TunnelStream>, code: ResetCode) {
    if let Some(tunnel) = tunnel {
        tunnel.reset_with(code);
    }
}

/// Which side of a pipe failed.
enum Side {
    Reader,
    Writer(io::Error),
}

/// One direction of a relay.
struct Pipe {
    buffer: Box<[u8]>,
    // What was read and not written yet lies between the two.
    from: usize,
    to: usize,
    // Bytes in all.
    written: u64,
    state: PipeState,
    // The reader's socket has failed, and has told so its writing side. It tells that once: to read from it gives what
    // had arrived and then an end, which is none.
    broken: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PipeState {
    /// Reads and writes.
    Copying,
    /// Reads and throws away: the writer is broken.
    Sinking,
    /// The reader is at its end, the writer is being told.
    Ending,
    /// The writer has been told.
    Ended,
}

impl Pipe {
    fn new() -> Self {
        Self { buffer: vec![0; BUFFER].into(), from: 0, to: 0, written: 0, state: PipeState::Copying, broken: false }
    }

    fn has_ended(&self) -> bool {
        self.state == PipeState::Ended
    }

    /// Whether it waits for the writer.
    fn is_writing(&self) -> bool {
        self.state == PipeState::Ending || (self.state == PipeState::Copying && self.from < self.to)
    }

    /// From here on, throws away what it reads.
    fn sink(&mut self, cx: &Context<'_>) {
        self.state = if self.state == PipeState::Ending { PipeState::Ended } else { PipeState::Sinking };
        (self.from, self.to) = (0, 0);
        cx.waker().wake_by_ref();
    }

    fn poll<R, W>(&mut self, cx: &mut Context<'_>, reader: &mut R, writer: &mut W) -> Poll<Result<(), Side>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            match self.state {
                PipeState::Ended => return Poll::Ready(Ok(())),
                PipeState::Ending => {
                    ready!(Pin::new(&mut *writer).poll_shutdown(cx)).map_err(Side::Writer)?;
                    self.state = PipeState::Ended;
                }
                PipeState::Copying if self.from < self.to => {
                    let rest = self.buffer.get(self.from..self.to).unwrap_or_default();
                    match ready!(Pin::new(&mut *writer).poll_write(cx, rest)) {
                        Ok(0) => return Poll::Ready(Err(Side::Writer(io::ErrorKind::WriteZero.into()))),
                        Ok(n) => {
                            self.from += n;
                            self.written += n as u64;
                        }
                        Err(error) => return Poll::Ready(Err(Side::Writer(error))),
                    }
                }
                PipeState::Copying | PipeState::Sinking => {
                    let mut into = ReadBuf::new(&mut self.buffer);
                    ready!(Pin::new(&mut *reader).poll_read(cx, &mut into)).map_err(|_| Side::Reader)?;
                    let n = into.filled().len();
                    match self.state {
                        _ if n == 0 && self.broken => return Poll::Ready(Err(Side::Reader)),
                        PipeState::Sinking if n == 0 => self.state = PipeState::Ended,
                        PipeState::Sinking => {}
                        _ if n == 0 => self.state = PipeState::Ending,
                        _ => (self.from, self.to) = (0, n),
                    }
                }
            }
        }
    }
}

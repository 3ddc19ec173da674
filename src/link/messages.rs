//! What a WebSocket looks like once its handshake is done: whole binary messages both ways.
//!
//! One task owns a link and polls it; reading can cause a write (the answer to a ping), and one owner is what keeps the
//! wakers of both in one place. The framing is below, in `framed`.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    error::LinkError,
    framed::{Event, Framed},
    wire::Wire,
};
use crate::{
    frame::{CloseCode, MAX_MESSAGE, Message},
    proto::FloodBudget,
};

/// Which side of a WebSocket this is: the client masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The agent's side.
    Client,
    /// The server's side.
    Server,
}

/// Whole binary messages both ways over one WebSocket. Pings are answered by themselves while the link is polled.
pub(crate) struct MessageLink {
    framed: Box<Framed>,
    closing: Closing,
    /// An error was told to the reader.
    failed: bool,
    /// What the peer's pings and pongs may be: each ping costs an answer.
    controls: FloodBudget,
    max_outgoing: usize,
    /// What the last pong repeats, until it is asked for.
    pong: Option<Bytes>,
}

/// The longest incoming message of the control links of the dial-back protocol, in bytes: a line takes 4 KiB at most,
/// and several may come at once. That of links that bear the native protocol is [`MAX_MESSAGE`].
pub(crate) const MAX_CONTROL_MESSAGE: usize = 64 * KIB;

/// That of links that bear the bytes of one stream. A peer of the deployed kind makes one message of what its program
/// writes at once, a picture say; it is held until it is whole.
pub(super) const MAX_STREAM_MESSAGE: usize = 16 * 1024 * KIB;

/// How far [`MessageLink::poll_close`] has come.
#[derive(Debug, Clone, Copy)]
enum Closing {
    Open,
    Flushing,
    ShuttingDown,
    Done,
}

impl MessageLink {
    /// Wraps a byte stream on which the handshake is done. `max_message` bounds incoming messages, in bytes.
    #[cfg(test)]
    pub(crate) fn new<I>(io: I, side: Side, max_message: usize) -> Self
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::with_early(io, &[], side, max_message)
    }

    /// The same, for a stream of which the handshake has read these bytes too many: they come first.
    pub(super) fn with_early<I>(io: I, early: &[u8], side: Side, max_message: usize) -> Self
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let second = Duration::from_secs(1);
        Self {
            framed: Box::new(Framed::new(Wire::new(io, early), side, max_message)),
            closing: Closing::Open,
            failed: false,
            controls: FloodBudget::new("flood of WebSocket pings", CONTROLS_PER_SECOND, second, CONTROLS_BURST),
            max_outgoing: max_message.max(MAX_MESSAGE),
            pong: None,
        }
    }

    /// Whether the last read brought less than it asked for, and all of it was taken: there is hardly more now.
    pub(crate) fn is_drained(&self) -> bool {
        self.framed.is_drained()
    }

    /// The next binary message. After an error, [`LinkError::Eof`] for ever.
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, LinkError>> {
        if self.failed {
            return Poll::Ready(Err(LinkError::Eof));
        }
        let received = ready!(self.poll_message(cx));
        if let Err(LinkError::Closed { .. }) = received {
            // The answer is queued. Whether it can leave does not matter to us, and most owners drop the link.
            let _ = self.poll_flush(cx);
        }
        self.failed = received.is_err();
        Poll::Ready(received)
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, LinkError>> {
        for _ in 0..CONTROL_FRAMES_PER_POLL {
            match ready!(self.framed.poll_event(cx))? {
                Event::Message(message) => return Poll::Ready(Ok(message)),
                // The answer is queued; the next poll writes it, or has this task woken when it can.
                Event::Ping => self.spend_control()?,
                Event::Pong(payload) => {
                    self.spend_control()?;
                    self.pong = Some(payload);
                }
            }
        }
        // A flood of pings must not keep the task here; the rest of them come with the next poll.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn spend_control(&mut self) -> Result<(), LinkError> {
        self.controls.spend(Instant::now().into_std()).map_err(|_| LinkError::Flood)
    }

    /// Buffers a ping; the next flush sends it. One for which the buffer has no room is left out: what fills it shows
    /// as much.
    pub(crate) fn start_ping(&mut self, payload: [u8; 8]) {
        self.framed.start_ping(payload);
    }

    /// What the last pong repeats, if one came since this was asked last.
    pub(crate) fn take_pong(&mut self) -> Option<Bytes> {
        self.pong.take()
    }

    /// Ends this side of the byte stream, without a close frame, once what is buffered is written.
    pub(crate) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        ready!(self.poll_flush(cx))?;
        ready!(Pin::new(self.wire()).poll_shutdown(cx)).map_err(LinkError::Io)?;
        self.wire().finish();
        Poll::Ready(Ok(()))
    }

    /// Whether there is room for one more message in the write buffer; a full one is written out first.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.framed.poll_ready(cx)
    }

    /// Buffers a message; only after [`poll_ready`](Self::poll_ready) gave `Ready(Ok)`. Nothing is written before
    /// [`poll_flush`](Self::poll_flush) unless the buffer is full.
    pub(crate) fn start_send(&mut self, message: impl Into<Message>) -> Result<(), LinkError> {
        let message = message.into();
        if message.len() > self.max_outgoing {
            // It would never fit.
            return Err(LinkError::Io(io::Error::new(io::ErrorKind::InvalidInput, "message over the link's limit")));
        }
        self.framed.start_message(message)
    }

    /// The same for a message of so many bytes that lie elsewhere, and are masked on the way where they have to be. Of a
    /// large one that needs no mask, with nothing before it, what the connection takes at once is not buffered.
    pub(crate) fn start_send_buf(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut impl Buf,
        len: usize,
    ) -> Result<(), LinkError> {
        if len > self.max_outgoing {
            return self.start_send(buf.copy_to_bytes(len));
        }
        self.framed.start_from(cx, buf, len)
    }

    /// Writes all that is buffered.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.framed.poll_flush(cx)
    }

    /// Writes what is buffered and one close frame, then ends this side of the byte stream; the first call's code and
    /// reason (cut at 123 bytes) count. Ready when that is done or the stream failed, which a peer that does not read
    /// can put off for ever: the caller has a deadline.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>, code: CloseCode, reason: &str) -> Poll<()> {
        loop {
            self.closing = match self.closing {
                Closing::Open => {
                    // Flushed first, so that there is room for the frame: a refused one would be forgotten.
                    if ready!(self.poll_flush(cx)).is_ok() {
                        // Fails where the peer closed first; then the answer to that is the close frame.
                        self.framed.start_close(code, cut(reason));
                    }
                    Closing::Flushing
                }
                Closing::Flushing => {
                    let _ = ready!(self.poll_flush(cx));
                    Closing::ShuttingDown
                }
                Closing::ShuttingDown => {
                    let _ = ready!(Pin::new(self.wire()).poll_shutdown(cx));
                    Closing::Done
                }
                Closing::Done => return Poll::Ready(()),
            };
        }
    }

    /// Whether any byte came in since this was asked last, also one of a message that is not whole yet.
    pub(crate) fn take_activity(&mut self) -> bool {
        self.wire().take_activity()
    }

    fn wire(&mut self) -> &mut Wire {
        self.framed.wire()
    }

    /// The next binary message.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn recv(&mut self) -> Result<Bytes, LinkError> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Buffers a message and flushes.
    ///
    /// # Cancel safety
    /// A dropped future leaves the message unsent, or buffered whole for the next flush.
    pub(crate) async fn send(&mut self, message: impl Into<Message>) -> Result<(), LinkError> {
        poll_fn(|cx| self.poll_ready(cx)).await?;
        self.start_send(message)?;
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// [`poll_close`](Self::poll_close), then what still comes in is thrown away until the peer ends its side, all
    /// given up after `within`. Dropping a socket with unread bytes makes TCP reset it, and a reset destroys the close
    /// frame that the peer has not read yet.
    pub(crate) async fn close(&mut self, code: CloseCode, reason: &str, within: Duration) {
        let close = async {
            poll_fn(|cx| self.poll_close(cx, code, reason)).await;
            self.drain().await;
        };
        let _ = tokio::time::timeout(within, close).await;
    }

    /// Throws away what still comes, until the peer's end of the stream.
    pub(super) async fn drain(&mut self) {
        poll_fn(|cx| self.poll_drain(cx)).await;
    }

    /// Throws bytes away until the peer's end of the stream.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 4 * KIB];
        for _ in 0..READS_PER_DRAIN {
            let mut read = ReadBuf::new(&mut scratch);
            if ready!(Pin::new(self.wire()).poll_read(cx, &mut read)).is_err() || read.filled().is_empty() {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Without the buffers: their content is the users'.
impl fmt::Debug for MessageLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageLink").field("closing", &self.closing).finish_non_exhaustive()
    }
}

/// At most what fits into a close frame beside the code, whole characters only.
fn cut(reason: &str) -> &str {
    let longest = reason.len().min(MAX_REASON);
    (0..=longest).rev().find_map(|end| reason.get(..end)).unwrap_or_default()
}

const KIB: usize = 1024;

/// Up to here messages are gathered for one write: two of the biggest.
pub(super) const WRITE_BUFFER: usize = 128 * KIB;

/// How many pings and pongs one poll takes.
const CONTROL_FRAMES_PER_POLL: usize = 32;

/// How many pings and pongs a peer may send: proxies on the way send a few a minute.
const CONTROLS_PER_SECOND: u32 = 20;

/// As many more at once as come in this time, 100: those of a suspension can arrive together.
const CONTROLS_BURST: Duration = Duration::from_secs(5);

/// How many reads of 4 KiB one poll throws away.
const READS_PER_DRAIN: usize = 16;

/// A control frame has 125 bytes of payload, two of which are the code.
const MAX_REASON: usize = 123;

#[cfg(test)]
mod tests;

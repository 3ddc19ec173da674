//! What a WebSocket looks like once its handshake is done: whole binary messages both ways.
//!
//! The seam: only this file knows which library does the framing. One task owns a link and polls it; reading can
//! cause a write (the answer to a ping), and one owner is what keeps the wakers of both in one place.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as WsError, Message,
        error::ProtocolError,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

use super::error::LinkError;
use crate::{
    frame::{CloseCode, MAX_MESSAGE},
    proto::FloodBudget,
};

/// Which side of a WebSocket this is: the client masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(any(test, all(feature = "agent", feature = "server"))),
    expect(dead_code, reason = "each side is made by the feature that it is named after")
)]
pub(crate) enum Side {
    /// The agent's side.
    Client,
    /// The server's side.
    Server,
}

/// Whole binary messages both ways over one WebSocket. Pings are answered by themselves while the link is polled.
pub(crate) struct MessageLink {
    ws: WebSocketStream<Wire>,
    /// A message that the write buffer had no room for: only answers to pings can take the room that
    /// [`poll_ready`](Self::poll_ready) saw.
    held: Option<Bytes>,
    closing: Closing,
    /// An error was told to the reader.
    failed: bool,
    /// What the peer's pings and pongs may be: each ping costs an answer.
    controls: FloodBudget,
    /// Payloads shorter than this do not stay in the read buffer.
    unpinned_below: usize,
    max_outgoing: usize,
    /// What the last pong repeats, until it is asked for.
    pong: Option<Bytes>,
}

/// How a link's memory is bounded, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The longest incoming message.
    pub(crate) max_message: usize,
    /// Allocated with the link and filled with zeros before each read.
    pub(crate) read_buffer: usize,
}

impl Limits {
    /// Those of links that bear the native protocol.
    pub(crate) const NATIVE: Self = Self { max_message: MAX_MESSAGE, read_buffer: READ_BUFFER };
    /// Those of the control links of the dial-back protocol: a line takes 4 KiB at most, and several may come at once.
    pub(crate) const CONTROL: Self = Self { max_message: 64 * KIB, read_buffer: SMALL_READ_BUFFER };
    /// Those of links that bear the bytes of one stream. A peer of the deployed kind makes one message of what its
    /// program writes at once, a picture say; it is held until it is whole.
    pub(crate) const BYTES: Self = Self { max_message: 16 * 1024 * KIB, read_buffer: SMALL_READ_BUFFER };
}

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
    pub(crate) async fn new<I>(io: I, side: Side, max_message: usize) -> Self
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::with_early(io, Bytes::new(), side, Limits { max_message, ..Limits::NATIVE }).await
    }

    /// The same, for a stream of which the handshake has read these bytes too many: they come first.
    pub(super) async fn with_early<I>(io: I, early: Bytes, side: Side, limits: Limits) -> Self
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Limits { max_message, read_buffer } = limits;
        let max_outgoing = max_message.max(MAX_MESSAGE);
        let config = WebSocketConfig::default()
            .read_buffer_size(read_buffer)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(WRITE_BUFFER.saturating_add(max_outgoing).saturating_add(PONG_ROOM))
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        let role = match side {
            Side::Client => Role::Client,
            Side::Server => Role::Server,
        };
        let wire =
            Wire { io: Mutex::new(Box::new(io)), early, active: false, frames: Frames::default(), finished: false };
        let ws = WebSocketStream::from_raw_socket(wire, role, Some(config)).await;
        let second = Duration::from_secs(1);
        Self {
            ws,
            held: None,
            closing: Closing::Open,
            failed: false,
            controls: FloodBudget::new("flood of WebSocket pings", CONTROLS_PER_SECOND, second, CONTROLS_BURST),
            unpinned_below: max_message.min(MAX_MESSAGE).max(read_buffer) / 4,
            max_outgoing,
            pong: None,
        }
    }

    /// The next binary message. After an error, [`LinkError::Eof`] for ever.
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, LinkError>> {
        if self.failed {
            return Poll::Ready(Err(LinkError::Eof));
        }
        let received = ready!(self.poll_message(cx));
        self.failed = received.is_err();
        Poll::Ready(received)
    }

    /// The end of the byte stream, which between two messages only is one.
    fn end(&mut self) -> LinkError {
        if self.ws.get_ref().frames.is_between_messages() {
            LinkError::Eof
        } else {
            LinkError::Io(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended amid a message"))
        }
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, LinkError>> {
        for _ in 0..CONTROL_FRAMES_PER_POLL {
            let Some(message) = ready!(Pin::new(&mut self.ws).poll_next(cx)) else {
                return Poll::Ready(Err(self.end()));
            };
            let message = message.map_err(|error| match read_error(error) {
                LinkError::Eof => self.end(),
                error => error,
            })?;
            match message {
                Message::Binary(payload) => return Poll::Ready(Ok(self.unpinned(payload))),
                Message::Text(_) => return Poll::Ready(Err(LinkError::Text)),
                Message::Close(frame) => {
                    // The answer is queued. Whether it can leave does not matter to us, and most owners drop the link.
                    let _ = Pin::new(&mut self.ws).poll_flush(cx);
                    return Poll::Ready(Err(closed(frame)));
                }
                // The answer is queued; the next `poll_next` writes it, or has this task woken when it can.
                Message::Ping(_) | Message::Frame(_) => self.spend_control()?,
                Message::Pong(payload) => {
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
    pub(crate) fn start_ping(&mut self, payload: [u8; 8]) -> Result<(), LinkError> {
        match Pin::new(&mut self.ws).start_send(Message::Ping(Bytes::copy_from_slice(&payload))) {
            Err(WsError::WriteBufferFull(_)) => Ok(()),
            result => result.map_err(write_error),
        }
    }

    /// What the last pong repeats, if one came since this was asked last.
    pub(crate) fn take_pong(&mut self) -> Option<Bytes> {
        self.pong.take()
    }

    /// Ends this side of the byte stream, without a close frame, once what is buffered is written.
    pub(crate) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        ready!(self.poll_flush(cx))?;
        ready!(Pin::new(self.ws.get_mut()).poll_shutdown(cx)).map_err(LinkError::Io)?;
        self.ws.get_mut().finished = true;
        Poll::Ready(Ok(()))
    }

    /// Whether there is room for one more message in the write buffer; a full one is written out first.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if self.held.is_some() {
            ready!(self.poll_flush(cx))?;
        }
        Pin::new(&mut self.ws).poll_ready(cx).map_err(write_error)
    }

    /// Buffers a message; only after [`poll_ready`](Self::poll_ready) gave `Ready(Ok)`. Nothing is written before
    /// [`poll_flush`](Self::poll_flush) unless the buffer is full.
    pub(crate) fn start_send(&mut self, message: Bytes) -> Result<(), LinkError> {
        if message.len() > self.max_outgoing {
            // It would never fit.
            return Err(LinkError::Io(io::Error::new(io::ErrorKind::InvalidInput, "message over the link's limit")));
        }
        match Pin::new(&mut self.ws).start_send(Message::Binary(message)) {
            Err(WsError::WriteBufferFull(refused)) => {
                self.held = Some(refused.into_data());
                Ok(())
            }
            result => result.map_err(write_error),
        }
    }

    /// Writes all that is buffered.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        loop {
            ready!(Pin::new(&mut self.ws).poll_flush(cx)).map_err(write_error)?;
            match self.held.take() {
                Some(message) => self.start_send(message)?,
                None => return Poll::Ready(Ok(())),
            }
        }
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
                        let _ = Pin::new(&mut self.ws).start_send(Message::Close(Some(CloseFrame {
                            code: code.number().into(),
                            reason: cut(reason).into(),
                        })));
                    }
                    Closing::Flushing
                }
                Closing::Flushing => {
                    let _ = ready!(Pin::new(&mut self.ws).poll_flush(cx));
                    Closing::ShuttingDown
                }
                Closing::ShuttingDown => {
                    let _ = ready!(Pin::new(self.ws.get_mut()).poll_shutdown(cx));
                    Closing::Done
                }
                Closing::Done => return Poll::Ready(()),
            };
        }
    }

    /// Whether any byte came in since this was asked last, also one of a message that is not whole yet.
    pub(crate) fn take_activity(&mut self) -> bool {
        std::mem::take(&mut self.ws.get_mut().active)
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
    pub(crate) async fn send(&mut self, message: Bytes) -> Result<(), LinkError> {
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
            if ready!(Pin::new(self.ws.get_mut()).poll_read(cx, &mut read)).is_err() || read.filled().is_empty() {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Payloads are slices of the read buffer, which is as big as the biggest message that it had to hold. One below a
    /// quarter of that is copied, so that a message left unread pins at most about four times its size, and the
    /// buffer is free to be used again.
    fn unpinned(&self, payload: Bytes) -> Bytes {
        if payload.len() < self.unpinned_below { Bytes::copy_from_slice(&payload) } else { payload }
    }
}

/// Without the buffers: their content is the users'.
impl fmt::Debug for MessageLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageLink").field("closing", &self.closing).finish_non_exhaustive()
    }
}

/// The byte stream below: what the handshake read too much of comes first, and each read that brings bytes is noted.
struct Wire {
    /// Never locked: streams have to be `Sync`, and what a host hands over need not be.
    io: Mutex<Box<dyn ByteStream>>,
    early: Bytes,
    active: bool,
    frames: Frames,
    /// This direction has ended: answers to the peer's pings go nowhere, and fail nothing.
    finished: bool,
}

/// Where the frames that come in begin and end, which the library does not tell of a connection that ends amid one.
#[derive(Debug, Default)]
struct Frames {
    /// The first bytes of a header that is not whole yet.
    head: Vec<u8>,
    /// How much of the frame's payload is still to come.
    rest: u64,
    /// More frames of the same message are to come.
    continues: bool,
}

impl Frames {
    fn see(&mut self, mut bytes: &[u8]) {
        while let Some((&first, others)) = bytes.split_first() {
            if self.rest > 0 {
                let taken = usize::try_from(self.rest).unwrap_or(usize::MAX).min(bytes.len());
                self.rest -= taken as u64;
                bytes = bytes.get(taken..).unwrap_or_default();
                continue;
            }
            self.head.push(first);
            bytes = others;
            self.take_head();
        }
    }

    fn take_head(&mut self) {
        let [first, second, more @ ..] = self.head.as_slice() else { return };
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        if more.len() < extended + mask {
            return;
        }
        let long = more.iter().take(extended).fold(0, |len, byte| len << 8 | u64::from(*byte));
        self.rest = if extended == 0 { u64::from(second & 0x7f) } else { long };
        // Control frames come in between, and are whole.
        if first & 0x08 == 0 {
            self.continues = first & 0x80 == 0;
        }
        self.head.clear();
    }

    fn is_between_messages(&self) -> bool {
        self.head.is_empty() && self.rest == 0 && !self.continues
    }
}

trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<I: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for I {}

impl Wire {
    fn io(&mut self) -> Pin<&mut Box<dyn ByteStream>> {
        Pin::new(self.io.get_mut().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.early.is_empty() {
            ready!(self.io().poll_read(cx, buf))?;
        } else {
            let taken = self.early.len().min(buf.remaining());
            let head = self.early.split_to(taken);
            buf.put_slice(&head);
        }
        let read = buf.filled().get(before..).unwrap_or_default();
        self.active |= !read.is_empty();
        self.frames.see(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.finished {
            return Poll::Ready(Ok(buf.len()));
        }
        self.io().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.finished {
            return Poll::Ready(Ok(()));
        }
        self.io().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }
}

fn closed(frame: Option<CloseFrame>) -> LinkError {
    match frame {
        Some(frame) => LinkError::Closed {
            code: Some(CloseCode::new(frame.code.into())),
            reason: frame.reason.as_str().to_owned(),
        },
        None => LinkError::Closed { code: None, reason: String::new() },
    }
}

fn read_error(error: WsError) -> LinkError {
    match error {
        WsError::Io(error) => LinkError::Io(error),
        WsError::ConnectionClosed | WsError::AlreadyClosed => LinkError::Eof,
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => LinkError::Eof,
        WsError::Capacity(_) => LinkError::TooBig,
        // A text that is not even UTF-8 is a text all the same.
        WsError::Utf8(_) => LinkError::Text,
        broken => LinkError::Malformed(broken.to_string()),
    }
}

/// What fails a write is never the peer's violation: that it has closed is told by reading.
fn write_error(error: WsError) -> LinkError {
    match error {
        WsError::Io(error) => LinkError::Io(error),
        _ => LinkError::Eof,
    }
}

/// At most what fits into a close frame beside the code, whole characters only.
fn cut(reason: &str) -> &str {
    let longest = reason.len().min(MAX_REASON);
    (0..=longest).rev().find_map(|end| reason.get(..end)).unwrap_or_default()
}

const KIB: usize = 1024;

/// Allocated with the link and filled with zeros before each read, so that its size is paid for by idle tunnels and by
/// small messages; a bulk message of 64 KiB takes four reads of it. A quarter of such a message balances the two.
const READ_BUFFER: usize = 16 * KIB;

/// The same where there is a link for each stream, most of which are idle.
const SMALL_READ_BUFFER: usize = 4 * KIB;

/// Up to here messages are gathered for one write: two of the biggest.
const WRITE_BUFFER: usize = 128 * KIB;

/// Beyond a full buffer and one more message: that message's header, and answers to pings that could not leave yet.
const PONG_ROOM: usize = 4 * KIB;

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

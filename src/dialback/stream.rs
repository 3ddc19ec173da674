//! One stream: a WebSocket of its own, whose messages are its bytes and whose end is its end.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::runtime::Handle;

use super::tie::{LINGER, Tie, Ties};
use crate::{
    error::{Error, ErrorKind},
    frame::CloseCode,
    link::{ByteEnd, ByteLink, LinkError},
    metrics::{self, Direction},
};

/// So many bytes are counted before the metrics hear of them: one look at the recorder for each chunk would cost more
/// than the chunk.
const RECORDED_AT_ONCE: u64 = 256 * 1024;

/// Which end of a stream this is. The deployed agent takes the end of one direction for that of both, so that the
/// server may not end its own before it wants no answer any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    /// The server's: a shutdown is told when the stream is dropped.
    Deferred,
    /// The agent's: a shutdown ends this direction of the connection.
    AtOnce,
}

/// One stream.
///
/// Dropping it delivers what was written, then the end; dropped by a panic, or reset, it ends in a close frame that no
/// peer takes for the end.
#[derive(Debug)]
pub(crate) struct DialbackStream {
    tie: Tie,
    half: Half,
    strict_eof: bool,
    /// This direction was shut down.
    shut: bool,
    /// The peer's direction was read to its end.
    at_end: bool,
    /// All that was written has left.
    flushed: bool,
    /// The stream failed, with this kind.
    failed: Option<ErrorKind>,
    /// What to close the WebSocket with.
    code: Option<CloseCode>,
    unrecorded: Unrecorded,
}

/// Bytes of which the metrics have not heard.
#[derive(Debug, Default)]
struct Unrecorded {
    sent: u64,
    received: u64,
}

impl DialbackStream {
    /// The stream of a connection that was picked up; it counts among `ties`, and ends with them.
    pub(super) fn new(link: ByteLink, ties: &Arc<Ties>, half: Half) -> Self {
        Self {
            tie: ties.tie(link),
            half,
            strict_eof: false,
            shut: false,
            at_end: false,
            flushed: true,
            failed: None,
            code: None,
            unrecorded: Unrecorded::default(),
        }
    }

    /// Has an end that may be a loss be an error.
    pub(crate) fn strict_eof(&mut self) {
        self.strict_eof = true;
    }

    /// Ends both directions at once, in a way that the peer does not take for an end.
    pub(crate) fn reset(mut self) {
        self.code = Some(CloseCode::INTERNAL);
    }

    /// Gives `sink` up to `room` bytes; none at the end of the stream.
    pub(crate) fn poll_chunks(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
        mut sink: impl FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        if room == 0 {
            return Poll::Ready(Ok(()));
        }
        let read = self.poll(cx, |link, cx| link.poll_read(cx, room));
        if read.is_pending() {
            self.unrecorded.record();
        }
        match ready!(read)? {
            Ok(bytes) => {
                self.count(Direction::Received, bytes.len());
                sink(&bytes);
                Poll::Ready(Ok(()))
            }
            Err(end) => {
                self.at_end = true;
                self.tie.wake();
                if end == ByteEnd::Unverified && self.strict_eof {
                    let why = "the end of a dial-back stream cannot be told from a loss";
                    self.failed = Some(ErrorKind::SessionLost);
                    let error = Error::with_source(ErrorKind::SessionLost, why);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, error)));
                }
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Writes from `buf` as much as is taken.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, buf: impl Buf) -> Poll<io::Result<usize>> {
        if self.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if !buf.has_remaining() {
            return Poll::Ready(Ok(0));
        }
        let taken = ready!(self.poll(cx, |link, cx| link.poll_write(cx, buf)))?;
        self.count(Direction::Sent, taken);
        Poll::Ready(Ok(taken))
    }

    /// Writes all that is buffered.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, ByteLink::poll_flush)
    }

    /// Ends this direction, as far as the protocol can.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let half = self.half;
        let done = ready!(self.poll(cx, |link, cx| match half {
            Half::Deferred => link.poll_flush(cx),
            Half::AtOnce => link.poll_finish(cx),
        }));
        self.shut = true;
        // Where the peer has gone, nobody is left to hear of the end.
        Poll::Ready(if self.at_end { Ok(()) } else { done })
    }

    /// Ready once the peer's direction was read to its end, which is that of both with every deployed peer, or the
    /// stream failed. It is noticed by reading.
    pub(crate) fn poll_stopped(&self, cx: &mut Context<'_>) -> Poll<()> {
        let over = self.at_end || self.failed.is_some() || self.tie.cut(cx).is_some();
        if over { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Polls the connection, if the stream may still go on.
    fn poll<R>(
        &mut self,
        cx: &mut Context<'_>,
        f: impl FnOnce(&mut ByteLink, &mut Context<'_>) -> Poll<Result<R, LinkError>>,
    ) -> Poll<io::Result<R>> {
        if let Some(kind) = self.failed {
            return Poll::Ready(Err(Error::new(kind).into()));
        }
        let polled = self.tie.poll(cx, |link, cx| (f(link, cx), link.is_flushed()));
        match polled {
            Ok((polled, flushed)) => {
                self.flushed = flushed;
                polled.map_err(|error| self.fail(error))
            }
            Err(kind) => {
                self.failed = Some(kind);
                self.tie.wake();
                Poll::Ready(Err(Error::new(kind).into()))
            }
        }
    }

    fn fail(&mut self, error: LinkError) -> io::Error {
        self.code = error.close_code();
        let kind = if let Some(code) = self.code {
            metrics::record_protocol_error(code);
            ErrorKind::Protocol
        } else {
            ErrorKind::PeerReset
        };
        self.failed = Some(kind);
        self.tie.wake();
        Error::with_source(kind, error).into()
    }

    fn count(&mut self, direction: Direction, n: usize) {
        let n = n as u64;
        self.tie.count(direction, n);
        self.unrecorded.count(direction, n);
    }
}

impl Drop for DialbackStream {
    fn drop(&mut self) {
        self.unrecorded.record();
        let code = self.code.or_else(|| std::thread::panicking().then_some(CloseCode::INTERNAL));
        let Some(link) = self.tie.take() else { return };
        let done = code.is_none() && (self.failed.is_some() || (self.at_end && self.flushed));
        // Without a runtime nobody can wait for the peer, and the connection just ends.
        if let (false, Ok(runtime)) = (done, Handle::try_current()) {
            match code {
                Some(code) => drop(runtime.spawn(link.fail(code, LINGER))),
                None => drop(runtime.spawn(link.leave(LINGER))),
            }
        }
    }
}

impl Unrecorded {
    fn count(&mut self, direction: Direction, n: u64) {
        match direction {
            Direction::Sent => self.sent = self.sent.saturating_add(n),
            Direction::Received => self.received = self.received.saturating_add(n),
        }
        if self.sent.saturating_add(self.received) >= RECORDED_AT_ONCE {
            self.record();
        }
    }

    fn record(&mut self) {
        let Self { sent, received } = std::mem::take(self);
        for (direction, n) in [(Direction::Sent, sent), (Direction::Received, received)] {
            if n > 0 {
                metrics::record_stream_bytes(direction, n);
            }
        }
    }
}

/// The slices of a vectored write as one buffer, of which a message takes as much as it can.
#[derive(Debug)]
pub(crate) struct Slices<'a, 'b>(&'a [io::IoSlice<'b>], usize);

impl<'a, 'b> Slices<'a, 'b> {
    /// All of them.
    pub(crate) const fn new(slices: &'a [io::IoSlice<'b>]) -> Self {
        Self(slices, 0)
    }
}

impl Buf for Slices<'_, '_> {
    fn remaining(&self) -> usize {
        self.0.iter().map(|slice| slice.len()).sum::<usize>().saturating_sub(self.1)
    }

    fn chunk(&self) -> &[u8] {
        self.0.first().and_then(|slice| slice.get(self.1..)).unwrap_or_default()
    }

    fn advance(&mut self, n: usize) {
        self.1 += n;
        while let Some((first, rest)) = self.0.split_first()
            && self.1 >= first.len()
        {
            self.1 -= first.len();
            self.0 = rest;
        }
    }

    fn copy_to_bytes(&mut self, n: usize) -> Bytes {
        let mut bytes = bytes::BytesMut::with_capacity(n);
        while bytes.len() < n && self.has_remaining() {
            let chunk = self.chunk();
            let taken = chunk.len().min(n - bytes.len());
            bytes.extend_from_slice(&chunk[..taken]);
            self.advance(taken);
        }
        bytes.freeze()
    }
}

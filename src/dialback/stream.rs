//! One stream: a WebSocket of its own, whose messages are its bytes and whose end is its end.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::runtime::Handle;

use super::tie::{Tie, Ties};
use crate::{
    error::{Error, ErrorKind},
    frame::CloseCode,
    link::{ByteEnd, ByteLink, LinkError},
    metrics::{self, Direction},
};

/// How long a stream that was dropped may take to deliver what was written.
const LINGER: Duration = Duration::from_secs(5);

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
    /// `None` once it is given up.
    link: Option<ByteLink>,
    tie: Tie,
    half: Half,
    strict_eof: bool,
    /// This direction was shut down.
    shut: bool,
    /// The stream failed, with this kind.
    failed: Option<ErrorKind>,
    /// What to close the WebSocket with.
    code: Option<CloseCode>,
    unrecorded: [u64; 2],
}

impl DialbackStream {
    /// The stream of a connection that was picked up; it counts among `ties`, and ends with them.
    pub(super) fn new(link: ByteLink, ties: &Arc<Ties>, half: Half) -> Self {
        Self {
            link: Some(link),
            tie: ties.tie(),
            half,
            strict_eof: false,
            shut: false,
            failed: None,
            code: None,
            unrecorded: [0; 2],
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
        let read = match self.link(cx)?.poll_read(cx, room) {
            Poll::Pending => {
                self.record();
                return Poll::Pending;
            }
            Poll::Ready(read) => read,
        };
        match read {
            Ok(Ok(bytes)) => {
                self.count(Direction::Received, bytes.len());
                sink(&bytes);
                Poll::Ready(Ok(()))
            }
            Ok(Err(end)) => {
                self.tie.wake();
                if end == ByteEnd::Unverified && self.strict_eof {
                    self.failed = Some(ErrorKind::SessionLost);
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        Error::with_source(
                            ErrorKind::SessionLost,
                            "the end of a dial-back stream cannot be told from a loss",
                        ),
                    )));
                }
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(self.fail(error))),
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
        match ready!(self.link(cx)?.poll_write(cx, buf)) {
            Ok(taken) => {
                self.count(Direction::Sent, taken);
                Poll::Ready(Ok(taken))
            }
            Err(error) => Poll::Ready(Err(self.fail(error))),
        }
    }

    /// Writes all that is buffered.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(self.link(cx)?.poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| self.fail(error)))
    }

    /// Ends this direction, as far as the protocol can.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let half = self.half;
        let link = self.link(cx)?;
        let done = ready!(match half {
            Half::Deferred => link.poll_flush(cx),
            Half::AtOnce => link.poll_finish(cx),
        });
        self.shut = true;
        match done {
            Ok(()) => Poll::Ready(Ok(())),
            // The peer has gone, and nobody is left to hear of the end.
            Err(LinkError::Eof | LinkError::Io(_)) if self.is_over() => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(self.fail(error))),
        }
    }

    /// Ready once the peer's direction was read to its end, which is that of both with every deployed peer, or the
    /// stream failed. It is noticed by reading.
    pub(crate) fn poll_stopped(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_over() || self.tie.cut(cx).is_some() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn is_over(&self) -> bool {
        self.failed.is_some() || self.link.as_ref().is_none_or(ByteLink::is_at_end)
    }

    /// The connection, if the stream may still go on.
    fn link(&mut self, cx: &mut Context<'_>) -> io::Result<&mut ByteLink> {
        if let Some(kind) = self.failed {
            return Err(Error::new(kind).into());
        }
        if let Some(kind) = self.tie.cut(cx) {
            self.code = Some(CloseCode::INTERNAL);
            self.failed = Some(kind);
            self.tie.wake();
            return Err(Error::new(kind).into());
        }
        self.link.as_mut().ok_or_else(|| Error::new(ErrorKind::Internal).into())
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
        self.unrecorded[direction as usize] += n;
        if self.unrecorded.iter().sum::<u64>() >= RECORDED_AT_ONCE {
            self.record();
        }
    }

    fn record(&mut self) {
        for direction in [Direction::Sent, Direction::Received] {
            let n = std::mem::take(&mut self.unrecorded[direction as usize]);
            if n > 0 {
                metrics::record_stream_bytes(direction, n);
            }
        }
    }
}

impl Drop for DialbackStream {
    fn drop(&mut self) {
        self.record();
        let code = self.code.or_else(|| std::thread::panicking().then_some(CloseCode::INTERNAL));
        let Some(link) = self.link.take() else { return };
        let done = code.is_none() && (self.failed.is_some() || (link.is_at_end() && link.is_flushed()));
        // Without a runtime nobody can wait for the peer, and the connection just ends.
        if let (false, Ok(runtime)) = (done, Handle::try_current()) {
            match code {
                Some(code) => drop(runtime.spawn(link.fail(code, LINGER))),
                None => drop(runtime.spawn(link.leave(LINGER))),
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

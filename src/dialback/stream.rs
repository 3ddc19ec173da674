//! One stream: a WebSocket of its own, whose messages are its bytes and whose end is its end.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tracing::Span;

use super::tie::{Tie, Waits};
use crate::{
    error::{Error, ErrorKind},
    frame::CloseCode,
    key::TargetName,
    link::{ByteEnd, ByteLink, LinkError},
    metrics::{self, Direction, StreamEnd},
    spans::Told,
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
    told: Told,
}

/// Bytes of which the metrics have not heard.
#[derive(Debug, Default)]
struct Unrecorded {
    sent: u64,
    received: u64,
}

impl DialbackStream {
    /// The stream of a connection that is there. `session`: the span in which its own is.
    pub(super) fn new(tie: Tie, half: Half, session: &Span) -> Self {
        Self {
            told: Told::begin(session, tie.id(), TargetName::default),
            tie,
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
        let read = self.poll(cx, Waits::Reader, |link, cx| link.poll_read(cx, room));
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
                    return Poll::Ready(Err(error.in_io(io::ErrorKind::UnexpectedEof)));
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
        let taken = ready!(self.poll(cx, Waits::Writer, |link, cx| link.poll_write(cx, buf)))?;
        self.count(Direction::Sent, taken);
        Poll::Ready(Ok(taken))
    }

    /// Writes all that is buffered.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, Waits::Writer, ByteLink::poll_flush)
    }

    /// Ends this direction, as far as the protocol can.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let half = self.half;
        let done = ready!(self.poll(cx, Waits::Writer, |link, cx| match half {
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
        let over = self.at_end || self.failed.is_some() || self.tie.cut(cx, Waits::Stopped).is_some();
        if over { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Polls the connection, if the stream may still go on.
    fn poll<R>(
        &mut self,
        cx: &mut Context<'_>,
        waits: Waits,
        f: impl FnOnce(&mut ByteLink, &mut Context<'_>) -> Poll<Result<R, LinkError>>,
    ) -> Poll<io::Result<R>> {
        if let Some(kind) = self.failed {
            return Poll::Ready(Err(Error::new(kind).into()));
        }
        let polled = self.tie.poll(cx, waits, |link, cx| (f(link, cx), link.is_flushed()));
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
        let finished = self.shut && self.half == Half::AtOnce && self.at_end;
        let done = code.is_none() && (self.failed.is_some() || (finished && self.flushed));
        self.tie.leave(code, done);
        self.told.end(match (self.failed, code) {
            (Some(kind), _) => StreamEnd::Failed(kind),
            (None, Some(_)) => StreamEnd::Reset,
            (None, None) if self.at_end => StreamEnd::Complete,
            (None, None) => StreamEnd::Cancelled,
        });
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

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;
    use crate::{
        dialback::tie::Ties,
        link::{MessageLink, Side},
    };

    /// A stream, its ties, and the raw bytes of the other end.
    fn stream(half: Half) -> (DialbackStream, Arc<Ties>, DuplexStream) {
        let (near, far) = duplex(4096);
        let ties: Arc<Ties> = Arc::default();
        let link = ByteLink::new(MessageLink::new(near, Side::Server, 4096));
        (DialbackStream::new(ties.tie(link), half, &Span::none()), ties, far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_was_cut_and_then_dropped_unread_does_not_look_ended() {
        let (stream, ties, mut far) = stream(Half::Deferred);
        ties.cut(ErrorKind::Shutdown);
        drop(stream);
        let mut raw = Vec::new();
        far.read_to_end(&mut raw).await.unwrap();
        assert_eq!(raw.get(..1), Some([0x88].as_slice()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_changes_its_task_does_not_push_a_writer_out() {
        use std::task::Wake;
        struct Count(std::sync::atomic::AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let count = || Arc::new(Count(Default::default()));
        let (mut stream, ties, _far) = stream(Half::Deferred);
        let writer = count();
        let waker = writer.clone().into();
        while stream.poll_write(&mut Context::from_waker(&waker), [0; 1024].as_slice()).is_ready() {}
        for _ in 0..3 {
            let reader = count().into();
            assert!(stream.poll_chunks(&mut Context::from_waker(&reader), 1, |_| {}).is_pending());
        }
        let before = writer.0.load(std::sync::atomic::Ordering::Relaxed);
        ties.cut(ErrorKind::Shutdown);
        assert!(writer.0.load(std::sync::atomic::Ordering::Relaxed) > before);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_counts_until_what_it_has_written_has_left() {
        let (near, mut far) = duplex(64);
        let ties: Arc<Ties> = Arc::default();
        let link = ByteLink::new(MessageLink::new(near, Side::Server, 4096));
        let mut stream = DialbackStream::new(ties.tie(link), Half::Deferred, &Span::none());
        let taken = std::future::poll_fn(|cx| stream.poll_write(cx, [7; 1024].as_slice())).await.unwrap();
        drop(stream);
        assert!(tokio::time::timeout(Duration::from_millis(1), ties.idle()).await.is_err());
        let reader = tokio::spawn(async move {
            let mut raw = Vec::new();
            far.read_to_end(&mut raw).await.map(|_| raw.len())
        });
        ties.idle().await;
        assert_eq!(reader.await.unwrap().unwrap(), taken + 4);
    }
}

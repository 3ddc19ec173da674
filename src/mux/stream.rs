//! One stream as bytes in and bytes out, for tokio's traits and for what builds on them.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    bound::now,
    shared::{Asleep, Shared},
    state::{State, Wait},
};
use crate::{
    error::Error,
    frame::{ResetCode, StreamId},
    metrics::{self, StreamEnd},
    proto::{Read, SessionEnd, StreamError},
    spans::Told,
};

/// How many chunks one read takes under one lock: peers that send tiny frames must not make it long.
const CHUNKS_PER_READ: usize = 64;

/// One stream.
///
/// Dropping it delivers what was written, then the end, and tells the peer that nothing more is read. Dropped by a
/// panic, it is reset instead, so that the peer does not take what it has for whole.
#[derive(Debug)]
pub(crate) struct MuxStream {
    shared: Arc<Shared>,
    id: StreamId,
    /// How it ends: by this code, or in order.
    reset: Option<ResetCode>,
    /// The reader, which found nothing.
    reader: Asleep,
    /// Since when the writer waits for the peer.
    starved: Option<Instant>,
    told: Told,
}

impl MuxStream {
    pub(super) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        let target = || shared.with(|state| state.session.target(id).cloned().unwrap_or_default());
        let told = Told::begin(shared.span(), id.number().into(), target);
        Self { shared, id, reset: None, reader: Asleep::default(), starved: None, told }
    }

    /// Ends both directions at once: the peer sees a reset, never an end.
    pub(crate) fn reset(mut self, code: ResetCode) {
        self.reset = Some(code);
    }

    /// Gives `sink` up to `room` bytes, in one or more pieces; none at the end of the stream.
    pub(crate) fn poll_chunks(
        &mut self,
        cx: &mut Context<'_>,
        mut room: usize,
        mut sink: impl FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        let round = &self.shared.rounds().reads;
        // HTTP looks for more several times in a turn.
        if room > 0 && self.reader.is_asleep(round, cx.waker()) {
            return Poll::Pending;
        }
        let id = self.id;
        let reader = &mut self.reader;
        let result = self.shared.with_reader(|state| {
            for _ in 0..CHUNKS_PER_READ {
                if room == 0 {
                    break;
                }
                let Some(mut stream) = state.session.recv(id) else { return Poll::Ready(Err(state.gone())) };
                match stream.read(room) {
                    Ok(Read::Bytes(bytes)) => {
                        room = room.saturating_sub(bytes.len());
                        sink(&bytes);
                        // An end or an error behind it is still there at the next read.
                        if !stream.has_more() {
                            break;
                        }
                    }
                    Ok(Read::End) => break,
                    Ok(Read::Blocked) => {
                        state.wait(id, Wait::Read, cx.waker());
                        state.drop_later(reader.fall_asleep(round, cx.waker()));
                        return Poll::Pending;
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            Poll::Ready(Ok(()))
        });
        result.map_err(io_error)
    }

    /// Ready once the peer reads no more: it said so, reset the stream, or the session ended. Only the last task that
    /// asked is woken.
    pub(crate) fn poll_stopped(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.with(|state| {
            if state.session.is_stopped(self.id) {
                return Poll::Ready(());
            }
            state.wait(self.id, Wait::Stopped, cx.waker());
            Poll::Pending
        })
    }

    /// Writes as much of the slices, in order, as fits.
    fn poll_write_slices<'a>(
        &mut self,
        cx: &mut Context<'_>,
        slices: impl Iterator<Item = &'a [u8]>,
    ) -> Poll<io::Result<usize>> {
        let id = self.id;
        let mut starved = false;
        let result = self.shared.with(|state| {
            let mut written = 0;
            for slice in slices.filter(|slice| !slice.is_empty()) {
                let Some(mut stream) = state.session.send(id) else { return Poll::Ready(Err(state.gone())) };
                match stream.write(slice) {
                    Ok(Some(taken)) => {
                        written += taken;
                        if taken < slice.len() {
                            break;
                        }
                    }
                    // What was taken is told first; the error is still there at the next write.
                    _ if written > 0 => break,
                    Ok(None) => {
                        starved = state.session.is_starved(id);
                        state.wait(id, Wait::Write, cx.waker());
                        return Poll::Pending;
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            Poll::Ready(Ok(written))
        });
        if starved != self.starved.is_some() {
            self.starve(starved);
        }
        result.map_err(io_error)
    }

    /// The writer waits for the peer from here on, or does so no more.
    fn starve(&mut self, starved: bool) {
        match self.starved.take() {
            Some(since) => metrics::record_flow_blocked(now().saturating_duration_since(since)),
            None => self.starved = starved.then(now),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        let id = self.id;
        let result = self.shared.with(|state| match state.session.send(id) {
            Some(mut stream) => stream.finish(),
            None => Err(state.gone()),
        });
        match result {
            // Said before, or nobody is left to hear it: either way there is nothing more to do.
            Err(StreamError::Finished | StreamError::Stopped(_)) => Ok(()),
            result => result.map_err(io_error),
        }
    }
}

impl AsyncRead for MuxStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = buf.remaining();
        self.get_mut().poll_chunks(cx, room, |bytes| buf.put_slice(bytes))
    }
}

impl AsyncWrite for MuxStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_slices(cx, std::iter::once(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_slices(cx, bufs.iter().map(|buf| &**buf))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Ready at once, as with a TCP socket: what was written belongs to the session, which sends it by itself. To
    /// wait here for the socket would hold up a writer for a link that may be away, and prove nothing to it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().finish())
    }
}

impl Drop for MuxStream {
    fn drop(&mut self) {
        self.starve(false);
        let panicked = std::thread::panicking().then_some(ResetCode::INTERNAL);
        let reset = self.reset.or(panicked);
        let ended = self.shared.with(|state| {
            let ended = state.session.stream_end(self.id);
            match reset {
                Some(code) => state.session.reset(self.id, code, ""),
                None => state.session.detach(self.id),
            }
            state.forget(self.id);
            ended
        });
        self.told.end(match ended {
            Some(Ok(())) => StreamEnd::Complete,
            Some(Err(error)) => StreamEnd::Failed(Error::from(error).kind()),
            None if reset.is_some() => StreamEnd::Reset,
            None => StreamEnd::Cancelled,
        });
    }
}

impl State {
    /// The session does not know a stream whose handle is still there: only one that was put in the place of a
    /// panicked one does that, and it has ended.
    fn gone(&self) -> StreamError {
        StreamError::Session(self.session.ended().cloned().unwrap_or(SessionEnd::Internal))
    }
}

fn io_error(error: StreamError) -> io::Error {
    match error {
        StreamError::Stopped(_) | StreamError::Finished => Error::from(error).in_io(io::ErrorKind::BrokenPipe),
        error => Error::from(error).into(),
    }
}

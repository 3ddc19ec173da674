//! The byte stream below a WebSocket: what the handshake read too much of comes first, and each read that brings bytes
//! is noted.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A byte stream without its type.
pub(super) struct Wire {
    /// Locked by nobody else: streams have to be `Sync`, and what a host hands over need not be.
    io: Mutex<Box<dyn ByteStream>>,
    early: Bytes,
    active: bool,
    /// Watches where frames begin and end, for a framing that does not tell.
    frames: Option<Frames>,
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
    /// `early` is copied: it is a few bytes of a buffer of some KiB, which would stay as long as the link.
    pub(super) fn new(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, early: &[u8]) -> Self {
        let early = Bytes::copy_from_slice(early);
        Self { io: Mutex::new(Box::new(io)), early, active: false, frames: None, finished: false }
    }

    /// The same, watching where frames begin and end.
    pub(super) fn watching(self) -> Self {
        Self { frames: Some(Frames::default()), ..self }
    }

    /// Whether what came so far are whole messages, as far as it is watched.
    pub(super) fn is_between_messages(&self) -> bool {
        self.frames.as_ref().is_none_or(Frames::is_between_messages)
    }

    /// This direction was shut down: what is written from here on goes nowhere.
    pub(super) fn finish(&mut self) {
        self.finished = true;
    }

    /// Whether any byte came since this was asked last.
    pub(super) fn take_activity(&mut self) -> bool {
        std::mem::take(&mut self.active)
    }

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
        if let Some(frames) = &mut self.frames {
            frames.see(read);
        }
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.finished {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        self.io().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.lock().unwrap_or_else(PoisonError::into_inner).is_write_vectored()
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

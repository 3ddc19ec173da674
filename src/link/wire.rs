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
    /// This direction has ended: answers to the peer's pings go nowhere, and fail nothing.
    finished: bool,
}

trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<I: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for I {}

impl Wire {
    /// `early` is copied: it is a few bytes of a buffer of some KiB, which would stay as long as the link.
    pub(super) fn new(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, early: &[u8]) -> Self {
        let early = Bytes::copy_from_slice(early);
        Self { io: Mutex::new(Box::new(io)), early, active: false, finished: false }
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
        self.active |= buf.filled().len() > before;
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

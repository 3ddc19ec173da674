//! A wire that tells whether it ended amid a message, which the library does not.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::link::wire::Wire;

/// A wire, and how far what came in has got.
pub(super) struct Watched {
    wire: Wire,
    frames: Frames,
}

impl Watched {
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire, frames: Frames::default() }
    }

    /// Whether what came so far are whole messages.
    pub(super) fn is_between_messages(&self) -> bool {
        self.frames.is_between_messages()
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.wire).poll_read(cx, buf))?;
        self.frames.see(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

/// Where the frames that come in begin and end.
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

//! A byte stream without a peer: it gives what it was filled with, takes what is written, and does both in the steps it
//! was told.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much moves at each step, over and over: 0 is `Pending`. Without steps, and after many, all moves at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    steps: Vec<u8>,
    at: usize,
}

/// After so many, an input of many small steps has shown what it can.
const MAX_STEPS: usize = 512;

/// Steps above are of kilobytes.
const SMALL_STEPS: u8 = 200;

/// So many bytes for each one above.
const LARGE_STEP: usize = 1500;

impl Pace {
    pub(super) fn new(steps: Vec<u8>) -> Self {
        Self { steps, at: 0 }
    }

    fn next(&mut self) -> usize {
        if self.steps.is_empty() || self.at == MAX_STEPS {
            return usize::MAX;
        }
        let step = self.steps[self.at % self.steps.len()];
        self.at += 1;
        match step.checked_sub(SMALL_STEPS) {
            Some(large @ 1..) => usize::from(large) * LARGE_STEP,
            _ => step.into(),
        }
    }
}

/// One end of a byte stream; its clones are the same.
#[derive(Clone)]
pub(super) struct Pipe(Arc<Mutex<State>>);

struct State {
    unread: Bytes,
    reads: Pace,
    /// What comes behind the last byte: the end, or nothing.
    ends: bool,
    writes: Pace,
    written: Vec<u8>,
    /// How often `Pending` was told.
    pendings: usize,
    /// More was asked for than there is.
    starved: bool,
}

impl Pipe {
    pub(super) fn new(reads: Pace, writes: Pace, ends: bool) -> Self {
        let (unread, written) = (Bytes::new(), Vec::new());
        Self(Arc::new(Mutex::new(State { unread, reads, ends, writes, written, pendings: 0, starved: false })))
    }

    /// More that comes in.
    pub(super) fn fill(&self, bytes: &[u8]) {
        let mut state = self.state();
        state.unread = [&state.unread[..], bytes].concat().into();
        state.starved = false;
    }

    /// What comes in, in place of what is left.
    #[cfg(test)]
    pub(super) fn replace(&self, bytes: &[u8]) {
        self.state().unread = Bytes::copy_from_slice(bytes);
    }

    pub(super) fn written(&self) -> Vec<u8> {
        self.state().written.clone()
    }

    pub(super) fn pendings(&self) -> usize {
        self.state().pendings
    }

    pub(super) fn is_starved(&self) -> bool {
        self.state().starved
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics under the lock")
    }
}

impl State {
    fn pending<T>(&mut self) -> Poll<T> {
        self.pendings += 1;
        Poll::Pending
    }

    fn read(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        assert!(buf.remaining() > 0, "a read without room looks like the end");
        if self.unread.is_empty() && !self.ends {
            self.starved = true;
            return self.pending();
        }
        match self.reads.next().min(buf.remaining()).min(self.unread.len()) {
            0 if !self.unread.is_empty() => self.pending(),
            n => {
                buf.put_slice(&self.unread[..n]);
                self.unread.advance(n);
                Poll::Ready(Ok(()))
            }
        }
    }

    fn write<'a>(&mut self, bufs: impl Iterator<Item = &'a [u8]> + Clone) -> Poll<io::Result<usize>> {
        let len = bufs.clone().map(<[u8]>::len).sum::<usize>();
        assert!(len > 0, "a write of nothing looks like an end");
        match self.writes.next().min(len) {
            0 => self.pending(),
            n => {
                let mut rest = n;
                for buf in bufs {
                    let taken = rest.min(buf.len());
                    self.written.extend_from_slice(&buf[..taken]);
                    rest -= taken;
                }
                Poll::Ready(Ok(n))
            }
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.state().read(buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.state().write([buf].into_iter())
    }

    fn poll_write_vectored(self: Pin<&mut Self>, _: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.state().write(bufs.iter().map(|buf| &**buf))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        match state.writes.next() {
            0 => state.pending(),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

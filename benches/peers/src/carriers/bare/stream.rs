//! A stream, and the queue in which the streams of a link leave frames for its driver.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wire::{self, Head, Kind};
use crate::carriers::framing::Key;

/// How much a stream may have under way and unread, on a link without delay. (Measured: with half of it bulk over one
/// stream is slower by a tenth up and a fifth down; with twice it bulk over eight is by a third, and a small request
/// beside bulk waits half as long again.)
pub(super) const NARROW: usize = 128 * 1024;

/// The same on a link of any delay: more than is under way at any that is measured.
pub(super) const WIDE: usize = 256 * 1024 * 1024;

/// How much is read before the writer hears of it.
const REPORTED_AT_ONCE: usize = NARROW / 2;

/// How much a link may have queued before those who write data wait. Eight narrow windows are full before.
const QUEUED: usize = 1024 * 1024;

/// What is to be written to a link's socket.
#[derive(Default)]
pub(super) struct Queue {
    key: Option<Key>,
    window: usize,
    frames: Mutex<Frames>,
    pub(super) driver: AtomicWaker,
}

#[derive(Default)]
struct Frames {
    bytes: Vec<u8>,
    /// The streams that these open.
    opened: Vec<(u32, Arc<Incoming>)>,
    streams: u32,
    /// Writers that wait until it is shorter.
    waiting: Vec<Waker>,
}

impl Queue {
    /// Of a link on which what is written is masked with this key, and streams have this window.
    pub(super) fn new(key: Option<Key>, window: usize) -> Self {
        Self { key, window, ..Self::default() }
    }

    /// A new stream, open at once.
    pub(super) fn open(self: &Arc<Self>) -> Stream {
        let mut frames = self.frames();
        let stream = Stream::new(self.clone(), frames.streams);
        frames.streams += 1;
        frames.opened.push((stream.id, stream.incoming.clone()));
        drop(frames);
        stream.say(Kind::Open, 0, &[]);
        stream
    }

    /// Exchanges an empty buffer for what is queued, and gives the streams that were opened.
    pub(super) fn take(&self, empty: &mut Vec<u8>) -> Vec<(u32, Arc<Incoming>)> {
        let mut frames = self.frames();
        std::mem::swap(&mut frames.bytes, empty);
        frames.waiting.drain(..).for_each(Waker::wake);
        std::mem::take(&mut frames.opened)
    }

    fn frames(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock().expect("nobody panics with the lock")
    }
}

/// What came for a stream.
pub(super) struct Incoming(Mutex<State>);

struct State {
    pieces: VecDeque<Bytes>,
    /// Nothing comes behind these.
    ended: bool,
    reader: Option<Waker>,
    /// Read, and not yet reported.
    taken: usize,
    /// How much may be written.
    credit: usize,
    writer: Option<Waker>,
}

impl Incoming {
    /// Takes in what came; who is to be woken by that.
    pub(super) fn data(&self, piece: Bytes) -> Option<Waker> {
        let mut state = self.state();
        state.pieces.push_back(piece);
        state.reader.take()
    }

    pub(super) fn end(&self) -> Option<Waker> {
        let mut state = self.state();
        state.ended = true;
        state.reader.take()
    }

    pub(super) fn credit(&self, count: u32) -> Option<Waker> {
        let mut state = self.state();
        state.credit += count as usize;
        state.writer.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics with the lock")
    }
}

/// Dropped, it ends for the other side.
pub(super) struct Stream {
    id: u32,
    queue: Arc<Queue>,
    pub(super) incoming: Arc<Incoming>,
    ended: bool,
}

impl Stream {
    pub(super) fn new(queue: Arc<Queue>, id: u32) -> Self {
        let credit = queue.window;
        let state = State { pieces: VecDeque::new(), ended: false, reader: None, taken: 0, credit, writer: None };
        Self { id, queue, incoming: Arc::new(Incoming(Mutex::new(state))), ended: false }
    }

    fn say(&self, kind: Kind, count: usize, data: &[u8]) {
        let head = Head { kind, stream: self.id, count: count as u32 };
        wire::push(&mut self.queue.frames().bytes, self.queue.key, head, data);
        self.queue.driver.wake();
    }

    fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut frames = self.queue.frames();
        if frames.bytes.len() < QUEUED {
            return Poll::Ready(());
        }
        frames.waiting.push(cx.waker().clone());
        Poll::Pending
    }

    fn end(&mut self) {
        if !self.ended {
            self.ended = true;
            self.say(Kind::Fin, 0, &[]);
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.incoming.state();
        let before = buf.filled().len();
        while buf.remaining() > 0
            && let Some(piece) = state.pieces.front_mut()
        {
            let n = piece.len().min(buf.remaining());
            buf.put_slice(&piece[..n]);
            piece.advance(n);
            if piece.is_empty() {
                state.pieces.pop_front();
            }
        }
        let n = buf.filled().len() - before;
        if n == 0 && !state.ended {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.taken += n;
        if state.taken >= REPORTED_AT_ONCE {
            let taken = std::mem::take(&mut state.taken);
            drop(state);
            self.say(Kind::Taken, taken, &[]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(cx));
        let mut state = self.incoming.state();
        let n = buf.len().min(state.credit);
        if n == 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.credit -= n;
        drop(state);
        self.say(Kind::Data, n, &buf[..n]);
        Poll::Ready(Ok(n))
    }

    /// The driver writes as soon as it runs.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end();
    }
}

//! The task that owns a link's socket.

use std::{
    collections::HashMap,
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
    spawn,
};

use super::{
    stream::{Incoming, Queue, Stream},
    wire::{self, Head, Key, Kind},
};
use crate::commands::serve;

/// What a read of a quiet link asks for, on the stack. A batch that is written from less is not worth a buffer either.
const SMALL: usize = 4 * 1024;

/// What a read of a busy link asks for: a window. (Measured: half of it costs a tenth of bulk's throughput.)
const LARGE: usize = 128 * 1024;

/// Each turn writes all that is queued and reads once; then those run whom that woke, and the next turn writes what they
/// have to say. It ends with the link.
pub(super) struct Driver {
    socket: TcpStream,
    queue: Arc<Queue>,
    streams: HashMap<u32, Arc<Incoming>>,
    outgoing: Vec<u8>,
    written: usize,
    unread: BytesMut,
    /// Reads bring as much as they ask for.
    busy: bool,
    body: Body,
}

/// What is still to come of a frame's data.
#[derive(Default)]
struct Body {
    stream: u32,
    left: usize,
    key: Option<Key>,
}

impl Driver {
    pub(super) fn new(socket: TcpStream, queue: Arc<Queue>) -> Self {
        Self {
            socket,
            queue,
            streams: HashMap::new(),
            outgoing: Vec::new(),
            written: 0,
            unread: BytesMut::new(),
            busy: false,
            body: Body::default(),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What the socket did not take before.
        ready!(self.poll_drain(cx))?;
        // Before the look at the queue, so that nothing is missed that comes behind it.
        self.queue.driver.register(cx.waker());
        let opened = self.queue.take(&mut self.outgoing);
        self.streams.extend(opened);
        self.poll_drain(cx)
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.outgoing.len() {
            self.written += ready!(Pin::new(&mut self.socket).poll_write(cx, &self.outgoing[self.written..]))?;
        }
        self.written = 0;
        match self.outgoing.len() {
            ..SMALL => self.outgoing = Vec::new(),
            _ => self.outgoing.clear(),
        }
        Poll::Ready(Ok(()))
    }

    /// How much came.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let n = if self.busy {
            self.unread.reserve(LARGE);
            ready!(pin!(self.socket.read_buf(&mut self.unread)).poll(cx))?
        } else {
            let mut scratch = [MaybeUninit::uninit(); SMALL];
            let mut read = ReadBuf::uninit(&mut scratch);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
            self.unread.extend_from_slice(read.filled());
            read.filled().len()
        };
        self.busy = n >= SMALL;
        Poll::Ready(Ok(n))
    }

    /// Hands out what was read, and wakes whom it concerns.
    fn hand_out(&mut self) {
        let mut woken = Vec::new();
        while !self.unread.is_empty() {
            if self.body.left > 0 {
                woken.extend(self.on_data());
            } else if let Some((head, key, len)) = wire::head(&self.unread) {
                self.unread.advance(len);
                woken.extend(self.on_head(head, key));
            } else {
                break;
            }
        }
        if !self.busy && self.unread.is_empty() {
            self.unread = BytesMut::new();
        }
        woken.into_iter().for_each(Waker::wake);
    }

    fn on_data(&mut self) -> Option<Waker> {
        let Body { stream, left, key } = &mut self.body;
        let mut piece = self.unread.split_to(self.unread.len().min(*left));
        *left -= piece.len();
        if let Some(key) = key {
            wire::mask(&mut piece, *key);
            key.rotate_left(piece.len() % 4);
        }
        self.streams.get(stream)?.data(piece.freeze())
    }

    fn on_head(&mut self, head: Head, key: Option<Key>) -> Option<Waker> {
        let Head { kind, stream: id, count } = head;
        match kind {
            Kind::Open => {
                let stream = Stream::new(self.queue.clone(), id);
                self.streams.insert(id, stream.incoming.clone());
                spawn(serve(stream));
                None
            }
            Kind::Data => {
                self.body = Body { stream: id, left: count as usize, key };
                None
            }
            Kind::Taken => self.streams.get(&id)?.credit(count),
            Kind::Fin => self.streams.remove(&id)?.end(),
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let written = this.poll_write(cx);
        match (written, this.poll_fill(cx)) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Ok(0) | Err(_))) => Poll::Ready(()),
            (_, Poll::Ready(Ok(_))) => {
                this.hand_out();
                // Behind those whom that woke.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            (_, Poll::Pending) => Poll::Pending,
        }
    }
}

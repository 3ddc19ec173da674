//! The task that owns a link's socket.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use tokio::{net::TcpStream, spawn};

use super::{
    stream::{Incoming, Queue, Stream},
    wire::{self, Head, Kind},
};
use crate::{
    carriers::{framing::Body, inbox::Inbox, outbox::Outbox},
    commands::serve,
};

/// Each turn writes all that is queued and reads once; then those run whom that woke, and the next turn writes what they
/// have to say. It ends with the link.
pub(super) struct Driver {
    socket: TcpStream,
    queue: Arc<Queue>,
    streams: HashMap<u32, Arc<Incoming>>,
    outbox: Outbox,
    inbox: Inbox,
    /// What is still to come of a frame's data, and whose that is.
    body: Body,
    stream: u32,
}

impl Driver {
    pub(super) fn new(socket: TcpStream, queue: Arc<Queue>) -> Self {
        Self {
            socket,
            queue,
            streams: HashMap::new(),
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            body: Body::default(),
            stream: 0,
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What the socket did not take before.
        ready!(self.outbox.poll_drain(&mut self.socket, cx))?;
        // Before the look at the queue, so that nothing is missed that comes behind it.
        self.queue.driver.register(cx.waker());
        let opened = self.queue.take(&mut self.outbox.bytes);
        self.streams.extend(opened);
        self.outbox.poll_drain(&mut self.socket, cx)
    }

    /// Hands out what was read, and wakes whom it concerns.
    fn hand_out(&mut self) {
        let mut woken = Vec::new();
        while !self.inbox.unread.is_empty() {
            if self.body.left > 0 {
                let piece = self.body.split(&mut self.inbox.unread).freeze();
                woken.extend(self.streams.get(&self.stream).and_then(|stream| stream.data(piece)));
            } else if let Some((head, body)) = wire::head(&mut self.inbox.unread) {
                (self.body, self.stream) = (body, head.stream);
                woken.extend(self.on_head(head));
            } else {
                break;
            }
        }
        self.inbox.relax();
        woken.into_iter().for_each(Waker::wake);
    }

    fn on_head(&mut self, head: Head) -> Option<Waker> {
        let Head { kind, stream: id, count } = head;
        match kind {
            Kind::Open => {
                let stream = Stream::new(self.queue.clone(), id);
                self.streams.insert(id, stream.incoming.clone());
                spawn(serve(stream));
                None
            }
            // Its data follows.
            Kind::Data => None,
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
        match (written, this.inbox.poll_fill(&mut this.socket, cx)) {
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

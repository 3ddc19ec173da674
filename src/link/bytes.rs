//! A WebSocket read and written as a byte stream: its binary messages joined, whatever their borders.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::{error::LinkError, messages::MessageLink};
use crate::frame::CloseCode;

/// The longest message that is written: one that every peer takes.
const CHUNK: usize = 64 * 1024;

/// How often a ping leaves: no middlebox has forgotten the connection by then, and the system notices a dead peer.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// How long the peer may take to end its direction, once this side's is done.
const DRAIN: Duration = Duration::from_secs(5);

/// How the peer's direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ByteEnd {
    /// The connection ended. Whether that was the peer's wish nobody can tell.
    Unverified,
    /// The peer closed the WebSocket in order.
    Closed,
}

/// One WebSocket as a byte stream.
#[derive(Debug)]
pub(crate) struct ByteLink {
    link: MessageLink,
    /// What came and is not read yet.
    unread: Bytes,
    end: Option<ByteEnd>,
    /// Something may be in the write buffer.
    unflushed: bool,
    /// Who waits for room, or for all to leave.
    writer: Option<Waker>,
    /// Who waits for bytes, and meanwhile writes what is buffered.
    reader: Option<Waker>,
    ping: Pin<Box<Sleep>>,
}

impl ByteLink {
    /// Takes a link whose handshake is done.
    pub(crate) fn new(link: MessageLink) -> Self {
        Self {
            link,
            unread: Bytes::new(),
            end: None,
            unflushed: false,
            writer: None,
            reader: None,
            ping: Box::pin(sleep(PING_INTERVAL)),
        }
    }

    /// Up to `max` bytes; `Err(end)` inside `Ok` when all were read. Also writes what waits to be written.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Result<Bytes, ByteEnd>, LinkError>> {
        let both = both(self.writer.as_ref(), cx);
        let read = self.poll_message(&mut Context::from_waker(both.as_ref().unwrap_or(cx.waker())));
        self.reader = read.is_pending().then(|| cx.waker().clone());
        if let Some(end) = ready!(read)? {
            return Poll::Ready(Ok(Err(end)));
        }
        let taken = self.unread.split_to(max.min(self.unread.len()));
        Poll::Ready(Ok(Ok(taken)))
    }

    /// Ready when there is something unread, or with the end.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<ByteEnd>, LinkError>> {
        while self.unread.is_empty() {
            if let Some(end) = self.end {
                return Poll::Ready(Ok(Some(end)));
            }
            self.ping(cx);
            if self.unflushed {
                // An error here is told better by what is read.
                let _ = self.flush(cx);
            }
            match ready!(self.link.poll_recv(cx)) {
                Ok(message) => self.unread = message,
                Err(LinkError::Closed { code: Some(CloseCode::NORMAL), .. }) => self.end = Some(ByteEnd::Closed),
                // A proxy that goes down says the latter.
                Err(LinkError::Eof | LinkError::Closed { code: None | Some(CloseCode::DRAINED), .. }) => {
                    self.end = Some(ByteEnd::Unverified);
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Writes from `buf`, and flushes as far as the connection takes it.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, mut buf: impl Buf) -> Poll<Result<usize, LinkError>> {
        let both = both(self.reader.as_ref(), cx);
        let all = &mut Context::from_waker(both.as_ref().unwrap_or(cx.waker()));
        let ready = self.link.poll_ready(all);
        self.park(cx, &ready);
        ready!(ready)?;
        let taken = buf.remaining().min(CHUNK);
        self.link.start_send_buf(all, &mut buf, taken)?;
        self.unflushed = true;
        match self.flush(all) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // What is buffered belongs to the link from here on; a full buffer is what holds writers up.
            _ => Poll::Ready(Ok(taken)),
        }
    }

    /// Writes all that is buffered.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let both = both(self.reader.as_ref(), cx);
        let flushed = self.flush(&mut Context::from_waker(both.as_ref().unwrap_or(cx.waker())));
        self.park(cx, &flushed);
        flushed
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        ready!(self.link.poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// Keeps who waits for `result`.
    fn park<T>(&mut self, cx: &Context<'_>, result: &Poll<T>) {
        self.writer = result.is_pending().then(|| cx.waker().clone());
    }

    /// Whether all that was written has left.
    pub(crate) fn is_flushed(&self) -> bool {
        !self.unflushed
    }

    /// Writes all that is buffered and ends this direction of the connection, without a close frame.
    pub(crate) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let both = both(self.reader.as_ref(), cx);
        let finished = self.link.poll_finish(&mut Context::from_waker(both.as_ref().unwrap_or(cx.waker())));
        self.park(cx, &finished);
        finished
    }

    /// Writes what is buffered and ends this direction, within so much time, then throws away what still comes until the
    /// peer's end: a socket that is dropped with unread bytes is reset, which destroys what the peer has not read yet.
    pub(crate) async fn leave(mut self, within: Duration) {
        if let Ok(Ok(())) = timeout(within, std::future::poll_fn(|cx| self.poll_finish(cx))).await {
            let _ = timeout(DRAIN, self.link.drain()).await;
        }
    }

    /// Ends the WebSocket with a code, which no peer takes for the end of the stream.
    pub(crate) async fn fail(mut self, code: CloseCode, within: Duration) {
        self.link.close(code, "", within).await;
    }

    fn ping(&mut self, cx: &mut Context<'_>) {
        while self.ping.as_mut().poll(cx).is_ready() {
            self.ping.as_mut().reset(Instant::now() + PING_INTERVAL);
            self.link.start_ping([0; 8]);
            self.unflushed = true;
        }
    }
}

/// A waker for this task and another one that waits for the same link, if there is one: to read can be to write, a
/// writer is told of success before all has left, and a socket tells only the last waker of room.
fn both(other: Option<&Waker>, cx: &Context<'_>) -> Option<Waker> {
    let other = other.filter(|other| !other.will_wake(cx.waker()))?;
    Some(Arc::new(Both(other.clone(), cx.waker().clone())).into())
}

struct Both(Waker, Waker);

impl Wake for Both {
    fn wake(self: Arc<Self>) {
        self.0.wake_by_ref();
        self.1.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::link::messages::{MAX_STREAM_MESSAGE, Side};

    /// A byte link, and the raw bytes of the other end.
    fn link(side: Side) -> (ByteLink, DuplexStream) {
        let (near, far) = duplex(1 << 20);
        let link = MessageLink::with_early(near, &[], side, MAX_STREAM_MESSAGE);
        (ByteLink::new(link), far)
    }

    async fn read(link: &mut ByteLink, max: usize) -> Result<Result<Bytes, ByteEnd>, LinkError> {
        poll_fn(|cx| link.poll_read(cx, max)).await
    }

    #[tokio::test(start_paused = true)]
    async fn borders_of_messages_mean_nothing_and_the_end_of_the_connection_is_the_end() {
        let (mut link, mut far) = link(Side::Client);
        far.write_all(&[0x02, 1, b'a', 0x00, 1, b'b', 0x80, 0, 0x82, 0, 0x82, 2, b'c', b'd']).await.unwrap();
        drop(far);
        let mut got = Vec::new();
        let end = loop {
            match read(&mut link, 1).await.unwrap() {
                Ok(bytes) => got.extend_from_slice(&bytes),
                Err(end) => break end,
            }
        };
        assert_eq!((got.as_slice(), end), (b"abcd".as_slice(), ByteEnd::Unverified));
        assert_eq!(read(&mut link, 1).await.unwrap(), Err(ByteEnd::Unverified));
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_in_order_is_an_end_of_its_own_and_another_code_is_an_error() {
        let (verified, not) = (Some(ByteEnd::Closed), Some(ByteEnd::Unverified));
        for (code, expected) in [(1000_u16, verified), (1001, not), (1011, None), (4410, None)] {
            let (mut link, mut far) = link(Side::Client);
            let [high, low] = code.to_be_bytes();
            far.write_all(&[0x82, 1, b'x', 0x88, 2, high, low]).await.unwrap();
            assert_eq!(read(&mut link, 9).await.unwrap(), Ok(Bytes::from_static(b"x")));
            match read(&mut link, 9).await {
                Ok(end) => assert_eq!(end.err(), expected, "{code}"),
                Err(error) => assert!(expected.is_none() && matches!(error, LinkError::Closed { .. }), "{error}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_written_leaves_at_once_as_binary_messages_and_then_the_connection_ends_without_a_close_frame() {
        let (mut link, mut far) = link(Side::Server);
        assert_eq!(poll_fn(|cx| link.poll_write(cx, b"ab".as_slice())).await.unwrap(), 2);
        assert!(link.is_flushed());
        let long = vec![7; CHUNK + 1];
        assert_eq!(poll_fn(|cx| link.poll_write(cx, long.as_slice())).await.unwrap(), CHUNK);
        link.leave(Duration::from_secs(1)).await;
        let mut raw = Vec::new();
        far.read_to_end(&mut raw).await.unwrap();
        assert_eq!(raw[..4], [0x82, 2, b'a', b'b']);
        assert_eq!(raw[4..14], [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(raw.len(), 14 + CHUNK);
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_leaves_every_15_seconds_while_a_reader_waits() {
        let (mut link, mut far) = link(Side::Server);
        let start = Instant::now();
        let reader = tokio::spawn(async move { read(&mut link, 1).await });
        for n in 1..=3 {
            let mut ping = [0; 10];
            far.read_exact(&mut ping).await.unwrap();
            assert_eq!(ping[..2], [0x89, 8]);
            assert_eq!(start.elapsed().as_secs(), 15 * n);
        }
        drop(far);
        assert_eq!(reader.await.unwrap().unwrap(), Err(ByteEnd::Unverified));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_does_not_take_the_place_of_a_writer_that_waits() {
        let (near, mut far) = duplex(64);
        let link = MessageLink::with_early(near, &[], Side::Server, MAX_STREAM_MESSAGE);
        let link = Arc::new(std::sync::Mutex::new(ByteLink::new(link)));
        let shared = link.clone();
        let writer = tokio::spawn(async move {
            for _ in 0..8 {
                poll_fn(|cx| shared.lock().unwrap().poll_write(cx, [7; CHUNK].as_slice())).await.unwrap();
            }
        });
        tokio::task::yield_now().await;
        assert!(!writer.is_finished());
        let reader = tokio::spawn(async move { poll_fn(|cx| link.lock().unwrap().poll_read(cx, 1)).await });
        tokio::task::yield_now().await;
        let drain = tokio::spawn(async move {
            let mut raw = vec![0; 4096];
            while far.read(&mut raw).await.unwrap() > 0 {}
        });
        timeout(Duration::from_secs(5), writer).await.expect("the writer hangs").unwrap();
        reader.abort();
        drain.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_writer_left_buffered_leaves_while_a_reader_waits() {
        let (near, mut far) = duplex(64);
        let link = MessageLink::with_early(near, &[], Side::Server, MAX_STREAM_MESSAGE);
        let link = Arc::new(std::sync::Mutex::new(ByteLink::new(link)));
        let shared = link.clone();
        let reader = tokio::spawn(async move { poll_fn(|cx| shared.lock().unwrap().poll_read(cx, 1)).await });
        tokio::task::yield_now().await;
        // Taken at once, and its writer has nothing more to say, nor waits for all to leave.
        let written = tokio::spawn(async move {
            poll_fn(|cx| link.lock().unwrap().poll_write(cx, [7; 1000].as_slice())).await.unwrap();
            link
        });
        let _link = written.await.unwrap();
        let start = Instant::now();
        far.read_exact(&mut [0; 1004]).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO, "it left with the next ping only");
        reader.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_behind_the_end_of_this_direction_does_not_fail_the_other() {
        let (mut link, mut far) = link(Side::Client);
        poll_fn(|cx| link.poll_finish(cx)).await.unwrap();
        far.write_all(&[0x89, 0, 0x82, 1, b'x']).await.unwrap();
        assert_eq!(read(&mut link, 9).await.unwrap(), Ok(Bytes::from_static(b"x")));
        drop(far);
        assert_eq!(read(&mut link, 9).await.unwrap(), Err(ByteEnd::Unverified));
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_amid_a_message_is_no_end() {
        for cut in [&[0x82, 2, b'a'][..], &[0x82], &[0x02, 1, b'a']] {
            let (mut link, mut far) = link(Side::Client);
            far.write_all(cut).await.unwrap();
            drop(far);
            let got = read(&mut link, 9).await;
            assert!(got.is_err(), "{cut:?}: {got:?}");
        }
    }
}

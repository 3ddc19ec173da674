//! The control link, as both sides drive it: lines both ways, pings, and the silence that tells of a dead peer.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::{Instant, Sleep, sleep_until};

use super::control::{Line, Lines};
use crate::{
    frame::CloseCode,
    link::{LinkEnd, LinkError, MessageLink},
    metrics,
};

/// How often each side pings: the deployed ones do so, too.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// After how much silence the peer is taken for dead: four pings.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(60);

/// How long the close frame may take to leave.
const FAREWELL: Duration = Duration::from_secs(1);

/// A control link.
#[derive(Debug)]
pub(crate) struct ControlLink {
    link: MessageLink,
    lines: Lines,
    heard: Instant,
    ping: Instant,
    /// When the last ping left, until its pong is here.
    pinged: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// A line.
    Line(Line),
    /// The answer to a ping, this long after it.
    Pong(Duration),
}

/// Why a control link is at its end, and the code that it is to be closed with, if there is anybody to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ControlEnd {
    /// Why.
    pub(crate) end: LinkEnd,
    /// What to say.
    pub(crate) code: Option<CloseCode>,
}

impl ControlEnd {
    /// This side wants it.
    pub(super) const fn local(code: CloseCode) -> Self {
        Self { end: LinkEnd::Local(code), code: Some(code) }
    }
}

impl ControlLink {
    /// A link whose handshake is done.
    pub(crate) fn new(link: MessageLink) -> Self {
        let now = Instant::now();
        let ping = now + PING_INTERVAL;
        Self { link, lines: Lines::default(), heard: now, ping, pinged: None, sleep: Box::pin(sleep_until(ping)) }
    }

    /// The next line or pong.
    pub(super) fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, ControlEnd>> {
        loop {
            match self.lines.next() {
                Ok(Some(line)) => return Poll::Ready(Ok(Received::Line(line))),
                Ok(None) => {}
                Err(error) => {
                    let code = error.close_code();
                    metrics::record_protocol_error(code);
                    tracing::warn!(rule = %error, "the peer broke the dial-back protocol");
                    return Poll::Ready(Err(ControlEnd { end: LinkEnd::Violation(code), code: Some(code) }));
                }
            }
            let received = self.link.poll_recv(cx);
            if self.link.take_activity() {
                self.heard = Instant::now();
            }
            // Both may have come at once.
            let pong = self.link.take_pong().and_then(|_| self.pinged.take());
            match received {
                Poll::Ready(Ok(message)) => self.lines.push(&message),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(ended(&error))),
                Poll::Pending if pong.is_none() => return Poll::Pending,
                Poll::Pending => {}
            }
            if let Some(since) = pong {
                return Poll::Ready(Ok(Received::Pong(since.elapsed())));
            }
        }
    }

    /// Whether a line can be sent now.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ControlEnd>> {
        self.link.poll_ready(cx).map_err(|error| ended(&error))
    }

    /// Buffers a line, in a message of its own, for which [`poll_ready`](Self::poll_ready) has seen room.
    pub(super) fn start_send(&mut self, line: &Line) -> Result<(), ControlEnd> {
        self.link.start_send(line.encode()).map_err(|error| ended(&error))
    }

    /// Writes what is buffered; sees to pings and to silence. `wake_at`: when the caller has something of its own to do.
    /// To be called last, after all else is pending.
    pub(super) fn poll_idle(&mut self, cx: &mut Context<'_>, wake_at: Option<Instant>) -> Result<(), ControlEnd> {
        loop {
            let now = Instant::now();
            if now >= self.heard + DEAD_AFTER {
                metrics::record_dead_peer();
                return Err(ControlEnd { end: LinkEnd::Dead, code: Some(CloseCode::DEAD_PEER) });
            }
            if now >= self.ping {
                self.ping = now + PING_INTERVAL;
                self.pinged = Some(now);
                self.link.start_ping([0; 8]);
            }
            if let Poll::Ready(Err(error)) = self.link.poll_flush(cx) {
                return Err(ended(&error));
            }
            let next = wake_at.into_iter().chain([self.ping, self.heard + DEAD_AFTER]).min().unwrap_or(self.ping);
            if self.sleep.deadline() != next {
                self.sleep.as_mut().reset(next);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            if wake_at.is_some_and(|at| at <= next) {
                cx.waker().wake_by_ref();
                return Ok(());
            }
        }
    }

    /// Says farewell. A dead peer is told, and not waited for.
    pub(crate) async fn close(mut self, end: ControlEnd, reason: &str) {
        let Some(code) = end.code else { return };
        let farewell = self.link.close(code, reason, FAREWELL);
        if end.end == LinkEnd::Dead {
            let _ = farewell.now_or_never();
        } else {
            farewell.await;
        }
    }
}

fn ended(error: &LinkError) -> ControlEnd {
    if let Some(code) = error.close_code() {
        metrics::record_protocol_error(code);
        tracing::warn!(rule = %error, "the peer broke the dial-back protocol");
        return ControlEnd { end: LinkEnd::Violation(code), code: Some(code) };
    }
    let end = match error {
        LinkError::Closed { code, .. } => LinkEnd::Closed(*code),
        _ => LinkEnd::Lost,
    };
    ControlEnd { end, code: None }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::advance,
    };

    use super::*;
    use crate::link::Side;

    /// A link whose ping has left, and the raw bytes of the other end.
    async fn pinged() -> (ControlLink, DuplexStream) {
        let (near, mut far) = duplex(4096);
        let mut link = ControlLink::new(MessageLink::new(near, Side::Server, 4096));
        advance(PING_INTERVAL).await;
        poll_fn(|cx| Poll::Ready(link.poll_idle(cx, None))).await.unwrap();
        let mut ping = [0; 10];
        far.read_exact(&mut ping).await.unwrap();
        assert_eq!(ping[..2], [0x89, 8]);
        (link, far)
    }

    async fn received(link: &mut ControlLink) -> Result<Received, ControlEnd> {
        poll_fn(|cx| link.poll_received(cx)).await
    }

    /// A pong, and what is to come in the same read.
    const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];

    #[tokio::test(start_paused = true)]
    async fn a_line_that_comes_with_a_pong_is_not_lost() {
        let (mut link, mut far) = pinged().await;
        let mut raw = PONG.to_vec();
        raw.extend([0x82, 0x83, 0, 0, 0, 0, b'{', b'}', b'\n']);
        far.write_all(&raw).await.unwrap();
        assert_eq!(received(&mut link).await, Ok(Received::Pong(Duration::ZERO)));
        let line = tokio::time::timeout(Duration::from_secs(1), received(&mut link)).await;
        assert_eq!(line, Ok(Ok(Received::Line(Line::Unknown))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_that_comes_with_a_pong_keeps_its_code() {
        let (mut link, mut far) = pinged().await;
        let mut raw = PONG.to_vec();
        raw.extend([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]);
        far.write_all(&raw).await.unwrap();
        let end = loop {
            match received(&mut link).await {
                Ok(Received::Pong(_)) => {}
                other => break other,
            }
        };
        let closed = LinkEnd::Closed(Some(CloseCode::NORMAL));
        assert_eq!(end, Err(ControlEnd { end: closed, code: None }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_between_a_ping_and_its_pong_does_not_hide_the_round_trip() {
        let (mut link, mut far) = pinged().await;
        far.write_all(&[0x82, 0x83, 0, 0, 0, 0, b'{', b'}', b'\n']).await.unwrap();
        assert_eq!(received(&mut link).await, Ok(Received::Line(Line::Unknown)));
        advance(Duration::from_millis(7)).await;
        far.write_all(&PONG).await.unwrap();
        let pong = tokio::time::timeout(Duration::from_secs(1), received(&mut link)).await;
        assert_eq!(pong, Ok(Ok(Received::Pong(Duration::from_millis(7)))));
    }
}

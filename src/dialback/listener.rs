//! The agent's side of the control link: connections that are asked for go to whoever brings them, and what could not be
//! brought is told.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::sync::mpsc;
use tracing::Span;

use super::{
    control::Line,
    control_link::{ControlEnd, ControlLink, Received},
    stream::{DialbackStream, Half},
    tie::Ties,
};
use crate::{error::ErrorKind, frame::CloseCode, link::ByteLink, metrics};

/// How many lines one poll takes.
const BATCH: usize = 32;

/// How many words of failure may wait for the link. A server asks for no more connections at once; one that does waits
/// for those beyond in vain.
const MAX_FAILURES: usize = 256;

/// Streams that an agent has brought. They outlive the control link.
#[derive(Debug, Default)]
pub(crate) struct Brought(Arc<Ties>);

impl Brought {
    /// The stream of a connection.
    pub(crate) fn stream(&self, link: ByteLink) -> DialbackStream {
        DialbackStream::new(self.0.tie(link), Half::AtOnce, &Span::current())
    }

    /// Resolves when none is left.
    pub(crate) async fn idle(&self) {
        self.0.idle().await;
    }

    /// Ends all of them, in a way that no peer takes for an end.
    pub(crate) fn end(&self) {
        self.0.cut(ErrorKind::Shutdown);
    }
}

/// A connection that the server asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Where it is to be brought.
    pub(crate) path: String,
    failures: mpsc::Sender<Line>,
}

impl Asked {
    /// Tells the server that it does not come, and why.
    pub(crate) fn fail(self, error: String) {
        // Where the link is gone, or too slow for it, the server's dial ends by its time.
        let _ = self.failures.try_send(Line::PickupFailed { path: self.path, error });
    }
}

/// Drives the control link until its end, or closes it once `stopped` resolves; `on` gets each connection that is asked
/// for. Tells, too, whether any was.
pub(crate) async fn listen(
    link: &mut ControlLink,
    stopped: impl Future<Output = ()>,
    mut on: impl FnMut(Asked),
) -> (ControlEnd, bool) {
    let (sender, mut failures) = mpsc::channel(MAX_FAILURES);
    let mut any = false;
    let mut on = |path| {
        any = true;
        on(Asked { path, failures: sender.clone() });
    };
    let mut stopped = std::pin::pin!(stopped);
    let end = poll_fn(|cx| match step(link, cx, stopped.as_mut(), &mut failures, &mut on) {
        Ok(()) => Poll::Pending,
        Err(end) => Poll::Ready(end),
    })
    .await;
    metrics::record_close(end.end.as_str());
    (end, any)
}

fn step(
    link: &mut ControlLink,
    cx: &mut Context<'_>,
    stopped: Pin<&mut impl Future<Output = ()>>,
    failures: &mut mpsc::Receiver<Line>,
    on: &mut impl FnMut(String),
) -> Result<(), ControlEnd> {
    if stopped.poll(cx).is_ready() {
        return Err(ControlEnd::local(CloseCode::DRAINED));
    }
    let mut taken = 0;
    while let Poll::Ready(received) = link.poll_received(cx) {
        match received? {
            Received::Line(Line::ConnReady { path }) => on(path),
            Received::Line(Line::Unknown) => metrics::record_unknown_frames(1),
            Received::Line(_) | Received::Pong(_) => {}
        }
        taken += 1;
        if taken == BATCH {
            cx.waker().wake_by_ref();
            break;
        }
    }
    while let Poll::Ready(ready) = link.poll_ready(cx) {
        ready?;
        match failures.poll_recv(cx) {
            Poll::Ready(Some(line)) => link.start_send(&line)?,
            _ => break,
        }
    }
    link.poll_idle(cx, None)
}

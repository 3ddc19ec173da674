//! The handle by which the two sides of a tunnel open and take streams.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use super::stream::TunnelStream;
use crate::{
    dialback::{self, DialbackStream, DialbackTunnel},
    error::{Error, ErrorKind},
    frame::{CloseCode, Metadata, ResetCode},
    key::{Epoch, TargetName},
    mux::{self, BindError, Bound, Deferred, MuxIncoming, MuxTunnel, PeerDrain},
    proto::{SessionEnd, SessionStats},
};

/// The handle by which streams are opened to an agent. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Tunnel {
    /// Of the native protocol.
    Mux(MuxTunnel),
    /// Of the dial-back protocol, whose sessions end with their control links.
    Dialback(DialbackTunnel),
}

impl Tunnel {
    /// Binds the link of this epoch, if it may be: from here on the one before is superseded.
    pub(crate) fn bind(&self, epoch: Epoch, peer_has: u64) -> Deferred<Result<Bound, BindError>> {
        match self {
            Self::Mux(mux) => mux.bind(epoch, peer_has),
            Self::Dialback(_) => Deferred::ready(Err(BindError::Ended)),
        }
    }

    /// Whether the agent has spoken on the present link, or on the last one if there is none. One of the dial-back
    /// protocol speaks by connecting: nobody waits for a word from it.
    pub(crate) fn heard(&self) -> bool {
        match self {
            Self::Mux(mux) => mux.heard(),
            Self::Dialback(_) => true,
        }
    }

    /// Since when there is a link; `None`: there is none.
    pub(crate) fn up_since(&self) -> Option<Instant> {
        match self {
            Self::Mux(mux) => mux.up_since(),
            Self::Dialback(dialback) => dialback.up_since(),
        }
    }

    /// Whether nothing new is opened here any more.
    pub(crate) fn is_draining(&self) -> bool {
        match self {
            Self::Mux(mux) => mux.is_draining(),
            Self::Dialback(dialback) => dialback.is_draining(),
        }
    }

    /// Resolves when the agent says that it drains, for which the dial-back protocol has no word.
    pub(crate) async fn agent_drains(&self) -> PeerDrain {
        match self {
            Self::Mux(mux) => mux.peer_drains().await,
            Self::Dialback(_) => std::future::pending().await,
        }
    }

    /// Finishes what runs, opens nothing new, and tells the agent so.
    pub(crate) fn drain(&self, code: CloseCode, deadline: Duration, jitter: Duration, reason: &str) {
        match self {
            Self::Mux(mux) => mux.drain(code, deadline, jitter, reason),
            Self::Dialback(dialback) => dialback.drain(code, reason),
        }
    }

    /// Opens a stream; waits for the agent's answer unless `early_data`, which dial-back streams cannot have.
    pub(crate) fn open(&self, target: TargetName, metadata: Metadata, early_data: bool) -> Opening {
        let opening = match self {
            Self::Mux(mux) => Either::Mux(mux.open(target.clone(), metadata, early_data)),
            Self::Dialback(dialback) => Either::Dialback(dialback.open(&target)),
        };
        Opening { opening, target }
    }

    /// Ends it now: the agent is told `code`; streams fail with `end`.
    pub(crate) fn close(&self, code: CloseCode, reason: &str, end: SessionEnd) {
        match self {
            Self::Mux(mux) => mux.close(code, reason, end),
            Self::Dialback(dialback) => dialback.close(code, reason, end),
        }
    }

    /// Ends it now; streams fail with `end`, if they cannot live without it.
    pub(crate) fn end(&self, end: SessionEnd) {
        match self {
            Self::Mux(mux) => mux.end(end),
            Self::Dialback(dialback) => dialback.end(end),
        }
    }

    /// Why it ended, if it did.
    pub(crate) fn ended(&self) -> Option<SessionEnd> {
        match self {
            Self::Mux(mux) => mux.ended(),
            Self::Dialback(dialback) => dialback.ended(),
        }
    }

    /// Its counts.
    pub(crate) fn stats(&self) -> SessionStats {
        match self {
            Self::Mux(mux) => mux.stats(),
            Self::Dialback(dialback) => dialback.stats(),
        }
    }
}

/// An open under way.
///
/// # Cancel safety
/// Dropping it gives the open up; nothing of the stream stays behind.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Opening {
    opening: Either,
    target: TargetName,
}

#[derive(Debug)]
enum Either {
    Mux(mux::Opening),
    Dialback(dialback::Opening),
}

impl Future for Opening {
    type Output = Result<TunnelStream, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let stream = match &mut this.opening {
            Either::Mux(opening) => ready!(Pin::new(opening).poll(cx))?.into(),
            Either::Dialback(opening) => Box::new(ready!(Pin::new(opening).poll(cx))?).into(),
        };
        Poll::Ready(Ok(TunnelStream::new(stream, this.target.clone())))
    }
}

/// A stream that the server opened, not answered yet. Dropping it refuses with `CANCELLED`.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Of the native protocol.
    Mux(MuxIncoming),
    /// Of the dial-back protocol: picked up already, which is its answer.
    Dialback(PickedUp),
}

/// A dial-back stream that nobody has taken yet. Dropped, it is reset.
#[derive(Debug)]
pub(crate) struct PickedUp(Option<Box<DialbackStream>>);

impl From<DialbackStream> for Incoming {
    fn from(stream: DialbackStream) -> Self {
        Self::Dialback(PickedUp(Some(Box::new(stream))))
    }
}

impl Drop for PickedUp {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            stream.reset();
        }
    }
}

impl Incoming {
    /// What the server wants to reach.
    pub(crate) fn target(&self) -> TargetName {
        match self {
            Self::Mux(mux) => mux.target().clone(),
            Self::Dialback(_) => TargetName::default(),
        }
    }

    /// Takes the stream. `Err` if the server has given it up meanwhile, or the session ended.
    pub(crate) fn accept(self) -> Result<TunnelStream, Error> {
        let target = self.target();
        let stream = match self {
            Self::Mux(mux) => mux.accept()?.into(),
            Self::Dialback(mut stream) => stream.0.take().ok_or_else(|| Error::new(ErrorKind::Internal))?.into(),
        };
        Ok(TunnelStream::new(stream, target))
    }

    /// Turns it down.
    pub(crate) fn refuse(self, code: ResetCode, reason: &str) {
        match self {
            Self::Mux(mux) => mux.refuse(code, reason),
            Self::Dialback(stream) => drop(stream),
        }
    }
}

//! The handle by which the two sides of a tunnel open and take streams.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use super::stream::TunnelStream;
use crate::{
    error::Error,
    frame::{CloseCode, Metadata, ResetCode},
    key::{Epoch, TargetName},
    mux::{self, BindError, Bound, Deferred, MuxIncoming, MuxTunnel, PeerDrain},
    proto::{SessionEnd, SessionStats},
};

/// The handle by which streams are opened to an agent. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tunnel {
    mux: MuxTunnel,
}

impl Tunnel {
    /// A tunnel of the native protocol.
    pub(crate) fn mux(tunnel: MuxTunnel) -> Self {
        Self { mux: tunnel }
    }

    /// Binds the link of this epoch, if it may be: from here on the one before is superseded.
    pub(crate) fn bind(&self, epoch: Epoch, peer_has: u64) -> Deferred<Result<Bound, BindError>> {
        self.mux.bind(epoch, peer_has)
    }

    /// Whether the agent has spoken on the present link, or on the last one if there is none.
    pub(crate) fn heard(&self) -> bool {
        self.mux.heard()
    }

    /// Since when there is a link; `None`: there is none.
    pub(crate) fn up_since(&self) -> Option<Instant> {
        self.mux.up_since()
    }

    /// Whether nothing new is opened here any more.
    pub(crate) fn is_draining(&self) -> bool {
        self.mux.is_draining()
    }

    /// Resolves when the agent says that it drains.
    pub(crate) async fn agent_drains(&self) -> PeerDrain {
        self.mux.peer_drains().await
    }

    /// Finishes what runs, opens nothing new, and tells the agent so.
    pub(crate) fn drain(&self, code: CloseCode, deadline: Duration, jitter: Duration, reason: &str) {
        self.mux.drain(code, deadline, jitter, reason);
    }

    /// Opens a stream; waits for the agent's answer unless `early_data`.
    pub(crate) fn open(&self, target: TargetName, metadata: Metadata, early_data: bool) -> Opening {
        Opening { mux: self.mux.open(target.clone(), metadata, early_data), target }
    }

    /// Ends it now: the agent is told `code`; streams fail with `end`.
    pub(crate) fn close(&self, code: CloseCode, reason: &str, end: SessionEnd) {
        self.mux.close(code, reason, end);
    }

    /// Ends it now; streams fail with `end`.
    pub(crate) fn end(&self, end: SessionEnd) {
        self.mux.end(end);
    }

    /// Why it ended, if it did.
    pub(crate) fn ended(&self) -> Option<SessionEnd> {
        self.mux.ended()
    }

    /// Its counts.
    pub(crate) fn stats(&self) -> SessionStats {
        self.mux.stats()
    }
}

/// An open under way.
///
/// # Cancel safety
/// Dropping it gives the open up; nothing of the stream stays behind.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Opening {
    mux: mux::Opening,
    target: TargetName,
}

impl Future for Opening {
    type Output = Result<TunnelStream, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let stream = ready!(Pin::new(&mut this.mux).poll(cx))?;
        Poll::Ready(Ok(TunnelStream::new(stream, this.target.clone())))
    }
}

/// A stream that the server opened, not answered yet. Dropping it refuses with `CANCELLED`.
#[derive(Debug)]
pub(crate) struct Incoming {
    mux: MuxIncoming,
}

impl Incoming {
    /// A stream of the native protocol.
    pub(crate) fn mux(incoming: MuxIncoming) -> Self {
        Self { mux: incoming }
    }

    /// What the server wants to reach.
    pub(crate) fn target(&self) -> &TargetName {
        self.mux.target()
    }

    /// Takes the stream. `Err` if the server has given it up meanwhile, or the session ended.
    pub(crate) fn accept(self) -> Result<TunnelStream, Error> {
        let target = self.mux.target().clone();
        Ok(TunnelStream::new(self.mux.accept()?, target))
    }

    /// Turns it down.
    pub(crate) fn refuse(self, code: ResetCode, reason: &str) {
        self.mux.refuse(code, reason);
    }
}

//! The handle by which the two sides of a tunnel open and take streams.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use super::stream::TunnelStream;
use crate::{
    error::Error,
    frame::{CloseCode, Metadata, ResetCode},
    key::TargetName,
    mux::{self, MuxIncoming, MuxTunnel},
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

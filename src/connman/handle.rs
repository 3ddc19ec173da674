//! What connman needs of a tunnel, so that all of it is tested over doubles.

use std::time::{Duration, Instant};

use crate::{
    error::Error,
    frame::{CloseCode, Metadata},
    key::{Epoch, TargetName},
    mux::{BindError, Bound, Deferred},
    proto::{SessionEnd, SessionStats},
    tunnel::{Opening, Tunnel, TunnelStream},
};

/// What the manager needs of a tunnel: [`Tunnel`], or a double in tests.
pub(crate) trait Handle: Clone + Unpin + Send + Sync + 'static {
    /// What an open gives.
    type Stream;
    /// An open under way; dropping it gives the open up.
    type Opening: Future<Output = Result<Self::Stream, Error>> + Unpin + Send;

    /// The right to drive a link.
    type Link;

    /// Binds the link of this epoch, whose agent has so many messages of the session. Under the registry's lock.
    fn bind(&self, epoch: Epoch, peer_has: u64) -> Deferred<Result<Self::Link, BindError>>;
    /// Whether the agent had spoken on the link before this one.
    fn heard_before(link: &Self::Link) -> bool;
    /// Whether the agent has spoken on the present link, or on the last one if there is none.
    fn heard(&self) -> bool;
    /// Since when there is a link.
    fn up_since(&self) -> Option<Instant>;
    /// Whether nothing new is opened in the session, which may still run.
    fn is_draining(&self) -> bool;
    /// Has the session finish what runs, and says so to the agent.
    fn drain(&self, code: CloseCode, deadline: Duration, jitter: Duration, reason: &str);
    /// Opens a stream.
    fn open(&self, target: TargetName, metadata: Metadata, early_data: bool) -> Self::Opening;
    /// A stream whose end, if it may be a loss, is an error, or is not.
    fn with_eof(stream: Self::Stream, strict: bool) -> Self::Stream;
    /// Ends the session and says why to the agent.
    fn close(&self, code: CloseCode, reason: &str, end: SessionEnd);
    /// Ends the session silently.
    fn end(&self, end: SessionEnd);
    /// Why the session ended.
    fn ended(&self) -> Option<SessionEnd>;
    /// Counts of the session.
    fn stats(&self) -> SessionStats;
}

impl Handle for Tunnel {
    type Stream = TunnelStream;
    type Opening = Opening;
    /// `None`: the tunnel is driven without one.
    type Link = Option<Bound>;

    fn bind(&self, epoch: Epoch, peer_has: u64) -> Deferred<Result<Option<Bound>, BindError>> {
        Self::bind(self, epoch, peer_has).map(|bound| bound.map(Some))
    }

    fn heard_before(link: &Option<Bound>) -> bool {
        link.as_ref().is_some_and(Bound::heard_before)
    }

    fn heard(&self) -> bool {
        Self::heard(self)
    }

    fn up_since(&self) -> Option<Instant> {
        Self::up_since(self)
    }

    fn is_draining(&self) -> bool {
        Self::is_draining(self)
    }

    fn drain(&self, code: CloseCode, deadline: Duration, jitter: Duration, reason: &str) {
        Self::drain(self, code, deadline, jitter, reason);
    }

    fn open(&self, target: TargetName, metadata: Metadata, early_data: bool) -> Opening {
        Self::open(self, target, metadata, early_data)
    }

    fn with_eof(mut stream: TunnelStream, strict: bool) -> TunnelStream {
        if strict {
            stream.strict_eof();
        }
        stream
    }

    fn close(&self, code: CloseCode, reason: &str, end: SessionEnd) {
        Self::close(self, code, reason, end);
    }

    fn end(&self, end: SessionEnd) {
        Self::end(self, end);
    }

    fn ended(&self) -> Option<SessionEnd> {
        Self::ended(self)
    }

    fn stats(&self) -> SessionStats {
        Self::stats(self)
    }
}

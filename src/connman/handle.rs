//! What connman needs of a tunnel, so that all of it is tested over doubles.

use crate::{
    error::Error,
    frame::{CloseCode, Metadata},
    key::TargetName,
    proto::{SessionEnd, SessionStats},
    tunnel::{Opening, Tunnel, TunnelStream},
};

/// What the manager needs of a tunnel: [`Tunnel`], or a double in tests.
pub(crate) trait Handle: Clone + Unpin + Send + Sync + 'static {
    /// What an open gives.
    type Stream;
    /// An open under way; dropping it gives the open up.
    type Opening: Future<Output = Result<Self::Stream, Error>> + Unpin + Send;

    /// Opens a stream.
    fn open(&self, target: TargetName, metadata: Metadata, early_data: bool) -> Self::Opening;
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

    fn open(&self, target: TargetName, metadata: Metadata, early_data: bool) -> Opening {
        Self::open(self, target, metadata, early_data)
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

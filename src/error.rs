//! The one public error: what went wrong, who is to blame, and whether a retry is safe.

use std::{error::Error as StdError, fmt, io, iter};

use crate::{
    frame::ResetCode,
    proto::{OpenError, SessionEnd, StreamError},
};

/// A failure of a tunnel, a dial or a stream.
///
/// [`kind`](Self::kind) is what to match on. `Display` tells this level only; causes are in
/// [`source`](StdError::source), and their types are not promised, but for `connman::Gone`. Texts that came from a peer are for logs: they
/// are in no `Display` of this type, and in `Debug` they are escaped.
///
/// The [`io::Error`] of a stream leads here by its `source()`, and so do the errors of hyper and its clients that have one
/// for a cause; [`find`](Self::find) walks that way.
///
/// ```
/// use revdial::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::NoConnection);
/// assert_eq!(error.to_string(), "no connection");
/// assert!(error.is_retry_safe());
///
/// // It is found again below other errors, as hyper's clients and std's io wrap it.
/// let io = std::io::Error::from(error);
/// assert_eq!(io.to_string(), "no connection");
/// assert_eq!(Error::find(&io).unwrap().kind(), ErrorKind::NoConnection);
/// assert!(std::error::Error::source(&io).unwrap().is::<Error>());
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    blame: Blame,
    retry_safe: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What went wrong. The set is closed by the crate's documentation, and may still grow.
///
/// `Display` of the [`Error`] is the text, and [`as_str`](Self::as_str) the kind in lower case. A retry is safe if no
/// byte can have reached the target; an error that came about before anything was sent is safe whatever its kind, and
/// a `DialTimeout` of a stream with early data is not. A `DialTimeout` is the caller's to blame where it was the caller's own
/// [deadline](crate::connman::Dial::timeout) that passed. The status is what the proxy answers; a 503 comes with `Retry-After`.
///
/// | kind | text | to blame | safe | status |
/// | --- | --- | --- | --- | --- |
/// | `NoConnection` | no connection | Agent | yes | 503 |
/// | `ReconnectTimeout` | reconnect timeout | Agent | yes | 503 |
/// | `TooManyPendingDials` | max pending dials exceeded | Server | yes | 503 |
/// | `DialTimeout` | dial timeout | Agent | yes | 504 |
/// | `TargetUnknown` | the agent has no such target | Agent | yes | 502 |
/// | `TargetDenied` | the agent does not allow the target | Agent | yes | 502 |
/// | `TargetRefused` | connection refused | Target | yes | 502 |
/// | `TargetTimeout` | the target did not answer | Target | yes | 504 |
/// | `SessionLost` | the session was lost | Agent | no | 502 |
/// | `Replaced` | the agent was replaced | Agent | no | 502 |
/// | `Protocol` | the peer broke the protocol | Agent | no | 502 |
/// | `Overloaded` | overloaded | Server | yes | 503 |
/// | `Shutdown` | shutting down | Server | no | 503 |
/// | `Auth` | authentication required | Agent | yes | 502 |
/// | `Forbidden` | key not permitted | Agent | yes | 502 |
/// | `KeyInUse` | key in use | Agent | yes | 502 |
/// | `Version` | no common protocol version | Agent | yes | 502 |
/// | `Handshake` | the handshake failed | Server | yes | 502 |
/// | `Tls` | TLS failed | Server | yes | 502 |
/// | `PeerReset` | the peer reset the stream | Target | no | 502 |
/// | `Cancelled` | cancelled | Caller | no | 400 |
/// | `InvalidInput` | invalid input | Caller | yes | 400 |
/// | `Internal` | internal error | Internal | no | 500 |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The key was never seen, or is gone.
    NoConnection,
    /// The key was in grace and did not return in time.
    ReconnectTimeout,
    /// As many dials wait as the policy allows.
    TooManyPendingDials,
    /// The agent did not answer the dial in time, or the caller's deadline for it passed.
    DialTimeout,
    /// The agent has no such target.
    TargetUnknown,
    /// The agent does not allow the target.
    TargetDenied,
    /// The service behind the agent refused the connection.
    TargetRefused,
    /// The service behind the agent did not answer the connect.
    TargetTimeout,
    /// The session ended under the stream.
    SessionLost,
    /// Another agent took the key.
    Replaced,
    /// The peer broke a rule of the protocol.
    Protocol,
    /// A bound was reached.
    Overloaded,
    /// This side, or the peer, goes down.
    Shutdown,
    /// The server, or a proxy on the way to it, did not accept the agent's credentials.
    Auth,
    /// The server does not allow the agent this key.
    Forbidden,
    /// The key is in use, and the server's policy rejects a second agent.
    KeyInUse,
    /// No common protocol or version.
    Version,
    /// The server could not be reached, or the WebSocket handshake failed otherwise.
    Handshake,
    /// The TLS of the server, or of a proxy on the way to it, is not valid.
    Tls,
    /// The peer reset the stream.
    PeerReset,
    /// The caller gave up.
    Cancelled,
    /// A URI, key or setting that cannot be.
    InvalidInput,
    /// A fault inside this crate, or a callback that panicked.
    Internal,
}

/// Who can do something about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Blame {
    /// The caller: its input, or its deadline.
    Caller,
    /// The agent, or what connects it.
    Agent,
    /// The service behind the agent.
    Target,
    /// The server, or how it is set up.
    Server,
    /// This crate.
    Internal,
}

impl ErrorKind {
    /// The kind as a label for metrics and answers: `no_connection`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoConnection => "no_connection",
            Self::ReconnectTimeout => "reconnect_timeout",
            Self::TooManyPendingDials => "too_many_pending_dials",
            Self::DialTimeout => "dial_timeout",
            Self::TargetUnknown => "target_unknown",
            Self::TargetDenied => "target_denied",
            Self::TargetRefused => "target_refused",
            Self::TargetTimeout => "target_timeout",
            Self::SessionLost => "session_lost",
            Self::Replaced => "replaced",
            Self::Protocol => "protocol",
            Self::Overloaded => "overloaded",
            Self::Shutdown => "shutdown",
            Self::Auth => "auth",
            Self::Forbidden => "forbidden",
            Self::KeyInUse => "key_in_use",
            Self::Version => "version",
            Self::Handshake => "handshake",
            Self::Tls => "tls",
            Self::PeerReset => "peer_reset",
            Self::Cancelled => "cancelled",
            Self::InvalidInput => "invalid_input",
            Self::Internal => "internal",
        }
    }

    /// Whether no byte can have reached the target, as far as the kind tells.
    const fn is_retry_safe(self) -> bool {
        match self {
            Self::NoConnection | Self::ReconnectTimeout | Self::TooManyPendingDials | Self::DialTimeout => true,
            Self::TargetUnknown | Self::TargetDenied | Self::TargetRefused | Self::TargetTimeout => true,
            Self::Auth | Self::Forbidden | Self::KeyInUse | Self::Version | Self::Handshake | Self::Tls => true,
            Self::Overloaded | Self::InvalidInput => true,
            Self::SessionLost | Self::Replaced | Self::Protocol | Self::Shutdown => false,
            Self::PeerReset | Self::Cancelled | Self::Internal => false,
        }
    }

    /// Who can do something about it, as far as the kind tells.
    const fn blame(self) -> Blame {
        match self {
            Self::Cancelled | Self::InvalidInput => Blame::Caller,
            Self::NoConnection | Self::ReconnectTimeout | Self::DialTimeout | Self::SessionLost => Blame::Agent,
            Self::Replaced | Self::Protocol | Self::TargetUnknown | Self::TargetDenied => Blame::Agent,
            Self::Auth | Self::Forbidden | Self::KeyInUse | Self::Version => Blame::Agent,
            Self::TargetRefused | Self::TargetTimeout | Self::PeerReset => Blame::Target,
            Self::TooManyPendingDials | Self::Overloaded | Self::Shutdown => Blame::Server,
            Self::Handshake | Self::Tls => Blame::Server,
            Self::Internal => Blame::Internal,
        }
    }

    /// What operators read: the texts that they know stay recognisable.
    const fn text(self) -> &'static str {
        match self {
            Self::NoConnection => "no connection",
            Self::ReconnectTimeout => "reconnect timeout",
            Self::TooManyPendingDials => "max pending dials exceeded",
            Self::DialTimeout => "dial timeout",
            Self::TargetUnknown => "the agent has no such target",
            Self::TargetDenied => "the agent does not allow the target",
            Self::TargetRefused => "connection refused",
            Self::TargetTimeout => "the target did not answer",
            Self::SessionLost => "the session was lost",
            Self::Replaced => "the agent was replaced",
            Self::Protocol => "the peer broke the protocol",
            Self::Overloaded => "overloaded",
            Self::Shutdown => "shutting down",
            Self::Auth => "authentication required",
            Self::Forbidden => "key not permitted",
            Self::KeyInUse => "key in use",
            Self::Version => "no common protocol version",
            Self::Handshake => "the handshake failed",
            Self::Tls => "TLS failed",
            Self::PeerReset => "the peer reset the stream",
            Self::Cancelled => "cancelled",
            Self::InvalidInput => "invalid input",
            Self::Internal => "internal error",
        }
    }
}

impl Error {
    /// An error of this kind, without a cause.
    #[must_use]
    pub fn new(kind: ErrorKind) -> Self {
        Self(Box::new(Inner { kind, blame: kind.blame(), retry_safe: kind.is_retry_safe(), source: None }))
    }

    /// An error of this kind with a cause.
    #[must_use]
    pub fn with_source(kind: ErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(Box::new(Inner { source: Some(source.into()), ..*Self::new(kind).0 }))
    }

    /// The same, of something that failed before anything was sent.
    pub(crate) fn unsent(self) -> Self {
        self.retry_safe(true)
    }

    /// The same, of something of which more is known than its kind tells.
    pub(crate) fn retry_safe(mut self, safe: bool) -> Self {
        self.0.retry_safe = safe;
        self
    }

    /// The same, of which it is known who else can do something about it.
    #[cfg(feature = "server")]
    pub(crate) fn blamed_on(mut self, blame: Blame) -> Self {
        self.0.blame = blame;
        self
    }

    /// As an error of std's io, of this kind, whose `source` it is.
    pub(crate) fn in_io(self, kind: io::ErrorKind) -> io::Error {
        io::Error::new(kind, Carried(self))
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Who can do something about it.
    #[must_use]
    pub fn blame(&self) -> Blame {
        self.0.blame
    }

    /// Whether no byte can have reached the target, so that the same request may be sent again.
    #[must_use]
    pub fn is_retry_safe(&self) -> bool {
        self.0.retry_safe
    }

    /// Finds an error of this crate in a chain of causes, also where an [`io::Error`] hides it from `source()`.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        causes(error).find_map(|error| error.downcast_ref())
    }
}

/// An error and its causes, also those that an [`io::Error`] hides from `source()`.
pub(crate) fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner as &(dyn StdError + 'static)),
        None => error.source(),
    })
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.kind.text())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.0.kind);
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}

impl From<SessionEnd> for Error {
    fn from(end: SessionEnd) -> Self {
        Self::with_source(
            match &end {
                SessionEnd::Lost | SessionEnd::Revoked | SessionEnd::ClosedByPeer { .. } => ErrorKind::SessionLost,
                SessionEnd::Unresumable(_) => ErrorKind::SessionLost,
                SessionEnd::Replaced => ErrorKind::Replaced,
                SessionEnd::Violation(_) => ErrorKind::Protocol,
                SessionEnd::Shutdown => ErrorKind::Shutdown,
                SessionEnd::Internal => ErrorKind::Internal,
            },
            StreamError::Session(end),
        )
    }
}

impl From<StreamError> for Error {
    fn from(error: StreamError) -> Self {
        let kind = match &error {
            StreamError::Session(end) => return end.clone().into(),
            StreamError::Reset { code, .. } => match *code {
                ResetCode::TARGET_UNKNOWN => ErrorKind::TargetUnknown,
                ResetCode::TARGET_DENIED => ErrorKind::TargetDenied,
                ResetCode::TARGET_REFUSED => ErrorKind::TargetRefused,
                ResetCode::TARGET_TIMEOUT => ErrorKind::TargetTimeout,
                ResetCode::TOO_MANY_STREAMS => ErrorKind::Overloaded,
                _ => ErrorKind::PeerReset,
            },
            StreamError::Stopped(_) => ErrorKind::PeerReset,
            // What was written early may be on its way to the target.
            StreamError::Unanswered => return Self::with_source(ErrorKind::DialTimeout, error).retry_safe(false),
            StreamError::Finished => ErrorKind::InvalidInput,
        };
        Self::with_source(kind, error)
    }
}

/// Where an open is turned down by this side, OPEN has not left.
impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        let kind = match &error {
            OpenError::Session(end) => return Self::from(end.clone()).unsent(),
            OpenError::TooManyOpens | OpenError::TooManyStreams => ErrorKind::Overloaded,
            OpenError::Draining | OpenError::Exhausted => ErrorKind::Shutdown,
            OpenError::WrongSide => ErrorKind::InvalidInput,
        };
        Self::with_source(kind, error).unsent()
    }
}

/// The kind of the [`io::Error`] is the nearest that std has; the error itself is its [`source`](StdError::source).
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::TargetRefused => io::ErrorKind::ConnectionRefused,
            ErrorKind::PeerReset | ErrorKind::SessionLost | ErrorKind::Replaced => io::ErrorKind::ConnectionReset,
            ErrorKind::DialTimeout | ErrorKind::TargetTimeout | ErrorKind::ReconnectTimeout => io::ErrorKind::TimedOut,
            ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
            ErrorKind::NoConnection => io::ErrorKind::NotConnected,
            _ => io::ErrorKind::Other,
        };
        error.in_io(kind)
    }
}

/// An error within one of std's io, which gives as its source that of what it carries, and never what it carries.
struct Carried(Error);

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl StdError for Carried {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("outer")
        }
    }

    impl StdError for Outer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn is_found_below_an_io_error_below_another() {
        let outer = Outer(Error::new(ErrorKind::TargetRefused).into());
        assert_eq!(Error::find(&outer).map(Error::kind), Some(ErrorKind::TargetRefused));
        assert!(Error::find(&Outer(io::Error::other("none of ours"))).is_none());
    }

    #[test]
    fn an_open_that_never_left_may_be_tried_again_and_a_stream_that_ended_may_not() {
        let shutdown = SessionEnd::Shutdown;
        for (open, kind) in [
            (OpenError::Draining, ErrorKind::Shutdown),
            (OpenError::Exhausted, ErrorKind::Shutdown),
            (OpenError::Session(shutdown.clone()), ErrorKind::Shutdown),
            (OpenError::TooManyOpens, ErrorKind::Overloaded),
            (OpenError::TooManyStreams, ErrorKind::Overloaded),
        ] {
            let error = Error::from(open);
            assert_eq!((error.kind(), error.is_retry_safe()), (kind, true), "{error:?}");
        }
        let error = Error::from(StreamError::Session(shutdown));
        assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::Shutdown, false));
        let reset = |code| Error::from(StreamError::Reset { code, reason: "".into() });
        assert!(reset(ResetCode::TARGET_REFUSED).is_retry_safe());
        assert!(!reset(ResetCode::TARGET_RESET).is_retry_safe());
    }

    #[test]
    fn is_the_source_of_an_io_error_which_shows_its_text() {
        for io in [
            io::Error::from(Error::from(ErrorKind::TargetRefused)),
            Error::from(ErrorKind::TargetRefused).in_io(io::ErrorKind::BrokenPipe),
        ] {
            let ours = io.source().and_then(|source| source.downcast_ref::<Error>()).expect("ours");
            assert_eq!((ours.kind(), io.to_string()), (ErrorKind::TargetRefused, "connection refused".to_owned()));
        }
    }

    #[test]
    fn is_one_word() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }

    #[test]
    fn texts_of_the_peer_stay_out_of_display() {
        let error = Error::from(StreamError::Reset { code: ResetCode::INTERNAL, reason: "<script>".into() });
        let source = error.source().map(ToString::to_string).unwrap_or_default();
        assert!(!error.to_string().contains("<script>") && !source.contains("<script>"));
    }
}

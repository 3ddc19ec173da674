//! What the end of an attempt or of a link means for the next one: its kind, and how soon to try again.

use std::{
    error::Error as StdError,
    fmt, iter,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, StatusCode, header};

use crate::{
    error::{Error, ErrorKind},
    frame::CloseCode,
    link::{LinkEnd, LinkError},
    mux::establish::EstablishError,
    proto::{SessionEnd, Violation},
};

/// The longest Retry-After that is honoured: a server's slip must not strand a sandbox for a day.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// The longest text of a peer that goes into a log line, in characters.
const MAX_TEXT: usize = 256;

/// How soon an agent tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// The link was just lost: at once if there was progress on it, else as `Backoff`.
    AtOnce,
    /// After full jitter, from the smallest bound on if there was progress.
    Jitter,
    /// After full jitter, as a further failure.
    Backoff,
    /// After the long pause of a refusal.
    Slow,
    /// Never: the agent's run ends.
    Never,
}

/// Why an attempt failed or a link ended.
#[derive(Debug)]
pub(crate) struct Setback {
    /// What to tell: its source says more.
    pub(crate) error: Error,
    /// How soon to try again.
    pub(crate) retry: Retry,
    /// The server's Retry-After.
    pub(crate) at_least: Duration,
    /// What the server wrote, cut, for the log only.
    pub(crate) told: String,
    /// Whether the session is in other hands, so that this agent goes on under a new instance id.
    pub(crate) forked: bool,
}

/// The source of an [`Error`] about an attempt: one sentence of our own words.
#[derive(Debug)]
struct Because {
    what: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Setback {
    /// A setback without Retry-After and words of the server.
    pub(crate) fn new(kind: ErrorKind, retry: Retry, what: impl Into<String>) -> Self {
        Self::because(kind, retry, Because { what: what.into(), source: None })
    }

    /// The same with a cause.
    pub(crate) fn caused(
        kind: ErrorKind,
        retry: Retry,
        what: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::because(kind, retry, Because { what: what.into(), source: Some(source.into()) })
    }

    fn because(kind: ErrorKind, retry: Retry, because: Because) -> Self {
        Self {
            error: Error::with_source(kind, because),
            retry,
            at_least: Duration::ZERO,
            told: String::new(),
            forked: false,
        }
    }

    /// The server answered the upgrade at `now` with a status other than 101.
    pub(crate) fn by_status(status: StatusCode, headers: &HeaderMap, body: &str, now: SystemTime) -> Self {
        let (kind, retry) = match status {
            StatusCode::UNAUTHORIZED => (ErrorKind::Auth, Retry::Slow),
            StatusCode::FORBIDDEN => (ErrorKind::Forbidden, Retry::Slow),
            StatusCode::CONFLICT => (ErrorKind::KeyInUse, Retry::Slow),
            StatusCode::UPGRADE_REQUIRED => (ErrorKind::Version, Retry::Slow),
            StatusCode::TOO_MANY_REQUESTS => (ErrorKind::Overloaded, Retry::Backoff),
            _ => (ErrorKind::Handshake, Retry::Backoff),
        };
        // The port may belong to something else, a captive portal for one: its redirects are not ours to follow.
        let what = format!("the server answered {status} to the upgrade");
        let at_least = retry_after(headers, now).unwrap_or_default().min(MAX_RETRY_AFTER);
        Self { at_least, told: cut(body), ..Self::new(kind, retry, what) }
    }

    /// The server closed the session or the WebSocket with this code.
    pub(crate) fn by_code(code: CloseCode, reason: &str) -> Self {
        let (kind, retry) = match code {
            CloseCode::REPLACED => (ErrorKind::Replaced, Retry::Never),
            CloseCode::CREDENTIALS => (ErrorKind::Auth, Retry::Slow),
            CloseCode::FOREIGN | CloseCode::POLICY => (ErrorKind::Forbidden, Retry::Slow),
            CloseCode::IN_USE => (ErrorKind::KeyInUse, Retry::Slow),
            CloseCode::VERSION => (ErrorKind::Version, Retry::Slow),
            CloseCode::NORMAL => (ErrorKind::Shutdown, Retry::Slow),
            CloseCode::DRAINED | CloseCode::RESTART => (ErrorKind::Shutdown, Retry::Jitter),
            CloseCode::DEAD_PEER => (ErrorKind::SessionLost, Retry::Jitter),
            CloseCode::TRY_LATER | CloseCode::OVER_BUDGET | CloseCode::FLOOD => (ErrorKind::Overloaded, Retry::Backoff),
            CloseCode::MALFORMED
            | CloseCode::TEXT
            | CloseCode::INVALID_DATA
            | CloseCode::TOO_BIG
            | CloseCode::FORBIDDEN
            | CloseCode::CREDIT => (ErrorKind::Protocol, Retry::Backoff),
            _ => (ErrorKind::SessionLost, Retry::Backoff),
        };
        let what = format!("the server closed with {code}");
        Self { told: cut(reason), forked: code == CloseCode::STALE, ..Self::new(kind, retry, what) }
    }

    /// No WELCOME came.
    pub(crate) fn by_establish(error: EstablishError) -> Self {
        match error {
            EstablishError::Closed { code, reason } => Self::by_code(code, &reason),
            EstablishError::Link(LinkError::Io(error)) => {
                Self::caused(ErrorKind::Handshake, Retry::Backoff, "the link was lost before the welcome", error)
            }
            EstablishError::Link(_) => {
                Self::new(ErrorKind::Handshake, Retry::Backoff, "the link was lost before the welcome")
            }
            EstablishError::Violation(violation) => Self::by_violation(violation),
            EstablishError::Timeout => Self::new(ErrorKind::Handshake, Retry::Backoff, "no welcome came in time"),
        }
    }

    /// The server broke a rule in its first message.
    pub(crate) fn by_violation(violation: Violation) -> Self {
        Self::caused(ErrorKind::Protocol, Retry::Backoff, "the server broke the protocol", violation)
    }

    /// A link ended that had its WELCOME.
    pub(crate) fn by_end(link: LinkEnd, session: Option<&SessionEnd>) -> Self {
        match (session, link) {
            (Some(SessionEnd::ClosedByPeer { code, reason }), _) => Self::by_code(*code, reason),
            (Some(SessionEnd::Violation(violation) | SessionEnd::Unresumable(violation)), _) => {
                Self::by_violation(*violation)
            }
            (_, LinkEnd::Closed(Some(code))) => Self::by_code(code, ""),
            (_, LinkEnd::Closed(None) | LinkEnd::Lost | LinkEnd::Aborted) => {
                Self::new(ErrorKind::SessionLost, Retry::AtOnce, "the link was lost")
            }
            (_, LinkEnd::Dead) => Self::new(ErrorKind::SessionLost, Retry::Jitter, "nothing was heard from the server"),
            (_, LinkEnd::Violation(code)) => {
                Self::new(ErrorKind::Protocol, Retry::Backoff, format!("the server broke the protocol: {code}"))
            }
            (_, LinkEnd::Superseded | LinkEnd::Local(_)) => {
                Self::new(ErrorKind::Internal, Retry::Backoff, "this side closed the link")
            }
        }
    }

    /// The chain of causes in one line, in our own words and those of the operating system. A link that ended does not say
    /// that the session was lost: it may go on.
    pub(crate) fn text(&self) -> String {
        let kind = Some(self.error.to_string()).filter(|_| self.error.kind() != ErrorKind::SessionLost);
        let causes = iter::successors(self.error.source(), |cause| (**cause).source()).map(ToString::to_string);
        kind.into_iter().chain(causes).collect::<Vec<_>>().join(": ")
    }
}

/// How long Retry-After asks to wait, in seconds or until a date. A date is the server's: if the answer says by `Date` what
/// time it is there, that is meant, and not `now`.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let after = text(header::RETRY_AFTER)?;
    if !after.is_empty() && after.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has room for ask for very long.
        return Some(after.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let until = httpdate::parse_http_date(after).ok()?;
    let now = text(header::DATE).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    until.duration_since(now).ok()
}

/// The first characters of a peer's text.
fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl StdError for Because {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests;

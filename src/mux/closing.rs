//! How a link ends, and how its peer learns why: CLOSE in a last message, then WebSocket's own close frame.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};

use crate::{
    frame::{CloseCode, Frame, Message, MessageHead},
    link::{LinkEnd, LinkError, MessageLink},
    metrics,
    proto::{SessionEnd, Violation},
};

/// For how long a link that is given up is still served, so that the peer can read the reason.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// How a link ends.
pub(super) struct Outcome {
    pub(super) end: LinkEnd,
    /// What the peer is told. `None`: there is nobody to tell.
    pub(super) close: Option<Box<Words>>,
}

/// What a peer is told at the end.
pub(super) struct Words {
    last: Option<Message>,
    code: CloseCode,
    reason: Arc<str>,
    /// For how long.
    within: Duration,
}

impl Outcome {
    /// The byte stream ended or failed.
    pub(super) const fn lost() -> Self {
        Self { end: LinkEnd::Lost, close: None }
    }

    /// The peer closed the WebSocket; it is answered with its own code.
    pub(super) fn closed(code: Option<CloseCode>) -> Self {
        Self::close(LinkEnd::Closed(code), code.unwrap_or(CloseCode::NORMAL), "".into(), None)
    }

    /// Another link was bound.
    pub(super) fn superseded() -> Self {
        Self::close(LinkEnd::Superseded, CloseCode::STALE, "a newer link took over".into(), None)
    }

    /// The peer was not heard in time. It may hear this side all the same, but is not waited for any longer.
    pub(super) fn dead() -> Self {
        metrics::record_dead_peer();
        let (code, reason) = (CloseCode::DEAD_PEER, "nothing was heard in time".into());
        Self { end: LinkEnd::Dead, close: Some(Box::new(Words { last: None, code, reason, within: Duration::ZERO })) }
    }

    fn violation(code: CloseCode, rule: Arc<str>, last: Option<Message>) -> Self {
        tracing::warn!(code = code.number(), rule = &*rule, "the peer broke a rule of the protocol");
        metrics::record_protocol_error(code);
        Self::close(LinkEnd::Violation(code), code, rule, last)
    }

    /// The session ended, perhaps with CLOSE as its `last` message; `local` is set if this side ended it.
    pub(super) fn ended(end: &SessionEnd, local: Option<(CloseCode, Arc<str>)>, last: Option<Message>) -> Self {
        match (end, local) {
            (SessionEnd::Violation(violation) | SessionEnd::Unresumable(violation), _) => {
                Self::violation(violation.code(), violation.rule().into(), last)
            }
            (SessionEnd::ClosedByPeer { code, .. }, _) => {
                Self::close(LinkEnd::Closed(Some(*code)), *code, "".into(), last)
            }
            // Also of a session that this side was about to close otherwise.
            (SessionEnd::Replaced, local) if local.as_ref().is_none_or(|(code, _)| *code != CloseCode::REPLACED) => {
                Self::close(LinkEnd::Closed(Some(CloseCode::REPLACED)), CloseCode::REPLACED, "".into(), last)
            }
            (_, Some((code, reason))) => Self::close(LinkEnd::Local(code), code, reason, last),
            (_, None) => Self::close(LinkEnd::Local(CloseCode::DEAD_PEER), CloseCode::DEAD_PEER, "".into(), last),
        }
    }

    fn close(end: LinkEnd, code: CloseCode, reason: Arc<str>, last: Option<Message>) -> Self {
        Self { end, close: Some(Box::new(Words { last, code, reason, within: CLOSE_WITHIN })) }
    }
}

/// The last bytes of a link, on their way.
pub(super) struct Farewell(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Farewell {
    /// Says `words` on `link`, then drops it.
    pub(super) fn new(mut link: MessageLink, words: Words) -> Self {
        let Words { last, code, reason, within } = words;
        Self(Box::pin(async move { close_within(within, &mut link, last, code, &reason).await }))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Farewell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Farewell")
    }
}

/// Sends `last`, closes the WebSocket with `code` and waits for the peer's end; one second at most for all of it.
pub(super) async fn close(link: &mut MessageLink, last: Option<Message>, code: CloseCode, reason: &str) {
    close_within(CLOSE_WITHIN, link, last, code, reason).await;
}

/// The same within a time; zero is for as much as can be said without waiting.
async fn close_within(within: Duration, link: &mut MessageLink, last: Option<Message>, code: CloseCode, reason: &str) {
    let farewell = async {
        // Where the last message fails, the close frame does too, and there is nobody to tell.
        if let Some(last) = last
            && link.send(last).await.is_err()
        {
            return;
        }
        link.close(sendable(code), reason, within).await;
    };
    let _ = tokio::time::timeout(within, farewell).await;
}

/// A message of number 0 that holds nothing but CLOSE.
pub(super) fn close_message(code: CloseCode, reason: &str) -> Bytes {
    let mut message = BytesMut::new();
    MessageHead { number: 0, received: 0 }.encode(&mut message);
    Frame::Close { code, reason: reason.to_owned() }.encode(&mut message);
    message.freeze()
}

/// The codes that a close frame may carry; one that a CLOSE frame brought and that WebSocket reserves is not echoed.
fn sendable(code: CloseCode) -> CloseCode {
    match code.number() {
        1004..=1006 | 1015 | 0..1000 | 5000.. => CloseCode::NORMAL,
        _ => code,
    }
}

/// The codes of a WebSocket close that end the session; any other end of a link is a loss.
pub(super) fn ends_session(code: CloseCode) -> bool {
    use CloseCode as C;
    matches!(
        code,
        C::NORMAL
            | C::MALFORMED
            | C::TEXT
            | C::TOO_BIG
            | C::REPLACED
            | C::OVER_BUDGET
            | C::FORBIDDEN
            | C::CREDIT
            | C::FLOOD
    )
}

/// The rule that the peer broke, where that is how its link failed.
pub(super) fn violation(error: &LinkError) -> Option<Violation> {
    let rule = match error {
        LinkError::Text => "text message",
        LinkError::TooBig => "message over the limit",
        LinkError::Malformed(_) => "malformed WebSocket frame",
        LinkError::Flood => "flood of WebSocket pings",
        LinkError::Closed { .. } | LinkError::Eof | LinkError::Io(_) => return None,
    };
    error.close_code().map(|code| Violation::new(code, rule))
}

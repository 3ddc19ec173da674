//! The first messages of a link: HELLO and WELCOME, each alone in a message of number 0, within a deadline.

use std::{fmt, future::Future, io, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use super::closing;
use crate::{
    frame::{CloseCode, Frame, Hello, MessageHead, Welcome, decode},
    link::{LinkError, MessageLink},
    proto::{Attempts, Violation, Welcomed, check_bounds, check_hello},
};

/// How long WELCOME may take to leave. It is the first message of its direction, so only a dead link takes longer.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);

/// Why the first messages of a link did not come about.
#[derive(Debug)]
pub(crate) enum EstablishError {
    /// The link failed.
    Link(LinkError),
    /// The peer broke a rule.
    Violation(Violation),
    /// They did not come in time.
    Timeout,
    /// The peer refused, by a CLOSE frame or by closing the WebSocket.
    Closed {
        /// Why.
        code: CloseCode,
        /// Its words; for the log only.
        reason: String,
    },
}

/// Server: waits for HELLO. Gives it and what the agent has. On `Err` the link was closed with the right code.
///
/// # Cancel safety
/// A dropped future leaves the link open and HELLO possibly taken: drop the link, too.
pub(crate) async fn accept(link: &mut MessageLink, within: Duration) -> Result<(Hello, u64), EstablishError> {
    let received = first(link, within).await;
    checked(link, received, |frame| match frame {
        Frame::Hello(hello) => {
            check_hello(&hello)?;
            Ok(hello)
        }
        _ => Err(forbidden("first message other than HELLO")),
    })
    .await
}

/// Server: sends WELCOME, and with it how many messages of the session this side `has`.
pub(crate) async fn welcome(link: &mut MessageLink, welcome: &Welcome, has: u64) -> Result<(), LinkError> {
    let message = alone(&Frame::Welcome(welcome.clone()), has);
    timeout(WELCOME_WITHIN, link.send(message))
        .await
        .unwrap_or_else(|_| Err(LinkError::Io(io::Error::from(io::ErrorKind::TimedOut))))
}

/// Agent: sends the next of `attempts`, and with it how many messages of the session this side `has`; waits for WELCOME.
/// Gives what that brings, and what the server has. On `Err` the link was closed with the right code.
///
/// # Cancel safety
/// A dropped future leaves the link open and the attempt used up: drop the link, too.
pub(crate) async fn offer(
    link: &mut MessageLink,
    attempts: &mut Attempts,
    base: &Hello,
    has: u64,
    within: Duration,
) -> Result<(Welcome, Welcomed, u64), EstablishError> {
    let message = alone(&Frame::Hello(attempts.hello(base)), has);
    let received = first_after(link, within, message).await;
    let judged = checked(link, received, |frame| match frame {
        Frame::Welcome(welcome) => {
            check_bounds(&welcome.bounds)?;
            let welcomed = attempts.welcomed(&welcome)?;
            Ok((welcome, welcomed))
        }
        _ => Err(forbidden("first message other than WELCOME")),
    });
    let ((welcome, welcomed), has) = judged.await?;
    Ok((welcome, welcomed, has))
}

/// Turns away a link on which nothing was agreed: CLOSE, then the WebSocket's close, with the same code; one second at
/// most.
pub(crate) async fn refuse(link: &mut MessageLink, code: CloseCode, reason: &str) {
    closing::close(link, Some(closing::close_message(code, reason).into()), code, reason).await;
}

async fn first(link: &mut MessageLink, within: Duration) -> Result<Bytes, EstablishError> {
    in_time(within, link.recv()).await
}

async fn first_after(link: &mut MessageLink, within: Duration, message: Bytes) -> Result<Bytes, EstablishError> {
    let exchange = async {
        match link.send(message).await {
            // What the peer said before it closed tells more than the failed write.
            Ok(()) | Err(LinkError::Io(_) | LinkError::Eof) => link.recv().await,
            Err(error) => Err(error),
        }
    };
    in_time(within, exchange).await
}

async fn in_time(
    within: Duration,
    message: impl Future<Output = Result<Bytes, LinkError>>,
) -> Result<Bytes, EstablishError> {
    timeout(within, message).await.map_err(|_| EstablishError::Timeout)?.map_err(|error| match error {
        LinkError::Closed { code: Some(code), reason } => EstablishError::Closed { code, reason },
        error => closing::violation(&error).map_or(EstablishError::Link(error), EstablishError::Violation),
    })
}

/// Takes the one frame of the first message apart, or closes the link.
async fn checked<T>(
    link: &mut MessageLink,
    received: Result<Bytes, EstablishError>,
    judge: impl FnOnce(Frame) -> Result<T, Violation>,
) -> Result<(T, u64), EstablishError> {
    let judged = received.and_then(|message| {
        let (frame, has) = only_frame(message).map_err(EstablishError::Violation)?;
        match frame {
            Frame::Close { code, reason } => Err(EstablishError::Closed { code, reason }),
            frame => Ok((judge(frame).map_err(EstablishError::Violation)?, has)),
        }
    });
    match &judged {
        Ok(_) | Err(EstablishError::Link(_)) => {}
        Err(EstablishError::Violation(violation)) => refuse(link, violation.code(), violation.rule()).await,
        Err(EstablishError::Timeout) => refuse(link, CloseCode::DEAD_PEER, "nothing was said in time").await,
        Err(EstablishError::Closed { code, .. }) => closing::close(link, None, *code, "").await,
    }
    judged
}

fn only_frame(message: Bytes) -> Result<(Frame, u64), Violation> {
    let (head, mut frames) = decode(message).map_err(Violation::from)?;
    let frame = frames.next().ok_or(forbidden("empty first message"))?.map_err(Violation::from)?;
    match frames.next() {
        Some(Err(error)) => Err(error.into()),
        Some(Ok(_)) => Err(forbidden("more than one frame in the first message")),
        None if head.number != 0 => Err(forbidden("first message with a number")),
        None => Ok((frame, head.received)),
    }
}

fn alone(frame: &Frame, has: u64) -> Bytes {
    let mut message = BytesMut::new();
    MessageHead { number: 0, received: has }.encode(&mut message);
    frame.encode(&mut message);
    message.freeze()
}

const fn forbidden(rule: &'static str) -> Violation {
    Violation::new(CloseCode::FORBIDDEN, rule)
}

impl fmt::Display for EstablishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(_) => f.write_str("the link failed before the session was agreed"),
            Self::Violation(violation) => violation.fmt(f),
            Self::Timeout => f.write_str("the session was not agreed in time"),
            Self::Closed { code, .. } => write!(f, "the peer refused: {code}"),
        }
    }
}

impl std::error::Error for EstablishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Link(error) => Some(error),
            _ => None,
        }
    }
}

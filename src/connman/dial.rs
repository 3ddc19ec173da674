//! One dial: it takes a tunnel, waits for one, or is refused, until a stream is open.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    connman::{
        deadline::Deadline,
        handle::Handle,
        registry::Refusal,
        seek::{Seeking, refused},
        state::Inner,
    },
    error::{Blame, Error, ErrorKind},
    frame::Metadata,
    key::{AgentKey, Epoch, TargetName},
    metrics,
    proto::SessionEnd,
    tunnel::{Tunnel, TunnelStream},
};

/// A dial under way, made by [`ConnectionManager::dial`](crate::connman::ConnectionManager::dial). `Unpin + Send`.
///
/// It takes the key's tunnel and opens a stream; while the key is in grace it waits for the agent's return, in the
/// order of first polls; an absent key it may wait for, or have started, as the policy says. A tunnel that turns out to
/// be dead is left, and the dial waits for the next one. The manager's dial timeout (default 10 s) runs from each
/// tunnel taken until the agent's answer, never while the dial waits for a tunnel, and anew on each link;
/// [`timeout`](Self::timeout) is over all. An agent that comes and goes buys no time: a dial ends at the latest the
/// dial timeout after the end of the grace in which it first waited. A call that knows better how long it can wait says
/// so by [`max_wait`](Self::max_wait).
///
/// Nothing happens before the first poll, and then it must be polled within a tokio runtime that has its timer on.
///
/// # Errors
/// - [`NoConnection`](ErrorKind::NoConnection): the key is absent, and no agent came while this dial waited, nor by a
///   [start](crate::connman::Wake); if it was there before, [`Gone`](crate::connman::Gone) is among its causes;
/// - [`ReconnectTimeout`](ErrorKind::ReconnectTimeout): its grace, or [`max_wait`](Self::max_wait), ended while this
///   dial waited for the agent's return, or the agent came and went for longer than that;
/// - [`TooManyPendingDials`](ErrorKind::TooManyPendingDials): as many dials wait as may;
/// - [`DialTimeout`](ErrorKind::DialTimeout): one of the two timeouts passed, which its [`blame`](Error::blame) tells: the
///   agent for the manager's, the caller for [`timeout`](Self::timeout);
/// - [`Shutdown`](ErrorKind::Shutdown): the manager was shut down;
/// - [`Internal`](ErrorKind::Internal): the start of the key's agent panicked or took too long;
/// - and what the agent answers: [`TargetUnknown`](ErrorKind::TargetUnknown), [`TargetDenied`](ErrorKind::TargetDenied),
///   [`TargetRefused`](ErrorKind::TargetRefused), [`TargetTimeout`](ErrorKind::TargetTimeout),
///   [`Overloaded`](ErrorKind::Overloaded).
///
/// Polled again after its end it gives [`InvalidInput`](ErrorKind::InvalidInput).
///
/// # Cancel safety
/// Dropping it gives up its place in the queue, or the open: the agent is told by a reset, and no byte is lost.
#[must_use = "futures do nothing unless polled"]
pub struct Dial(Dialing<Tunnel>);

impl Dial {
    pub(super) fn new(inner: &Arc<Inner<Tunnel>>, key: &AgentKey, target: &TargetName) -> Self {
        Self(Dialing::new(inner, key, target))
    }

    /// Whether the stream is given before the agent has accepted it, so that first bytes leave with the open. A
    /// refusal is then an error of the stream. Default false.
    pub fn early_data(mut self, yes: bool) -> Self {
        self.0.early_data = yes;
        self
    }

    /// Whether an end of the stream that may be a loss, as every end of a dial-back stream may, is an error of kind
    /// [`SessionLost`](ErrorKind::SessionLost). For protocols that tell the end by themselves, as HTTP with a length or
    /// in chunks does, it changes nothing. Default the manager's, which is false.
    pub fn strict_eof(mut self, yes: bool) -> Self {
        self.0.strict_eof = yes;
        self
    }

    /// How long this dial waits for a tunnel at the most, from its first poll, whatever the policy would give. Zero:
    /// not at all, and nothing is started for it either; who is not connected then is told at once:
    /// [`NoConnection`](ErrorKind::NoConnection) if absent, [`ReconnectTimeout`](ErrorKind::ReconnectTimeout) if in
    /// grace. Default: as long as the policy gives.
    ///
    /// The dial timeout counts besides, for the agent's answer.
    ///
    /// ```
    /// use std::time::Duration;
    /// use revdial::{ErrorKind, connman::{Absent, ConnectionManager}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hour = Duration::from_secs(3600);
    /// let connman = ConnectionManager::builder().absent(move |_: &_| Absent::Wait(hour)).build();
    ///
    /// // A health check has no hour.
    /// let dial = connman.dial(&"desktop-7".parse()?, &"".parse()?).max_wait(Duration::ZERO);
    /// assert_eq!(dial.await.unwrap_err().kind(), ErrorKind::NoConnection);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_wait(mut self, most: Duration) -> Self {
        self.0.seeking.max_wait = Some(most);
        self
    }

    /// A deadline of the caller's, from the first poll, over waiting and opening together. Default none.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.timeout = Some(timeout);
        self
    }
}

impl Future for Dial {
    type Output = Result<TunnelStream, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial").field("key", &self.0.seeking.key).field("target", &self.0.target).finish_non_exhaustive()
    }
}

/// A dial through whatever is held for a tunnel.
pub(super) struct Dialing<T: Handle> {
    inner: Arc<Inner<T>>,
    pub(super) seeking: Seeking<T>,
    target: TargetName,
    early_data: bool,
    strict_eof: bool,
    pub(super) timeout: Option<Duration>,
    /// Since the first poll.
    started: Option<Instant>,
    /// The end of `timeout`.
    deadline: Option<Deadline>,
    /// The end of all tries, however often the agent comes and goes, and what is answered there.
    limit: Option<(Deadline, ErrorKind)>,
    /// Tunnels of sessions with lower serials were met dead, or taking nothing more.
    not_before: Epoch,
    /// The session of the last open was lost with its grace.
    expired: bool,
    step: Step<T>,
}

enum Step<T: Handle> {
    Seek,
    Open { opening: T::Opening, tunnel: T, serial: Epoch, deadline: Deadline },
    Done,
}

impl<T: Handle> Dialing<T> {
    pub(super) fn new(inner: &Arc<Inner<T>>, key: &AgentKey, target: &TargetName) -> Self {
        Self {
            inner: Arc::clone(inner),
            seeking: Seeking::new(inner, key),
            target: target.clone(),
            early_data: false,
            strict_eof: inner.settings.strict_eof,
            timeout: None,
            started: None,
            deadline: None,
            limit: None,
            not_before: Epoch::new(0),
            expired: false,
            step: Step::Seek,
        }
    }

    fn start(&mut self, now: Instant) -> Instant {
        *self.started.get_or_insert_with(|| {
            self.deadline = self.timeout.map(|timeout| Deadline::after(now, timeout));
            now
        })
    }

    /// The caller's deadline and the limit, looked at after all else: what is ready at the same instant still counts.
    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        if let Some(deadline) = &mut self.deadline
            && deadline.poll(cx).is_ready()
        {
            return Poll::Ready(Error::new(ErrorKind::DialTimeout).blamed_on(Blame::Caller));
        }
        match &mut self.limit {
            Some((limit, kind)) => limit.poll(cx).map(|()| (*kind).into()),
            None => Poll::Pending,
        }
    }

    /// All has to be over the dial timeout after the end of the first wait; before there was one, after that of the
    /// longest grace; and in any case after the end of all waiting.
    fn limit(&mut self, now: Instant, grace: Option<Instant>) {
        let (end, kind) = match (&self.limit, grace) {
            (None | Some((_, ErrorKind::DialTimeout)), Some(end)) => (Some(end), ErrorKind::ReconnectTimeout),
            (None, None) => (now.checked_add(self.inner.max_hold()), ErrorKind::DialTimeout),
            _ => return,
        };
        let end = end.into_iter().chain(self.seeking.last()).min();
        if let Some(limit) = end.and_then(|end| end.checked_add(self.inner.dial_timeout())) {
            self.limit = Some((Deadline::new(limit), kind));
        }
    }

    fn poll_steps(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Result<T::Stream, Error>> {
        loop {
            match &mut self.step {
                Step::Seek => match self.seeking.poll(cx, now, self.not_before) {
                    Poll::Pending => {
                        self.expired = false; // it waits for more than that session
                        if let Some(end) = self.seeking.end() {
                            self.limit(now, Some(end));
                        }
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok((serial, tunnel))) => {
                        self.limit(now, None);
                        self.open(now, serial, tunnel);
                    }
                    // It has waited with its open, for an agent that did not return.
                    Poll::Ready(Err(Refusal::NoConnection | Refusal::Gone(_))) if self.expired => {
                        return Poll::Ready(Err(refused(Refusal::ReconnectTimeout)));
                    }
                    Poll::Ready(Err(refusal)) => return Poll::Ready(Err(refused(refusal))),
                },
                Step::Open { opening, tunnel, serial, deadline } => match Pin::new(opening).poll(cx) {
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(error)) if is_of_the_session(&error) && tunnel.is_draining() => {
                        self.expired = matches!(tunnel.ended(), Some(SessionEnd::Lost));
                        self.not_before = Epoch::new(serial.number().saturating_add(1));
                        self.step = Step::Seek;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        ready!(deadline.poll(cx));
                        // While there is no link nobody can answer, and on each the agent has its whole time.
                        let (timeout, up_since) = (self.inner.dial_timeout(), tunnel.up_since());
                        if let (None, Some((_, kind))) = (up_since, &mut self.limit) {
                            *kind = ErrorKind::ReconnectTimeout;
                        }
                        let now = Instant::now();
                        let from = up_since.map_or(now, Instant::from_std);
                        match from.checked_add(timeout).filter(|until| *until > now) {
                            Some(until) => *deadline = Deadline::new(until),
                            None => return Poll::Ready(Err(ErrorKind::DialTimeout.into())),
                        }
                    }
                },
                Step::Done => return Poll::Ready(Err(ErrorKind::InvalidInput.into())),
            }
        }
    }

    fn open(&mut self, now: Instant, serial: Epoch, tunnel: T) {
        let timeout = self.inner.dial_timeout();
        let ends = self.deadline.iter().chain(self.limit.iter().map(|(limit, _)| limit));
        let left = ends.map(|end| end.left(now)).min();
        let give_up = left.map_or(timeout, |left| left.min(timeout));
        let metadata = Metadata {
            deadline_ms: Some(u32::try_from(give_up.as_millis()).unwrap_or(u32::MAX)),
            ..Metadata::default()
        };
        let opening = tunnel.open(self.target.clone(), metadata, self.early_data);
        self.step = Step::Open { opening, tunnel, serial, deadline: Deadline::after(now, timeout) };
    }
}

impl<T: Handle> Future for Dialing<T> {
    type Output = Result<T::Stream, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if matches!(self.step, Step::Done) {
            return Poll::Ready(Err(ErrorKind::InvalidInput.into()));
        }
        let now = Instant::now();
        let started = self.start(now);
        let result = match self.poll_steps(cx, now) {
            Poll::Ready(result) => result.map(|stream| T::with_eof(stream, self.strict_eof)),
            Poll::Pending => Err(ready!(self.poll_deadlines(cx))),
        };
        // Gives back the ticket, or gives up the open, now and not when the caller drops the future.
        self.step = Step::Done;
        self.seeking.give_up();
        metrics::record_dial(if result.is_ok() { "ok" } else { "error" }, started.elapsed());
        if let Err(error) = &result {
            metrics::record_dial_failure(error.kind());
        }
        Poll::Ready(result)
    }
}

impl<T: Handle> Drop for Dialing<T> {
    fn drop(&mut self) {
        if let (Some(started), false) = (self.started, matches!(self.step, Step::Done)) {
            metrics::record_dial("cancelled", started.elapsed());
        }
    }
}

/// Whether an error tells of the end of a session, and not of a target or a stream.
fn is_of_the_session(error: &Error) -> bool {
    use ErrorKind as K;
    matches!(error.kind(), K::SessionLost | K::Replaced | K::Protocol | K::Shutdown | K::Internal)
}

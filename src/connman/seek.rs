//! How a call comes to a tunnel: the key has one, or it is waited for, or it is refused.

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
        gone::Gone,
        handle::Handle,
        registry::Refusal,
        state::{Asked, Inner, Waiting},
        wake::NotWoken,
    },
    error::{Error, ErrorKind},
    key::{AgentKey, Epoch},
    tunnel::Tunnel,
};

/// Waits until a key is connected, made by [`ConnectionManager::wait_for`](crate::connman::ConnectionManager::wait_for).
/// `Unpin + Send`.
///
/// It waits as a [`Dial`](crate::connman::Dial) does, in one queue with them, but opens nothing. Nothing happens before
/// the first poll, and then it must be polled within a tokio runtime that has its timer on.
///
/// # Errors
/// Those of a dial that gets no tunnel: [`NoConnection`](ErrorKind::NoConnection),
/// [`ReconnectTimeout`](ErrorKind::ReconnectTimeout), [`TooManyPendingDials`](ErrorKind::TooManyPendingDials),
/// [`Shutdown`](ErrorKind::Shutdown), and [`Internal`](ErrorKind::Internal) of a start that failed. Polled again after
/// its end it looks anew.
///
/// # Cancel safety
/// Dropping it gives up its place in the queue.
#[must_use = "futures do nothing unless polled"]
pub struct WaitFor(Seeking<Tunnel>);

impl WaitFor {
    pub(super) fn new(inner: &Arc<Inner<Tunnel>>, key: &AgentKey) -> Self {
        Self(Seeking::new(inner, key))
    }

    /// How long it waits at the most, as of a [dial](crate::connman::Dial::max_wait). Default: as long as the policy
    /// says.
    pub fn max_wait(mut self, most: Duration) -> Self {
        self.0.max_wait = Some(most);
        self
    }
}

impl Future for WaitFor {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let found = ready!(self.0.poll(cx, Instant::now(), Epoch::new(0)));
        Poll::Ready(found.map(drop).map_err(refused))
    }
}

impl fmt::Debug for WaitFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitFor").field("key", &self.0.key).finish_non_exhaustive()
    }
}

/// A call that wants a tunnel.
pub(super) struct Seeking<T: Handle> {
    inner: Arc<Inner<T>>,
    pub(super) key: AgentKey,
    pub(super) max_wait: Option<Duration>,
    /// Since the first poll.
    started: Option<Instant>,
    waiting: Option<Waiting<T>>,
}

impl<T: Handle> Seeking<T> {
    pub(super) fn new(inner: &Arc<Inner<T>>, key: &AgentKey) -> Self {
        Self { inner: Arc::clone(inner), key: key.clone(), max_wait: None, started: None, waiting: None }
    }

    /// A tunnel and the serial of its session, which is not lower than `not_before`: sessions before were met dead.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        not_before: Epoch,
    ) -> Poll<Result<(Epoch, T), Refusal>> {
        self.started.get_or_insert(now);
        loop {
            let Some(waiting) = &mut self.waiting else {
                match self.inner.ask(&self.key, not_before, self.wait_left()) {
                    Asked::Ready(serial, tunnel) => return Poll::Ready(Ok((serial, tunnel))),
                    Asked::Refused(refusal) => return Poll::Ready(Err(refusal)),
                    Asked::Wait(waiting) => self.waiting = Some(waiting),
                }
                continue;
            };
            let answer = ready!(Pin::new(&mut waiting.answer).poll(cx));
            let boot = waiting.boot;
            self.waiting = None;
            match answer {
                // The key is absent as any other from here on.
                Ok(Err(Refusal::NoConnection | Refusal::Gone(_))) if boot => {}
                Ok(answer) => return Poll::Ready(answer),
                // A sender goes without an answer only with the registry that holds it, which this call holds.
                Err(_) => return Poll::Ready(Err(Refusal::Fault)),
            }
        }
    }

    /// Waits no more, and gives its place back.
    pub(super) fn give_up(&mut self) {
        self.waiting = None;
    }

    /// When the wait that it is in is over, as far as that can be said; `None`: it is in none, or asks anew at its end.
    pub(super) fn end(&self) -> Option<Instant> {
        self.waiting.as_ref().filter(|waiting| !waiting.boot).map(|waiting| waiting.end.into())
    }

    /// The end of all waiting, if the caller has set one.
    pub(super) fn last(&self) -> Option<Instant> {
        self.started?.checked_add(self.max_wait?)
    }

    /// One that is too far away to be told is none.
    fn wait_left(&self) -> Option<Duration> {
        self.last().map(|last| last.saturating_duration_since(Instant::now()))
    }
}

/// The pure registry cannot name the public error.
pub(super) fn refused(refusal: Refusal) -> Error {
    let gone = |departure| Gone::of(departure, Instant::now().into_std());
    let error = match refusal {
        Refusal::NoConnection => {
            Error::with_source(ErrorKind::NoConnection, "never connected, as far as is remembered")
        }
        Refusal::Gone(departure) => Error::with_source(ErrorKind::NoConnection, gone(departure)),
        Refusal::ReconnectTimeout => ErrorKind::ReconnectTimeout.into(),
        Refusal::TooManyPending => ErrorKind::TooManyPendingDials.into(),
        Refusal::Unreported => ErrorKind::DialTimeout.into(),
        Refusal::NotWoken(text, departure) => {
            Error::with_source(ErrorKind::NoConnection, NotWoken::new(text, departure.map(gone)))
        }
        Refusal::Fault => Error::with_source(ErrorKind::Internal, "the start of the agent panicked or took too long"),
        Refusal::ShuttingDown => ErrorKind::Shutdown.into(),
    };
    error.unsent()
}

//! A dial that waits for its pick-up, and the pick-up that has come for it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::sync::oneshot;

use super::{Answer, DialbackTunnel, Shared};
use crate::{
    dialback::{
        pending::{Gone, Id},
        stream::{DialbackStream, Half},
        tie::{Arriving, NotArrived, Tie},
    },
    error::{Error, ErrorKind},
    key::TargetName,
    link::ByteLink,
};

/// A dial that waits for its pick-up.
///
/// # Cancel safety
/// Dropping it gives the dial up: a pick-up that comes for it is refused, a connection that is about to come ends.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Opening {
    shared: Arc<Shared>,
    request: Option<Id>,
    /// `Err`: failed at once, and told when polled.
    answer: Result<oneshot::Receiver<Answer>, Option<Error>>,
    /// The stream, once its connection is on the way.
    tie: Option<Tie>,
}

/// A dial whose pick-up is about to arrive. Dropping it fails the dial.
#[derive(Debug)]
pub(crate) struct Claim(Arriving);

impl DialbackTunnel {
    /// Asks for a stream. Only the default target can be named in this protocol, which is: not at all.
    pub(crate) fn open(&self, target: &TargetName) -> Opening {
        let opening = |request, answer| Opening { shared: Arc::clone(&self.0), request, answer, tie: None };
        if !target.is_default() {
            return opening(None, Err(Some(Error::new(ErrorKind::TargetUnknown))));
        }
        let (sender, receiver) = oneshot::channel();
        let request = Id::new(rand::random());
        let asked = self.0.with(|state| {
            if let Some(end) = &state.ended {
                return Err(Error::from(end.clone()));
            }
            if state.draining {
                return Err(Error::new(ErrorKind::Shutdown));
            }
            if state.pending.insert(request, sender).is_err() {
                return Err(Error::new(ErrorKind::Overloaded));
            }
            state.unasked.push_back(request);
            Ok(())
        });
        match asked {
            Ok(()) => opening(Some(request), Ok(receiver)),
            Err(error) => opening(None, Err(Some(error.unsent()))),
        }
    }

    /// Takes the dial that asked for this pick-up, before the connection is there. It is a stream from here on: whatever
    /// ends those of the tunnel ends it, too, and whoever waits for the last one waits for it.
    pub(crate) fn claim(&self, request: Id) -> Result<Claim, Gone> {
        let (sender, tie, arriving) = {
            let mut state = self.0.lock();
            let sender = state.pending.claim(&request)?;
            // Under the lock, so that the end of the control link finds it either waiting or among the streams.
            let (tie, arriving) = self.0.ties.expect();
            (sender, tie, arriving)
        };
        // Comes back when the dial was given up just now; the connection then ends when it is there.
        let _ = sender.send(Ok(tie));
        Ok(Claim(arriving))
    }
}

impl Future for Opening {
    type Output = Result<DialbackStream, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let tie = match self.tie.take() {
            Some(tie) => tie,
            None => ready!(self.poll_answer(cx))?,
        };
        match tie.poll_arrived(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(DialbackStream::new(tie, Half::Deferred, self.shared.span.get()))),
            Poll::Ready(Err(NotArrived::Cut(kind))) => Poll::Ready(Err(Error::new(kind).unsent())),
            Poll::Ready(Err(NotArrived::BrokenOff)) => Poll::Ready(Err(broken_off())),
            Poll::Pending => {
                self.tie = Some(tie);
                Poll::Pending
            }
        }
    }
}

impl Opening {
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        let answer = match &mut self.answer {
            Ok(answer) => ready!(Pin::new(answer).poll(cx)),
            Err(error) => return Poll::Ready(Err(error.take().unwrap_or_else(|| ErrorKind::InvalidInput.into()))),
        };
        self.request = None;
        Poll::Ready(answer.unwrap_or_else(|_| Err(broken_off())))
    }
}

fn broken_off() -> Error {
    Error::with_source(ErrorKind::TargetRefused, "the agent's connection broke off before it was there")
}

impl Drop for Opening {
    fn drop(&mut self) {
        let Some(request) = self.request else { return };
        self.shared.with(|state| {
            state.pending.give_up(&request);
            state.unasked.retain(|unasked| *unasked != request);
        });
    }
}

impl Claim {
    /// Gives the dial its connection, unless it was given up or ended meanwhile.
    pub(crate) fn deliver(self, link: ByteLink) {
        self.0.arrive(link);
    }
}

//! A connect under way, as a type with a name.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use crate::{connman::Dial, error::Error, tunnel::TunnelStream};

/// The future of [`RevDialConnector`](crate::connector::RevDialConnector). `Unpin` and `Send`, as hyper's clients want it.
///
/// # Cancel safety
/// Dropping it gives the dial up: a waiting place is freed at once, an open that is under way is reset.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Connecting(State);

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every one is a dial: a box would only add an allocation to it")]
enum State {
    Dialing(Dial),
    /// The URI cannot be dialled. Empty when the error was taken.
    Failed(Option<Error>),
}

impl Connecting {
    pub(crate) fn dialing(dial: Dial) -> Self {
        Self(State::Dialing(dial))
    }

    pub(crate) fn failed(error: Error) -> Self {
        Self(State::Failed(Some(error)))
    }
}

impl Future for Connecting {
    type Output = Result<TunnelStream, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Dialing(dial) => Pin::new(dial).poll(cx),
            State::Failed(error) => Poll::Ready(Err(error.take().expect("not polled after it was ready"))),
        }
    }
}

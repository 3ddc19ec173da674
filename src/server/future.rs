//! The answer to a request: the inner service's, or ours.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project::pin_project;

/// What runs a link after its 101, as it is handed to the executor.
pub type LinkTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A judgement under way. Boxed, because what a user's [`Authorize`](crate::server::Authorize) returns has no name.
pub(crate) type Deciding = Pin<Box<dyn Future<Output = Response<()>> + Send>>;

/// The future of [`RevDialService`](crate::server::RevDialService). A request that is passed on costs nothing more
/// than the inner service's own future.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<F> {
    #[pin]
    state: State<F>,
}

#[pin_project(project = StateProjection)]
enum State<F> {
    /// Not ours.
    Passing(#[pin] F),
    /// Ours; somebody is asked.
    Deciding(Deciding),
    /// Ours, and refused without asking anybody. Empty when the answer was taken.
    Done(Option<Response<()>>),
}

impl<F> ResponseFuture<F> {
    pub(crate) fn passing(inner: F) -> Self {
        Self { state: State::Passing(inner) }
    }

    pub(crate) fn ours(admitted: Result<Deciding, Response<()>>) -> Self {
        let state = match admitted {
            Ok(deciding) => State::Deciding(deciding),
            Err(response) => State::Done(Some(response)),
        };
        Self { state }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match self.project().state.project() {
            StateProjection::Passing(inner) => return inner.poll(cx),
            StateProjection::Deciding(deciding) => ready!(deciding.as_mut().poll(cx)),
            StateProjection::Done(response) => response.take().expect("not polled after it was ready"),
        };
        Poll::Ready(Ok(response.map(|()| B::default())))
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Passing(_) => "ResponseFuture(passing)",
            State::Deciding(_) => "ResponseFuture(deciding)",
            State::Done(_) => "ResponseFuture(done)",
        })
    }
}

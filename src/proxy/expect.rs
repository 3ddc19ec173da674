//! The body of a request on its way out, held back while its sender waits for a 100.

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use http::{Request, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::error::{Error, ErrorKind};

/// How long a service may say nothing before the body is sent all the same: many never answer an expectation.
const PATIENCE: Duration = Duration::from_secs(1);

/// The body of a request on its way out.
///
/// hyper's server says 100 to its client when this body is first asked for data. So that it is the service's 100, and
/// none is said if the service answers at once, it waits for the service.
#[derive(Debug)]
pub(super) struct Outgoing<B> {
    /// None is empty.
    body: Option<B>,
    wait: Option<Wait>,
}

#[derive(Debug)]
struct Wait {
    shared: Arc<Shared>,
    patience: Pin<Box<Sleep>>,
}

/// The other end of a body that waits: the answer. Dropping it ends the wait in an error, since whatever the body was
/// to be sent for is over.
#[derive(Debug)]
pub(super) struct Answered(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    word: Word,
    waker: Option<Waker>,
}

/// What the service has said so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Word {
    #[default]
    Nothing,
    /// It takes the body.
    Continue,
    /// All is over.
    Over,
}

impl<B: Body> Outgoing<B> {
    /// A body of nothing.
    pub(super) const fn empty() -> Self {
        Self { body: None, wait: None }
    }

    /// The request with its body as it is, or held back if it expects a 100.
    pub(super) fn request(request: Request<B>) -> (Request<Self>, Option<Answered>) {
        if !expects_continue(&request) {
            return (request.map(|body| Self { body: Some(body), wait: None }), None);
        }
        let shared = Arc::new(Shared::default());
        let wait = Wait { shared: Arc::clone(&shared), patience: Box::pin(tokio::time::sleep(PATIENCE)) };
        let mut request = request.map(|body| Self { body: Some(body), wait: Some(wait) });
        let informed = Arc::clone(&shared);
        hyper::ext::on_informational(&mut request, move |response| {
            if response.status() == StatusCode::CONTINUE {
                informed.say(Word::Continue);
            }
        });
        (request, Some(Answered(shared)))
    }
}

fn expects_continue<B: Body>(request: &Request<B>) -> bool {
    let expect = request.headers().get(header::EXPECT);
    expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
        && !request.body().is_end_stream()
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.0.say(Word::Over);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a 100 nothing else counts.
    fn say(&self, word: Word) {
        let mut state = self.state();
        if state.word == Word::Continue {
            return;
        }
        state.word = word;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Wait {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut state = self.shared.state();
        match state.word {
            Word::Continue => return Poll::Ready(Ok(())),
            Word::Over => return Poll::Ready(Err(ErrorKind::Cancelled.into())),
            // In the section that looked, so that no word is missed.
            Word::Nothing => state.waker = Some(cx.waker().clone()),
        }
        drop(state);
        ready!(self.patience.as_mut().poll(cx));
        Poll::Ready(Ok(()))
    }
}

impl<B> Body for Outgoing<B>
where
    B: Body<Error: Into<Box<dyn StdError + Send + Sync>>> + Unpin,
{
    type Data = B::Data;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Some(wait) = &mut self.wait {
            match ready!(wait.poll(cx)) {
                Ok(()) => self.wait = None,
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

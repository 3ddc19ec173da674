//! The service: tunnels on one path, everything else to the inner service.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use tower::Service;

use super::{authorize::Authorize, future::ResponseFuture, gate::Gate, route::Route};

/// What [`RevDialLayer`](crate::server::RevDialLayer) makes of a service: requests on the tunnel's path open tunnels, all
/// others go to the inner service untouched.
///
/// Request bodies may be of any type, response bodies of any that has a `Default`, the empty one; map others before, as
/// by `.map_response(|response| response.map(BoxBody::new))`. Errors are the inner service's.
#[derive(Debug)]
pub struct RevDialService<S, A> {
    inner: S,
    gate: Arc<Gate<A>>,
}

impl<S, A> RevDialService<S, A> {
    pub(crate) fn new(inner: S, gate: Arc<Gate<A>>) -> Self {
        Self { inner, gate }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to be changed.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service, taken out.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

/// By hand, since `A` need not be `Clone`.
impl<S: Clone, A> Clone for RevDialService<S, A> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), gate: Arc::clone(&self.gate) }
    }
}

impl<S, A, ReqB, ResB> Service<Request<ReqB>> for RevDialService<S, A>
where
    S: Service<Request<ReqB>, Response = Response<ResB>>,
    ResB: Default,
    A: Authorize,
{
    type Response = Response<ResB>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        match Route::of(request.uri(), &self.gate.path) {
            None => ResponseFuture::passing(self.inner.call(request)),
            Some(route) => ResponseFuture::ours(self.gate.admit(request, route)),
        }
    }
}

/// Answers 404 with an empty body: the inner service where there is nothing but the tunnel's path.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct NotFound;

impl<B> Service<Request<B>> for NotFound {
    type Response = Response<NoBody>;
    type Error = Infallible;
    type Future = Ready<Result<Response<NoBody>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let mut response = Response::new(NoBody);
        *response.status_mut() = StatusCode::NOT_FOUND;
        ready(Ok(response))
    }
}

/// The body of answers that have none.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct NoBody;

impl Body for NoBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}

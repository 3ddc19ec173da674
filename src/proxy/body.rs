//! The body of an answer: what the service sends, or the name of an error.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{expect::Answered, status::error_of};
use crate::error::Error;

/// The body of a response of a [`Proxy`](crate::proxy::Proxy): streamed from the service, never buffered.
///
/// An error of it means that the response is not whole; hosts cut the connection then. Dropping it gives the rest up
/// and has the service told at once. The default is an empty body.
#[derive(Debug, Default)]
pub struct ProxyBody(Kind);

#[derive(Debug)]
enum Kind {
    /// Empty when it was taken.
    Text(Option<Bytes>),
    Remote {
        body: Incoming,
        /// Until the end, a request body that was not asked for is held back.
        _answered: Option<Answered>,
    },
}

impl Default for Kind {
    fn default() -> Self {
        Self::Text(None)
    }
}

impl ProxyBody {
    /// A short text.
    pub(super) fn text(text: &'static str) -> Self {
        Self(Kind::Text(Some(Bytes::from_static(text.as_bytes()))))
    }

    /// What the service sends.
    pub(super) fn remote(body: Incoming, answered: Option<Answered>) -> Self {
        Self(Kind::Remote { body, _answered: answered })
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.0 {
            Kind::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Kind::Remote { body, .. } => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(error_of)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Text(text) => text.is_none(),
            Kind::Remote { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Kind::Remote { body, .. } => body.size_hint(),
        }
    }
}

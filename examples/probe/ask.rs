//! HTTP over a connection that is there: a request, and its answer as a whole.

use std::time::Duration;

use http::{HeaderMap, Request, StatusCode, Version, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    task::AbortHandle,
    time::{Instant, timeout},
};

use crate::{
    fault::{Failure, Fault},
    way::BoxedIo,
    words::{shown, took},
};

/// The largest body that is taken: some screens' worth of pixels.
const MAX_BODY: usize = 64 * 1024 * 1024;

pub(crate) type Ask = Request<Empty<Bytes>>;

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// From the request to the end of the body.
    pub(crate) took: Duration,
}

impl Answer {
    /// A header, safe to show; empty if it is not there.
    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> String {
        self.headers.get(name).map_or_else(String::new, |value| shown(&String::from_utf8_lossy(value.as_bytes())))
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The server was not reached.
    Unreached(Failure),
    /// The connection is there, and nothing comes.
    TimedOut(Duration),
    /// The connection broke, or what came is no HTTP.
    Broken(String),
}

impl From<Failure> for NoAnswer {
    fn from(failure: Failure) -> Self {
        Self::Unreached(failure)
    }
}

impl NoAnswer {
    /// As a failure of whoever should have answered.
    pub(crate) fn blamed(self, fault: Fault, cause: &str, next: &str) -> Failure {
        let what = match self {
            Self::Unreached(failure) => return failure,
            Self::TimedOut(patience) => format!("time-out: no answer within {}", took(patience)),
            Self::Broken(why) => format!("no answer: {why}"),
        };
        Failure::new(fault, what, cause, next)
    }
}

/// A connection that takes one request after another. Dropped, it is closed.
#[derive(Debug)]
pub(crate) struct Conversation {
    sender: http1::SendRequest<Empty<Bytes>>,
    connection: AbortHandle,
    patience: Duration,
}

impl Conversation {
    pub(crate) async fn over(io: BoxedIo, patience: Duration) -> Result<Self, NoAnswer> {
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(|error| broken(&error))?;
        Ok(Self { sender, connection: tokio::spawn(connection).abort_handle(), patience })
    }

    pub(crate) async fn ask(&mut self, request: Ask) -> Result<Answer, NoAnswer> {
        let asked = Instant::now();
        let exchange = async {
            self.sender.ready().await.map_err(|error| broken(&error))?;
            let response = self.sender.send_request(request).await.map_err(|error| broken(&error))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await;
            let body = body.map_err(|error| NoAnswer::Broken(shown(&error.to_string())))?.to_bytes();
            Ok((parts, body))
        };
        let exchanged = timeout(self.patience, exchange).await;
        let (parts, body) = exchanged.unwrap_or(Err(NoAnswer::TimedOut(self.patience)))?;
        let http::response::Parts { status, version, headers, .. } = parts;
        Ok(Answer { status, version, headers, body, took: asked.elapsed() })
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// hyper's own words say which half of HTTP it was, and the cause below them what happened.
fn broken(error: &hyper::Error) -> NoAnswer {
    let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
    NoAnswer::Broken(shown(&format!("{error}{cause}")))
}

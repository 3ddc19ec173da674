//! A WebSocket to somewhere behind the gateway, opened as a caller.

use http::{HeaderValue, header};
use hyper::body::Bytes;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, handshake::client::generate_key},
};

use crate::{
    ask::{Answer, NoAnswer},
    fault::{Failure, Fault},
    gateway::Gateway,
    way::BoxedIo,
    words::shown,
};

/// Why it is not open.
pub(crate) enum Unopened {
    /// Something else than 101 was answered.
    Refused(Box<Answer>),
    NoAnswer(NoAnswer),
}

impl From<Failure> for Unopened {
    fn from(failure: Failure) -> Self {
        Self::NoAnswer(failure.into())
    }
}

pub(crate) async fn open(gateway: &Gateway, path: &str) -> Result<WebSocketStream<BoxedIo>, Unopened> {
    let mut request = gateway.call(path)?.map(drop);
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(header::SEC_WEBSOCKET_KEY, key()?);
    *request.uri_mut() = gateway.way.server.websocket(path).map_err(|error| fault(&error))?;
    let io = gateway.way.open().await?;
    let asked = Instant::now();
    match timeout(gateway.way.patience, client_async(request, io)).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(Error::Http(response))) => {
            let (parts, body) = response.into_parts();
            let http::response::Parts { status, version, headers, .. } = parts;
            let body = Bytes::from(body.unwrap_or_default());
            Err(Unopened::Refused(Box::new(Answer { status, version, headers, body, took: asked.elapsed() })))
        }
        Ok(Err(error)) => Err(Unopened::NoAnswer(NoAnswer::Broken(shown(&error.to_string())))),
        Err(_) => Err(Unopened::NoAnswer(NoAnswer::TimedOut(gateway.way.patience))),
    }
}

/// A value for `Sec-WebSocket-Key`.
pub(crate) fn key() -> Result<HeaderValue, Failure> {
    HeaderValue::try_from(generate_key()).map_err(|error| fault(&error))
}

fn fault(error: &dyn std::error::Error) -> Failure {
    Failure::new(Fault::Probe, error.to_string(), "a fault of the probe's", "report it")
}

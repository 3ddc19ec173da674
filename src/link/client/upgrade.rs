//! Asks by `GET` with `Upgrade`, over HTTP/1.1.

use std::pin::pin;

use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri,
    header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT},
    uri::PathAndQuery,
};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;

use super::{AGENT, Answer, BadGrant, BadUri, BoxError, offer_protocol, refused};
use crate::link::{
    challenge::Challenge,
    messages::{MessageLink, Side},
};

/// Asks, and makes a link of what is granted, with the longest message that `judge` finds right.
pub(super) async fn open<I, T>(
    io: I,
    uri: &Uri,
    headers: HeaderMap,
    offer: bool,
    judge: impl FnOnce(&HeaderMap) -> Result<(usize, T), BoxError>,
) -> Result<Answer<T>, BoxError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let key = Challenge::new();
    let request = request(uri, headers, &key, offer)?;
    let (mut sender, connection) = http1::handshake::<I, String>(io).await?;
    let mut exchange = pin!(async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Err(refused(response).await));
        }
        key.check(response.headers()).map_err(BadGrant)?;
        let (max_message, judged) = judge(response.headers())?;
        Ok(Ok((take_over::<I>(response, max_message).await?, judged)))
    });
    tokio::select! {
        outcome = &mut exchange => outcome,
        // Ended by the upgrade, or failed: the exchange is told in both cases, and knows better what it means.
        _ = connection.with_upgrades() => exchange.await,
    }
}

/// The headers stand in the order of the deployed agents'.
fn request(uri: &Uri, more: HeaderMap, key: &Challenge, offer: bool) -> Result<Request<String>, BoxError> {
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut request = Request::new(String::new());
    *request.uri_mut() = Uri::from(path);
    let headers = request.headers_mut();
    headers.insert(HOST, host(uri)?);
    headers.insert(USER_AGENT, AGENT);
    headers.extend(more);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_KEY, key.value()?);
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    offer_protocol(headers, offer);
    Ok(request)
}

/// Host and port as `Host` has them: no user, and no port that the scheme implies.
pub(super) fn host(uri: &Uri) -> Result<HeaderValue, BoxError> {
    let host = uri.host().ok_or(BadUri)?;
    let implied = match uri.scheme_str() {
        Some("http" | "ws") => Some(80),
        Some("https" | "wss") => Some(443),
        _ => None,
    };
    Ok(match uri.port_u16().filter(|port| Some(*port) != implied) {
        Some(port) => HeaderValue::try_from(format!("{host}:{port}"))?,
        None => HeaderValue::from_str(host)?,
    })
}

async fn take_over<I>(response: Response<Incoming>, max_message: usize) -> Result<MessageLink, BoxError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let upgraded = hyper::upgrade::on(response).await?;
    Ok(match upgraded.downcast::<I>() {
        Ok(parts) => MessageLink::with_early(TokioIo::new(parts.io), &parts.read_buf, Side::Client, max_message),
        Err(upgraded) => MessageLink::with_early(TokioIo::new(upgraded), &[], Side::Client, max_message),
    })
}

//! Sandboxes below paths of the gateway: `/proxy/{key}/…`, `/proxy/{target}~{key}/…`, and the screenshot and the stream
//! of a session's desktop.
//!
//! It needs no DNS and no certificate of its own. But all sandboxes then share one origin with one another and with the
//! gateway: a page of one could read the others and the status page, cookies of one go to all, and links that begin
//! with `/` miss. So browsers are told to give such pages [no origin](without_an_origin): fit for programs, pictures and
//! single pages. For whole web apps there is the [`domain`](super::domain).

use axum::{
    extract::{Path, Request, State},
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use revdial::{AgentKey, TargetName};

use super::App;

/// `/proxy/{key}/{path}` and `/proxy/{target}~{key}/{path}`.
pub(crate) async fn by_path(State(app): State<App>, request: Request) -> Response {
    // The path as it came: an extractor would decode it, and a sandbox shall see what the caller sent.
    let path = request.uri().path().strip_prefix("/proxy/").unwrap_or_default();
    let (name, path) = path.split_at(path.find('/').unwrap_or(path.len()));
    let (target, key) = name.split_once('~').unwrap_or(("", name));
    let (target, key, path) = (target.to_owned(), key.to_owned(), if path.is_empty() { "/" } else { path }.to_owned());
    forward(&app, &key, &target, &path, request).await
}

pub(crate) async fn screenshot(State(app): State<App>, Path(session): Path<String>, request: Request) -> Response {
    forward(&app, &format!("desktop-{session}"), "", "/screenshot", request).await
}

pub(crate) async fn stream(State(app): State<App>, Path(session): Path<String>, request: Request) -> Response {
    forward(&app, &format!("desktop-{session}"), "", "/ws/stream", request).await
}

/// Sends the request to another path; its query stays, and its authority, which the proxy holds against `Host`.
async fn forward(app: &App, key: &str, target: &str, path: &str, mut request: Request) -> Response {
    let mut uri = request.uri().clone().into_parts();
    let path = request.uri().query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let (Ok(key), Ok(target), Ok(path)) = (key.parse::<AgentKey>(), target.parse::<TargetName>(), path.parse()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    uri.path_and_query = Some(path);
    match Uri::from_parts(uri) {
        Ok(uri) => *request.uri_mut() = uri,
        Err(_) => return StatusCode::BAD_REQUEST.into_response(),
    }
    app.proxy.forward(&key, &target, request).await.into_response()
}

/// A sandbox's page may run its scripts, but as nobody: what it asks of the gateway comes with `Origin: null`, and
/// without a cookie. In addition to what the sandbox says itself.
pub(crate) async fn without_an_origin(mut response: Response) -> Response {
    let sandbox = HeaderValue::from_static("sandbox allow-scripts");
    response.headers_mut().append(header::CONTENT_SECURITY_POLICY, sandbox);
    response
}

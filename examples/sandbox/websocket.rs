//! A WebSocket in an axum handler, on the tungstenite that the crate has in its tree already.

use axum::{
    body::Body,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::server::create_response_with_body, protocol::Role},
};

/// Answers 101 and runs `serve` with the WebSocket in a task of its own; 400 if the request asks for none.
pub(crate) fn upgrade<F, S>(mut request: Request, serve: S) -> Response
where
    S: FnOnce(WebSocketStream<TokioIo<Upgraded>>) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let upgrade = hyper::upgrade::on(&mut request);
    let Ok(response) = create_response_with_body(&request, Body::empty) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    tokio::spawn(async move {
        match upgrade.await {
            Ok(io) => serve(WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Server, None).await).await,
            Err(error) => tracing::warn!(%error, "the upgrade failed"),
        }
    });
    response
}

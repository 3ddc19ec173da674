//! From where a request comes: the peer of its connection or, behind a proxy that is trusted, the proxy's peer.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, request::Parts},
    middleware::Next,
    response::Response,
};

use super::App;

/// As it was told by axum, or by [`behind_the_proxy`].
pub(crate) fn of(parts: &Parts) -> Option<SocketAddr> {
    parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0)
}

/// Has what comes from the trusted proxy come from that one's peer. The port is not told: it is 0.
pub(crate) async fn behind_the_proxy(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    if app.trusted_proxy.is_some_and(|proxy| proxy.to_canonical() == peer.ip().to_canonical())
        && let Some(ip) = last_forwarded_for(request.headers())
    {
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(ip, 0)));
    }
    next.run(request).await
}

/// What the proxy itself has written: callers write what comes before.
fn last_forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("x-forwarded-for").iter().next_back()?;
    last.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
}

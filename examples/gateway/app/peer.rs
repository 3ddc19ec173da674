//! From where a request comes: the peer of its connection or, behind a proxy that is trusted, the proxy's peer.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Once,
};

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
    static UNREADABLE: Once = Once::new();
    let last = headers.get_all("x-forwarded-for").iter().next_back()?;
    let ip = last.to_str().ok().and_then(|all| address(all.rsplit(',').next()?));
    if ip.is_none() {
        UNREADABLE.call_once(|| {
            tracing::warn!("the trusted proxy's X-Forwarded-For ends in no address: all who come through it are one");
        });
    }
    ip
}

/// An address as proxies write it: some with a port, those of IPv6 also in brackets, and these in quotes.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().or_else(|_| text.parse().map(|with_port: SocketAddr| with_port.ip())).ok()
}

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

/// The connection that a request came by, whose other end may be a proxy's.
#[derive(Debug, Clone, Copy)]
struct Hop {
    peer: IpAddr,
    is_trusted: bool,
    /// Who asks, if that is known: behind a proxy only the trusted one tells.
    asks: Option<SocketAddr>,
}

/// Who asks, for the tunnels' layer: nobody is shut out for what others do who come through the same proxy.
pub(crate) fn of(parts: &Parts) -> Option<SocketAddr> {
    parts.extensions.get::<Hop>()?.asks
}

/// The other end of the connection, for X-Forwarded-For.
pub(crate) fn of_connection(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<Hop>().map(|hop| hop.peer)
}

/// Whether it is the trusted proxy, which has said more of who asks, and how.
pub(crate) fn is_trusted(parts: &Parts) -> bool {
    parts.extensions.get::<Hop>().is_some_and(|hop| hop.is_trusted)
}

/// Has what comes from the trusted proxy come from that one's peer. The port is not told: it is 0.
pub(crate) async fn behind_the_proxy(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let is_trusted = app.trusted_proxy.is_some_and(|proxy| proxy.to_canonical() == peer.ip().to_canonical());
    let asks = if is_trusted {
        last_forwarded_for(request.headers()).map(|ip| SocketAddr::new(ip, 0))
    } else {
        // Where none is trusted one nearby may be a proxy; elsewhere whoever writes such headers is none of ours.
        let may_be_a_proxy = app.trusted_proxy.is_none() && is_near(peer.ip()) && is_proxied(request.headers());
        (!may_be_a_proxy).then_some(peer)
    };
    if let Some(asks) = asks {
        request.extensions_mut().insert(ConnectInfo(asks));
    }
    request.extensions_mut().insert(Hop { peer: peer.ip(), is_trusted, asks });
    next.run(request).await
}

/// Whether a proxy says that it asks for somebody else.
pub(crate) fn is_proxied(headers: &HeaderMap) -> bool {
    ["x-forwarded-for", "x-real-ip", "forwarded", "via"].iter().any(|name| headers.contains_key(*name))
}

/// Whether it is no address of the internet.
fn is_near(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
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

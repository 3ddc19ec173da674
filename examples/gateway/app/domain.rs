//! Sandboxes at host names of their own: `KEY.tunnels.example`, `TARGET__KEY.tunnels.example`.
//!
//! Each has an origin of its own, so that browsers keep their pages, cookies and storage apart from one another and from
//! the gateway's, and links that begin with `/` work; [`cookies`] stay with their host. It takes a wildcard in DNS and,
//! for https, in a certificate: best for a domain that is used for nothing else.
//!
//! Between a target and its key stand two underscores. A host name has no `~`, dots and `--` may be parts of keys, but
//! no target has an underscore: what stands before the first `__` is the target. A key that has `__` in it itself is
//! reached as `__KEY`. Dots in keys do work, but a wildcard certificate covers one label only; and a label ends at 63
//! bytes. Keys that do not fit remain reachable by their [path](super::paths).

use std::{net::SocketAddr, str::FromStr, sync::Arc};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use revdial::{InvalidName, proxy::Destination};

use super::{App, cookies, page};

/// The domain below which each sandbox has a host name, with a dot in front.
#[derive(Debug, Clone)]
pub(crate) struct Domain(Arc<str>);

impl Domain {
    /// What a host name has in front of the domain; `None` if it is not below it.
    pub(crate) fn name<'a>(&self, host: &'a str) -> Option<&'a str> {
        let (name, domain) = host.split_at_checked(host.len().checked_sub(self.0.len())?)?;
        domain.eq_ignore_ascii_case(&self.0).then_some(name)
    }

    /// Whether a host name is the domain itself or below it.
    pub(crate) fn covers(&self, host: &str) -> bool {
        host.eq_ignore_ascii_case(&self.0[1..]) || self.name(host).is_some()
    }
}

impl FromStr for Domain {
    type Err = &'static str;

    fn from_str(domain: &str) -> Result<Self, Self::Err> {
        let is_label = |label: &str| {
            let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            !label.is_empty() && label.bytes().all(is_inner) && !label.starts_with('-') && !label.ends_with('-')
        };
        if !domain.split('.').all(is_label) {
            return Err("no domain name, such as tunnels.example");
        }
        Ok(Self(format!(".{}", domain.to_ascii_lowercase()).into()))
    }
}

/// Whom a request's host name means: `KEY` or `TARGET__KEY` in front of the domain.
fn destination(name: &str) -> Result<Destination, InvalidName> {
    let (target, key) = name.split_once("__").unwrap_or(("", name));
    Ok(Destination::new(key.parse()?, target.parse()?))
}

/// Sends what is for a sandbox's host name to the sandbox, whatever its path, and leaves the rest to the gateway.
pub(crate) async fn by_host(
    State(app): State<App>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let host = host(&request).map(without_port);
    let Some(name) = app.domain.as_ref().zip(host).and_then(|(domain, host)| domain.name(host)) else {
        return next.run(request).await;
    };
    // Where a caller logs in, at each host name for itself.
    if request.uri().path().starts_with(page::PREFIX) {
        return next.run(request).await;
    }
    let named = destination(name);
    if let Err(refused) = app.callers.admit(caller, &mut request) {
        return refused.into_response();
    }
    match named {
        Ok(Destination { key, target, .. }) => {
            let mut response = app.proxy.forward(&key, &target, request).await.into_response();
            cookies::confine(response.headers_mut());
            response
        }
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// What the caller calls the host, with its port: one name, or none.
pub(crate) fn host(request: &Request) -> Option<&str> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.as_str());
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return None };
    host.to_str().ok()
}

/// A host without its port, and without the dot that ends a full name.
pub(crate) fn without_port(host: &str) -> &str {
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => host,
    };
    host.strip_suffix('.').unwrap_or(host)
}

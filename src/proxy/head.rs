//! What becomes of the head of a request and of a response on the way. No IO, no clock.

use std::net::IpAddr;

use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header,
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper::{ext::Protocol, upgrade::OnUpgrade};

use super::{
    builder::{HostPolicy, Settings},
    status::Refused,
};
use crate::{
    callback::guarded,
    error::{Error, ErrorKind},
    key::{AgentKey, TargetName},
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Hop-by-hop by themselves, beside `Proxy-*`.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// Whether a body of unknown length follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// None, or of the length that is in the headers or in the body itself.
    Known,
    /// Chunked.
    Unknown,
}

/// Makes the head of a request that came the head of the one that goes out, but for its authority.
pub(super) fn request(
    parts: &mut Parts,
    settings: &Settings,
    (key, target): (&AgentKey, &TargetName),
    is_upgrade: bool,
    length: Length,
) -> Result<(), Error> {
    Refused::connect(&parts.method, parts.extensions.get::<Protocol>().is_some())?;
    let host = host(parts)?;
    if tokens(&parts.headers, &header::UPGRADE).any(|token| token.eq_ignore_ascii_case(b"h2c")) {
        return Err(Refused::H2c.into());
    }
    let (peer, trusted) = asked(settings, parts)?;
    let upgrade = if is_upgrade { take_upgrade(&mut parts.headers) } else { Vec::new() };
    let trailers = tokens(&parts.headers, &header::TE).any(|token| token.eq_ignore_ascii_case(b"trailers"));

    strip(&mut parts.headers);
    restore_upgrade(&mut parts.headers, upgrade);
    if trailers {
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        parts.headers.append(header::CONNECTION, HeaderValue::from_static("te"));
    }
    // Unless told, hyper's client takes it that a GET has no body.
    let is_unusual = parts.method == Method::GET || parts.method == Method::HEAD;
    if is_unusual && length == Length::Unknown && !parts.headers.contains_key(header::CONTENT_LENGTH) {
        parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if parts.version == Version::HTTP_2 {
        join_cookies(&mut parts.headers)?;
    }
    forwarded(&mut parts.headers, host.as_ref(), peer, trusted, settings.https);
    let host = match (&settings.host, host) {
        (HostPolicy::Preserve, Some(host)) => host,
        (HostPolicy::Fixed(host), _) => host.clone(),
        (HostPolicy::Target, _) | (HostPolicy::Preserve, None) => name(key, target)?,
    };
    parts.headers.insert(header::HOST, host);
    parts.version = Version::HTTP_11;
    parts.extensions = Extensions::new();
    Ok(())
}

/// What the host says of the caller: its address, and whether it is trusted.
fn asked(settings: &Settings, parts: &Parts) -> Result<(Option<IpAddr>, bool), Error> {
    let peer = guarded("ProxyBuilder::peer", || (settings.peer)(parts));
    let trusted = guarded("ProxyBuilder::trusted", || (settings.trusted)(parts));
    peer.zip(trusted).ok_or_else(|| Error::with_source(ErrorKind::Internal, "a callback of the proxy's panicked"))
}

/// The URI that the pooled client gets: of this authority, with the raw path and query that came.
pub(super) fn uri(uri: &Uri, authority: Authority) -> Result<Uri, Error> {
    let path = path(uri)?;
    let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(path);
    uri.build().map_err(|error| Error::with_source(ErrorKind::Internal, error))
}

/// The URI as it stands in a request's first line.
pub(super) fn origin_form(uri: &Uri) -> Result<Uri, Error> {
    Ok(path(uri)?.into())
}

fn path(uri: &Uri) -> Result<PathAndQuery, Error> {
    Ok(uri.path_and_query().cloned().ok_or(Refused::Path)?)
}

/// Strips a response's head of what is between the agent's side and this one.
pub(super) fn response(headers: &mut HeaderMap) {
    strip(headers);
}

/// Whether it asks for a WebSocket over HTTP/2 (RFC 8441).
pub(super) fn is_websocket_connect(parts: &Parts) -> bool {
    let protocol = parts.extensions.get::<Protocol>();
    parts.method == Method::CONNECT && protocol.is_some_and(|name| name.as_str().eq_ignore_ascii_case("websocket"))
}

/// Makes such a request one that asks for the same over HTTP/1.1.
pub(super) fn connect_to_upgrade(parts: &mut Parts, key: HeaderValue) {
    parts.method = Method::GET;
    parts.extensions.remove::<Protocol>();
    let headers = &mut parts.headers;
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_KEY, key);
}

/// Makes the head of a 101 that of the answer over HTTP/2.
pub(super) fn switching_to_connected(headers: &mut HeaderMap) {
    strip(headers);
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::SEC_WEBSOCKET_ACCEPT);
}

/// Strips the head of a 101, but for what the upgrade is made by.
pub(super) fn switching(headers: &mut HeaderMap) {
    let upgrade = take_upgrade(headers);
    strip(headers);
    headers.remove(header::CONTENT_LENGTH);
    restore_upgrade(headers, upgrade);
}

/// The upgrade that is asked for by headers and that the host can make. Only HTTP/1.1 has it; elsewhere they mean nothing.
pub(super) fn wanted_upgrade(parts: &mut Parts) -> Option<OnUpgrade> {
    let wanted = parts.version == Version::HTTP_11
        && parts.headers.contains_key(header::UPGRADE)
        && tokens(&parts.headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    if wanted { parts.extensions.remove() } else { None }
}

fn take_upgrade(headers: &mut HeaderMap) -> Vec<HeaderValue> {
    let values = headers.get_all(header::UPGRADE).iter().cloned().collect();
    headers.remove(header::UPGRADE);
    values
}

fn restore_upgrade(headers: &mut HeaderMap, values: Vec<HeaderValue>) {
    if !values.is_empty() {
        headers.append(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    for value in values {
        headers.append(header::UPGRADE, value);
    }
}

/// What the caller calls the host: by `Host`, or by the request's URI as in HTTP/2. Both, if there, agree.
fn host(parts: &Parts) -> Result<Option<HeaderValue>, Refused> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refused::Host);
    }
    let Some(authority) = parts.uri.authority() else { return Ok(host.cloned()) };
    let authority = authority.as_str();
    if authority.contains('@') {
        return Err(Refused::Host);
    }
    match host {
        Some(host) if host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) => Ok(Some(host.clone())),
        Some(_) => Err(Refused::Foreign),
        None => HeaderValue::from_str(authority).map(Some).map_err(|_| Refused::Host),
    }
}

fn name(key: &AgentKey, target: &TargetName) -> Result<HeaderValue, Error> {
    let name = if target.is_default() { key.as_str().to_owned() } else { format!("{}~{key}", target.as_str()) };
    name.try_into().map_err(|error| Error::with_source(ErrorKind::Internal, error))
}

/// Removes what is meant for this hop. What `Connection` names may not be what frames a message or says whose it is.
fn strip(headers: &mut HeaderMap) {
    // Where both are, the coding has framed the body (RFC 9112, section 6.3): by the length it would now be cut.
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect();
    let proxy: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with("proxy-")).cloned().collect();
    for name in named.into_iter().chain(proxy).chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// HTTP/2 may have its cookies in pieces, HTTP/1.1 may not.
fn join_cookies(headers: &mut HeaderMap) -> Result<(), Error> {
    let cookies: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1 {
        let joined = HeaderValue::from_bytes(&cookies.join(&b"; "[..]));
        headers.insert(header::COOKIE, joined.map_err(|error| Error::with_source(ErrorKind::Internal, error))?);
    }
    Ok(())
}

/// Says whom the request is from and what for, or leaves that to a caller who is trusted with it.
fn forwarded(headers: &mut HeaderMap, host: Option<&HeaderValue>, peer: Option<IpAddr>, trusted: bool, https: bool) {
    if !trusted {
        let family = headers.keys().filter(|name| name.as_str().starts_with("x-forwarded-"));
        for name in family.cloned().collect::<Vec<_>>().into_iter().chain([header::FORWARDED, REAL_IP]) {
            headers.remove(name);
        }
    }
    if let Some(peer) = peer.and_then(|peer| HeaderValue::try_from(peer.to_string()).ok()) {
        headers.append(FORWARDED_FOR, peer);
    }
    if let Some(host) = host {
        headers.entry(FORWARDED_HOST).or_insert_with(|| host.clone());
    }
    let proto = HeaderValue::from_static(if https { "https" } else { "http" });
    headers.entry(FORWARDED_PROTO).or_insert(proto);
}

/// The members of a header that is a list. As bytes: one that is no text must not hide the others.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

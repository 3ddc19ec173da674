//! Who may use the gateway: whoever shows the callers' token or, where there is none, whoever is on this machine.
//!
//! A browser shows the token once, in a form, and gets a cookie for it: the token's HMAC, which scripts cannot read, and
//! which comes back only from pages of the same site. It is good until the token changes.
//!
//! A cookie, and being on this machine, are nothing that a caller shows: browsers add them to whatever a page asks for.
//! They therefore count only for pages of the same origin; others get 403, also those of sandboxes.
//!
//! Whoever shows wrong tokens too often gets 429 for a while, whatever it shows then.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use axum::{
    Form,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use revdial::server::{KeyedBearer, SharedBearer};

use super::{
    App, cookies,
    domain::{self, Domain},
    guesses::Guesses,
    page,
};

/// Where the form with the token is sent to, at every host name.
pub(crate) const LOGIN: &str = "/.gateway/login";

#[derive(Clone)]
pub(crate) struct Callers {
    credentials: Option<Credentials>,
    domain: Option<Domain>,
    guesses: Guesses,
}

#[derive(Clone)]
struct Credentials {
    token: SharedBearer,
    cookie: SharedBearer,
    cookie_value: String,
}

impl Callers {
    pub(crate) fn new(token: Option<String>, domain: Option<Domain>) -> Result<Self, revdial::Error> {
        Ok(Self { credentials: token.map(Credentials::new).transpose()?, domain, guesses: Guesses::default() })
    }

    /// Whether the request may go on, without what was for us alone.
    pub(crate) fn admit(&self, caller: SocketAddr, request: &mut Request) -> Result<(), Refused> {
        let cookies = cookies::take(request.headers_mut());
        match &self.credentials {
            Some(known) => {
                self.may_try(caller)?;
                if known.token.accepts(request.headers()) {
                    request.headers_mut().remove(header::AUTHORIZATION);
                    return Ok(());
                }
                if !cookies.iter().any(|shown| accepts(&known.cookie, shown)) {
                    if !cookies.is_empty() || request.headers().contains_key(header::AUTHORIZATION) {
                        self.guesses.wrong(caller.ip(), Instant::now());
                    }
                    return Err(Refused::Unknown { wants_a_page: wants_a_page(request) });
                }
            }
            None if !caller.ip().to_canonical().is_loopback() || is_proxied(request.headers()) => {
                return Err(Refused::Elsewhere);
            }
            None if self.is_misled(request) => return Err(Refused::Misled),
            None => {}
        }
        if is_foreign(request) { Err(Refused::Foreign) } else { Ok(()) }
    }

    fn may_try(&self, caller: SocketAddr) -> Result<(), Refused> {
        self.guesses.wait(caller.ip(), Instant::now()).map_or(Ok(()), |wait| Err(Refused::TooOften(wait)))
    }

    /// Whether a browser on this machine may have been led here by a name of somebody else's, which is the origin of
    /// that one's pages. Nobody can have a name without a dot, or an address.
    fn is_misled(&self, request: &Request) -> bool {
        let Some(host) = domain::host(request).map(domain::without_port) else { return false };
        let is_address = host.starts_with('[') || host.parse::<IpAddr>().is_ok();
        let is_ours = self.domain.as_ref().is_some_and(|domain| domain.covers(host));
        host.contains('.') && !is_address && !is_ours && !host.ends_with(".localhost")
    }
}

/// Why a request does not go on.
pub(crate) enum Refused {
    /// It shows neither token nor cookie.
    Unknown { wants_a_page: bool },
    /// Too many wrong ones came from there.
    TooOften(Duration),
    /// It comes from another machine.
    Elsewhere,
    /// It calls us by a name that is not known to be ours.
    Misled,
    /// A page of another origin asks.
    Foreign,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let why = match self {
            Self::Unknown { wants_a_page } => return page::login(wants_a_page, None),
            Self::TooOften(wait) => {
                let later = [(header::RETRY_AFTER, wait.as_secs() + 1)];
                return (StatusCode::TOO_MANY_REQUESTS, later, "too many wrong tokens from there\n").into_response();
            }
            Self::Elsewhere => "only callers on this machine are answered: there is no --caller-token\n",
            Self::Misled => "not by this name: it is not that of --domain, and there is no --caller-token\n",
            Self::Foreign => "not for a page of another origin\n",
        };
        (StatusCode::FORBIDDEN, why).into_response()
    }
}

impl Credentials {
    fn new(token: String) -> Result<Self, revdial::Error> {
        let name = "gateway.cookie".parse().expect("it can be a key");
        let cookie_value = KeyedBearer::new(&token)?.token_for(&name);
        Ok(Self { token: SharedBearer::new(token)?, cookie: SharedBearer::new(&cookie_value)?, cookie_value })
    }
}

/// The middleware of all that only callers may use.
pub(crate) async fn only(
    State(app): State<App>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    match app.callers.admit(caller, &mut request) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

/// The form with the token: a cookie for it, and on to the start page of the host name where it was filled in.
pub(crate) async fn login(
    State(app): State<App>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    parts: Parts,
    Form(fields): Form<HashMap<String, String>>,
) -> Response {
    let is_secure = parts.headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https:"));
    if is_foreign(&Request::from_parts(parts, axum::body::Body::empty())) {
        return Refused::Foreign.into_response();
    }
    let Callers { credentials: Some(known), guesses, .. } = &app.callers else {
        return Redirect::to("/").into_response();
    };
    if let Err(refused) = app.callers.may_try(caller) {
        return refused.into_response();
    }
    if !fields.get("token").is_some_and(|shown| accepts(&known.token, shown.as_bytes())) {
        guesses.wrong(caller.ip(), Instant::now());
        return page::login(true, Some("That is not the token."));
    }
    ([(header::SET_COOKIE, cookies::set(&known.cookie_value, is_secure))], Redirect::to("/")).into_response()
}

/// Whether a proxy says that it asks for somebody else: with one on this machine everybody comes from this machine.
fn is_proxied(headers: &HeaderMap) -> bool {
    ["x-forwarded-for", "x-real-ip", "forwarded", "via"].iter().any(|name| headers.contains_key(*name))
}

/// Whether a page of another origin asks, as browsers tell. A link that somebody follows to here is none of its doing;
/// and what a page below a path loads, which has no origin, is told by the address of that page.
fn is_foreign(request: &Request) -> bool {
    let headers = request.headers();
    let host = domain::host(request).unwrap_or_default();
    let says = |name: &str, value: &str| headers.get(name).is_some_and(|said| said == value);
    let is_ours = |url: &HeaderValue| {
        let rest = url.to_str().ok().and_then(|url| Some(url.split_once("://")?.1));
        rest.and_then(|rest| rest.split('/').next()).is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    };
    if says("sec-fetch-site", "same-origin") {
        return false; // also where a proxy in front has changed the Host
    }
    if headers.get_all(header::ORIGIN).iter().any(|origin| !is_ours(origin)) {
        return true;
    }
    let is_followed = request.method() == Method::GET && says("sec-fetch-mode", "navigate");
    let is_asked_by_a_page = headers.contains_key("sec-fetch-site") && !says("sec-fetch-site", "none");
    is_asked_by_a_page && !is_followed && !headers.get(header::REFERER).is_some_and(is_ours)
}

fn wants_a_page(request: &Request) -> bool {
    let accepts = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    request.method() == Method::GET && accepts.is_some_and(|accept| accept.contains("text/html"))
}

/// In constant time, as the bearer does it.
fn accepts(bearer: &SharedBearer, shown: &[u8]) -> bool {
    let mut headers = HeaderMap::new();
    HeaderValue::from_bytes(&[b"Bearer ", shown].concat()).is_ok_and(|shown| {
        headers.insert(header::AUTHORIZATION, shown);
        bearer.accepts(&headers)
    })
}

//! Who may use the gateway: whoever shows the callers' token or, where there is none, whoever is on this machine.
//!
//! A browser shows the token once, in a form, and gets a cookie for it: a random value, which scripts cannot read, and
//! which comes back only from pages of the same site. It is good until the gateway ends; then the form comes again.
//!
//! A cookie, and being on this machine, are nothing that a caller shows: browsers add them to whatever a page asks for.
//! They therefore count only for pages of the same origin; others get 403, also those of sandboxes.
//!
//! Whoever shows wrong tokens too often gets 429 for a while, for right ones too. A cookie is no token: nobody guesses it,
//! so no wrong one counts, which a page of a sandbox could give its viewer, and a right one is good all the while.

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
    response::{AppendHeaders, IntoResponse, Redirect, Response},
};
use data_encoding::HEXLOWER;
use revdial::server::SharedBearer;

use super::{
    App, cookies,
    domain::{self, Domain},
    guesses::Guesses,
    page, peer,
};

/// Where the form with the token is sent to, at every host name.
pub(crate) const LOGIN: &str = "/.gateway/login";

#[derive(Clone)]
pub(crate) struct Callers {
    credentials: Option<Credentials>,
    domain: Option<Domain>,
    guesses: Guesses,
    /// Apart, since a page of a sandbox can guess at the sandbox's own host name, and that from its viewer's address.
    guesses_at_sandboxes: Guesses,
}

#[derive(Clone)]
struct Credentials {
    token: SharedBearer,
    cookie: SharedBearer,
    cookie_value: String,
}

impl Callers {
    pub(crate) fn new(token: Option<String>, domain: Option<Domain>) -> Result<Self, revdial::Error> {
        let credentials = token.map(Credentials::new).transpose()?;
        Ok(Self { credentials, domain, guesses: Guesses::default(), guesses_at_sandboxes: Guesses::default() })
    }

    /// Whether the request may go on, without what was for us alone.
    pub(crate) fn admit(&self, caller: SocketAddr, request: &mut Request) -> Result<(), Refused> {
        let cookies = cookies::take(request.headers_mut());
        let is_foreign = is_foreign(request);
        match &self.credentials {
            Some(known) => {
                let has_cookie = !is_foreign && cookies.shown().iter().any(|shown| accepts(&known.cookie, shown));
                let is_token = || known.token.accepts(request.headers());
                // With the cookie whatever stands there is for the sandbox. No page of another origin can put it there.
                let is_guess = !has_cookie && shows_a_token(request.headers());
                let has_token = if is_guess { self.judge(caller, request, is_token)? } else { is_token() };
                if has_token {
                    request.headers_mut().remove(header::AUTHORIZATION);
                    return Ok(());
                }
                if !has_cookie && !is_foreign {
                    return Err(Refused::Unknown {
                        wants_a_page: wants_a_page(request),
                        forgotten: cookies.forgotten(),
                    });
                }
            }
            // With a proxy on this machine everybody comes from this machine.
            None if !caller.ip().to_canonical().is_loopback() || peer::is_proxied(request.headers()) => {
                return Err(Refused::Elsewhere);
            }
            None if self.is_misled(request) => return Err(Refused::Misled),
            None => {}
        }
        if is_foreign { Err(Refused::Foreign) } else { Ok(()) }
    }

    /// Whether a token is right that somebody shows. It counts if it is wrong, and is not looked at if too many were.
    fn judge(&self, caller: SocketAddr, request: &Request, is_right: impl FnOnce() -> bool) -> Result<bool, Refused> {
        let (guesses, now) = (self.guesses_at(request), Instant::now());
        if let Some(wait) = guesses.wait(caller.ip(), now) {
            return Err(Refused::TooOften(wait));
        }
        let is_right = is_right();
        if !is_right {
            guesses.wrong(caller.ip(), now);
        }
        Ok(is_right)
    }

    fn guesses_at(&self, request: &Request) -> &Guesses {
        let host = domain::host(request).map(domain::without_port);
        let is_sandbox = self.domain.as_ref().zip(host).is_some_and(|(domain, host)| domain.name(host).is_some());
        if is_sandbox { &self.guesses_at_sandboxes } else { &self.guesses }
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
    /// It shows neither token nor cookie, or old ones: these cookies.
    Unknown { wants_a_page: bool, forgotten: Vec<String> },
    /// Too many wrong tokens came from there.
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
            Self::Unknown { wants_a_page, forgotten } => {
                let forgotten = forgotten.into_iter().map(|cookie| (header::SET_COOKIE, cookie));
                return (AppendHeaders(forgotten), page::login(wants_a_page, None)).into_response();
            }
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
        let cookie_value = HEXLOWER.encode(&rand::random::<[u8; 32]>());
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
    let request = Request::from_parts(parts, axum::body::Body::empty());
    if is_foreign(&request) {
        return Refused::Foreign.into_response();
    }
    let Some(known) = &app.callers.credentials else {
        return Redirect::to("/").into_response();
    };
    let is_token = || fields.get("token").is_some_and(|shown| accepts(&known.token, shown.as_bytes()));
    match app.callers.judge(caller, &request, is_token) {
        Ok(true) => {
            let cookie = cookies::set(&known.cookie_value, cookies::is_by_https(request.headers()));
            ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
        }
        Ok(false) => page::login(true, Some("That is not the token.")),
        Err(refused) => refused.into_response(),
    }
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

/// Whether there is something that could be the token. Browsers send names and passwords to sandboxes by themselves.
fn shows_a_token(headers: &HeaderMap) -> bool {
    let is_bearer = |shown: &HeaderValue| shown.as_bytes().get(..7).is_some_and(|s| s.eq_ignore_ascii_case(b"bearer "));
    headers.get_all(header::AUTHORIZATION).iter().any(is_bearer)
}

/// In constant time, as the bearer does it.
fn accepts(bearer: &SharedBearer, shown: &[u8]) -> bool {
    let mut headers = HeaderMap::new();
    HeaderValue::from_bytes(&[b"Bearer ", shown].concat()).is_ok_and(|shown| {
        headers.insert(header::AUTHORIZATION, shown);
        bearer.accepts(&headers)
    })
}

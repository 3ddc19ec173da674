//! The gateway's cookie, and what sandboxes may say of cookies.
//!
//! Hosts share cookies where they share a domain, and sandboxes below paths share one host with the gateway. So no
//! sandbox gets the gateway's cookie or sets it, none sets a cookie for other hosts than its own, and none clears what
//! others have in the browser. A page's script can still set cookies for the whole domain. By https that does not touch
//! the gateway's, which browsers keep to one host for its name's sake: there no other name is taken for it.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::Response,
};

const NAME: &[u8] = b"revdial_gateway";

/// By https: no other host can set a cookie of such a name.
const NAME_OF_ONE_HOST: &[u8] = b"__Host-revdial_gateway";

/// What an answer says for everything at its origin, and clears for everything at its domain.
const CLEAR: HeaderName = HeaderName::from_static("clear-site-data");
const FOR_ALL_OF_AN_ORIGIN: [HeaderName; 4] = [
    header::STRICT_TRANSPORT_SECURITY,
    header::ALT_SVC,
    HeaderName::from_static("nel"),
    HeaderName::from_static("report-to"),
];

/// The values of our cookies in a request, by name.
pub(crate) struct Ours {
    of_one_host: Vec<Vec<u8>>,
    plain: Vec<Vec<u8>>,
    is_by_https: bool,
}

impl Ours {
    /// Those that may be good. Browsers send those of one host by https only.
    pub(crate) fn shown(&self) -> &[Vec<u8>] {
        if self.is_by_https || !self.of_one_host.is_empty() { &self.of_one_host } else { &self.plain }
    }

    /// What has a browser forget them, in a `Set-Cookie` each.
    pub(crate) fn forgotten(&self) -> Vec<String> {
        let names = [(true, &self.of_one_host), (false, &self.plain)];
        let shown = names.into_iter().filter(|(_, values)| !values.is_empty());
        shown.map(|(is_secure, _)| format!("{}; Max-Age=0", set("", is_secure))).collect()
    }
}

/// Takes our cookies out of a request's headers, so that no sandbox gets them.
pub(crate) fn take(headers: &mut HeaderMap) -> Ours {
    let mut ours = Ours { of_one_host: Vec::new(), plain: Vec::new(), is_by_https: is_by_https(headers) };
    let mut others = Vec::new();
    for value in headers.get_all(header::COOKIE) {
        for cookie in value.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
            match name_and_value(cookie) {
                (NAME_OF_ONE_HOST, value) => ours.of_one_host.push(value.to_owned()),
                (NAME, value) => ours.plain.push(value.to_owned()),
                _ => others.push(cookie),
            }
        }
    }
    let others = HeaderValue::from_bytes(&others.join(&b"; "[..])).ok().filter(|others| !others.is_empty());
    headers.remove(header::COOKIE);
    headers.extend(others.map(|others| (header::COOKIE, others)));
    ours
}

/// Whether a browser asks by https, as far as it or the proxy that ends TLS tells.
pub(crate) fn is_by_https(headers: &HeaderMap) -> bool {
    match headers.get(header::ORIGIN) {
        Some(origin) => origin.as_bytes().starts_with(b"https:"),
        None => headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https"),
    }
}

/// Our cookie, for this host only, as long as the browser runs.
pub(crate) fn set(value: &str, is_secure: bool) -> String {
    let (name, secure) = if is_secure { (NAME_OF_ONE_HOST, "; Secure") } else { (NAME, "") };
    format!("{}={value}; Path=/; HttpOnly; SameSite=Strict{secure}", String::from_utf8_lossy(name))
}

/// Leaves of a sandbox's answer what is the sandbox's to say, at a host name of its own.
pub(crate) fn confine(headers: &mut HeaderMap) {
    headers.remove(CLEAR);
    if let header::Entry::Occupied(set) = headers.entry(header::SET_COOKIE) {
        let (name, cookies) = set.remove_entry_mult();
        let confined: Vec<_> = cookies.filter_map(|cookie| of_this_host(&cookie)).collect();
        headers.extend(confined.into_iter().map(|cookie| (name.clone(), cookie)));
    }
}

/// The same for one whose origin is also the gateway's.
pub(crate) async fn confined_below_a_path(mut response: Response) -> Response {
    confine(response.headers_mut());
    for name in FOR_ALL_OF_AN_ORIGIN {
        response.headers_mut().remove(name);
    }
    response
}

/// A `Set-Cookie` without its `Domain`; `None` for one of ours.
fn of_this_host(cookie: &HeaderValue) -> Option<HeaderValue> {
    let mut parts = cookie.as_bytes().split(|byte| *byte == b';');
    let pair = parts.next().unwrap_or_default();
    if is_ours(name_and_value(pair).0) {
        return None;
    }
    let attributes = parts.filter(|part| !name_and_value(part).0.eq_ignore_ascii_case(b"domain"));
    let kept: Vec<_> = std::iter::once(pair).chain(attributes).collect();
    HeaderValue::from_bytes(&kept.join(&b';')).ok()
}

fn is_ours(name: &[u8]) -> bool {
    name == NAME || name == NAME_OF_ONE_HOST
}

/// Of `NAME=VALUE`, as browsers read it. One without a name goes back to the server without its first `=`.
fn name_and_value(pair: &[u8]) -> (&[u8], &[u8]) {
    let pair = pair.trim_ascii();
    let pair = pair.strip_prefix(b"=").map_or(pair, <[u8]>::trim_ascii);
    let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
    (pair[..end].trim_ascii(), pair.get(end + 1..).unwrap_or_default().trim_ascii())
}

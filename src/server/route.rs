//! Whose request is it: pure answers from a request's path, query and `Origin`, without IO and clock.

use std::{borrow::Cow, fmt};

use http::{HeaderMap, Uri, header, request::Parts};

use crate::key::{AgentKey, InvalidName};

/// The query parameter that names the key.
const KEY_PARAMETER: &str = "runnerid";

/// The query parameters that make a request a pick-up of the dial-back protocol.
const PICKUP_PARAMETERS: [&str; 2] = ["revdial.dialer", "revdial.req"];

/// What a request on the tunnel's path is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// An agent that wants to open its tunnel.
    Tunnel,
    /// An agent that brings a connection which a dial-back server asked for.
    Pickup,
}

impl Route {
    /// What the request is about, or `None` when its path is not exactly `path` and so it is not ours.
    pub(crate) fn of(uri: &Uri, path: &str) -> Option<Self> {
        if uri.path() != path {
            return None;
        }
        let pickup = parameters(uri).any(|(name, _)| PICKUP_PARAMETERS.contains(&&*decoded(name).unwrap_or_default()));
        Some(if pickup { Self::Pickup } else { Self::Tunnel })
    }
}

/// Whether no browser sent the request, or only ones from the allowed origins: agents have no `Origin`, and a page
/// that a browser shows cannot leave it out.
pub(crate) fn origin_is_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    headers
        .get_all(header::ORIGIN)
        .iter()
        .all(|origin| allowed.iter().any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(origin.as_bytes())))
}

/// The key that a request asks for: its query parameter `runnerid`, percent-decoded.
///
/// For use in [`Authorize`](crate::server::Authorize); the [`BadKey`] turns into a rejection with 400 by `?`.
///
/// ```
/// use http::Request;
/// use revdial::server::{BadKey, requested_key};
///
/// let (parts, ()) = Request::get("/api/v1/revdial?runnerid=Desktop%2D7").body(())?.into_parts();
/// assert_eq!(requested_key(&parts)?.as_str(), "desktop-7");
///
/// let (parts, ()) = Request::get("/api/v1/revdial").body(())?.into_parts();
/// assert_eq!(requested_key(&parts), Err(BadKey::Missing));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When the parameter is missing, is there twice, or is no key.
pub fn requested_key(parts: &Parts) -> Result<AgentKey, BadKey> {
    let mut values = parameters(&parts.uri)
        .filter(|(name, _)| decoded(name).is_some_and(|name| name == KEY_PARAMETER))
        .map(|(_, value)| value);
    let value = values.next().ok_or(BadKey::Missing)?;
    if values.next().is_some() {
        return Err(BadKey::Repeated);
    }
    Ok(decoded(value).ok_or(BadKey::Encoding)?.parse::<AgentKey>()?)
}

/// Whether a request asks for a key, that can be or not.
pub(super) fn names_key(uri: &Uri) -> bool {
    parameters(uri).any(|(name, _)| decoded(name).is_some_and(|name| name == KEY_PARAMETER))
}

/// Why a request names no key that can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadKey {
    /// There is no `runnerid`.
    Missing,
    /// There is more than one, and which one counts would be anybody's guess.
    Repeated,
    /// It is not percent-encoded UTF-8.
    Encoding,
    /// It is not what a key may be.
    Invalid(InvalidName),
}

impl From<InvalidName> for BadKey {
    fn from(invalid: InvalidName) -> Self {
        Self::Invalid(invalid)
    }
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the query has no runnerid"),
            Self::Repeated => f.write_str("the query has more than one runnerid"),
            Self::Encoding => f.write_str("the runnerid is not percent-encoded UTF-8"),
            Self::Invalid(_) => f.write_str("the runnerid is no key"),
        }
    }
}

impl std::error::Error for BadKey {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Invalid(invalid) => Some(invalid),
            _ => None,
        }
    }
}

/// The query's names and values, still encoded.
fn parameters(uri: &Uri) -> impl Iterator<Item = (&str, &str)> {
    let query = uri.query().unwrap_or_default();
    query.split('&').map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
}

/// The text behind percent-encoding, if it is one. A `+` stays a `+`: nothing that is looked for has a space.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut pieces = text.split('%');
    let mut bytes = Vec::with_capacity(text.len());
    bytes.extend_from_slice(pieces.next()?.as_bytes());
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None; // from_str_radix would take a sign
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    fn key_of(query: &str) -> Result<AgentKey, BadKey> {
        let (parts, ()) = Request::get(format!("/t?{query}")).body(()).unwrap().into_parts();
        requested_key(&parts)
    }

    #[test]
    fn only_the_exact_path_is_ours() {
        for (uri, route) in [
            ("/t", Some(Route::Tunnel)),
            ("/t?runnerid=a", Some(Route::Tunnel)),
            ("http://host/t?x", Some(Route::Tunnel)),
            ("/t?revdial.dialer=0", Some(Route::Pickup)),
            ("/t?a=b&revdial%2Ereq", Some(Route::Pickup)),
            ("/t?runnerid=revdial.req", Some(Route::Tunnel)),
            ("/t/", None),
            ("/T", None),
            ("/%74", None),
            ("/", None),
            ("/t/revdial.req", None),
        ] {
            assert_eq!(Route::of(&uri.parse().unwrap(), "/t"), route, "{uri}");
        }
    }

    #[test]
    fn a_key_is_read_from_the_query_once_and_decoded() {
        assert_eq!(key_of("x=1&runnerid=A%2Db").unwrap().as_str(), "a-b");
        assert_eq!(key_of("runner%69d=a").unwrap().as_str(), "a");
        assert_eq!(key_of("runneri=a"), Err(BadKey::Missing));
        assert_eq!(key_of("RunnerId=a"), Err(BadKey::Missing));
        assert_eq!(key_of("runnerid=a&runnerid=a"), Err(BadKey::Repeated));
        assert_eq!(key_of("runnerid=a&runner%69d=b"), Err(BadKey::Repeated));
        for bad in ["a%", "a%2", "a%zz", "a%+1", "a%ff", "%e4%"] {
            assert_eq!(key_of(&format!("runnerid={bad}")), Err(BadKey::Encoding), "{bad}");
        }
        for bad in ["", "a+b", "a%20b", "a%2fb", "a%00", "-a", "10.0.0.1", "a=b"] {
            assert!(matches!(key_of(&format!("runnerid={bad}")), Err(BadKey::Invalid(_))), "{bad}");
        }
    }

    #[test]
    fn every_origin_must_be_allowed() {
        let allowed = ["https://a.example".to_owned()];
        let mut headers = HeaderMap::new();
        assert!(origin_is_allowed(&headers, &[]));
        headers.append(header::ORIGIN, HeaderValue::from_static("https://A.example"));
        assert!(origin_is_allowed(&headers, &allowed));
        assert!(!origin_is_allowed(&headers, &[]));
        headers.append(header::ORIGIN, HeaderValue::from_static("null"));
        assert!(!origin_is_allowed(&headers, &allowed));
    }
}

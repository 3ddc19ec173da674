//! Where a pick-up goes, and whose it is: paths and queries to ids and back, without IO and clock.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::fmt;

use http::{Uri, uri::PathAndQuery};

use super::pending::Id;

/// What every path of the protocol begins with; the agent puts the server's own path in its place.
const PREFIX: &str = "/revdial";

/// The query parameter that names the dialer.
const DIALER: &str = "revdial.dialer";

/// The query parameter that names the request.
const REQUEST: &str = "revdial.req";

/// The longest path that an agent follows, in bytes.
const MAX_PATH: usize = 2048;

/// The path by which a server asks for a pick-up: `/revdial?revdial.dialer=<32 hex>&revdial.req=<32 hex>`.
#[must_use]
pub fn conn_path(dialer: Id, request: Id) -> String {
    format!("{PREFIX}?{DIALER}={dialer}&{REQUEST}={request}")
}

/// Whose pick-up a request is, by its query: the dialer and the request.
///
/// `None` unless each of the two is there exactly once, as 32 hex digits and nothing else. Other parameters do not
/// matter.
///
/// ```
/// use revdial::dialback::{Id, conn_path, pickup_ids};
///
/// let (dialer, request) = (Id::new([1; 16]), Id::new([2; 16]));
/// let path = conn_path(dialer, request);
/// assert_eq!(pickup_ids(path.trim_start_matches("/revdial?")), Some((dialer, request)));
/// assert_eq!(pickup_ids("revdial.dialer=1&revdial.req=2"), None);
/// ```
#[must_use]
pub fn pickup_ids(query: &str) -> Option<(Id, Id)> {
    Some((the(query, DIALER)?.parse().ok()?, the(query, REQUEST)?.parse().ok()?))
}

/// The request that a path was made for by [`conn_path`], as an agent echoes it in
/// [`PickupFailed`](super::Line::PickupFailed).
#[must_use]
pub fn request_of(conn_path: &str) -> Option<Id> {
    let query = conn_path.strip_prefix(PREFIX)?.strip_prefix('?')?;
    pickup_ids(query).map(|(_, request)| request)
}

/// Where an agent dials back to: the scheme, authority and path of its control link, with the query of the path that
/// the server sent. A server cannot send it anywhere else, whatever it writes.
///
/// ```
/// use revdial::dialback::{PathError, pickup_uri};
///
/// let control = "https://gateway/api/v1/revdial?runnerid=desktop-7".parse()?;
/// let uri = pickup_uri(&control, "/revdial?revdial.dialer=1&revdial.req=2")?;
/// assert_eq!(uri, "https://gateway/api/v1/revdial?revdial.dialer=1&revdial.req=2");
/// assert_eq!(pickup_uri(&control, "//elsewhere/revdial?revdial.dialer=1"), Err(PathError::DoubleSlash));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When the path is not what a server of this protocol sends.
pub fn pickup_uri(control: &Uri, conn_path: &str) -> Result<Uri, PathError> {
    let query = checked_query(conn_path)?;
    let mut parts = http::uri::Parts::default();
    parts.scheme = control.scheme().cloned();
    parts.authority = control.authority().cloned();
    let path = PathAndQuery::from_maybe_shared(format!("{}?{query}", control.path()));
    parts.path_and_query = Some(path.map_err(|_| PathError::Uri)?);
    let uri = Uri::from_parts(parts).map_err(|_| PathError::Uri)?;
    if uri.path() == control.path() { Ok(uri) } else { Err(PathError::Uri) }
}

/// The query of a path that an agent may follow.
fn checked_query(conn_path: &str) -> Result<&str, PathError> {
    if conn_path.len() > MAX_PATH {
        return Err(PathError::TooLong);
    }
    if !conn_path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(PathError::Character);
    }
    let forbidden = [
        ("//", PathError::DoubleSlash),
        ("@", PathError::At),
        ("\\", PathError::Backslash),
        ("#", PathError::Fragment),
        ("..", PathError::DotDot),
    ];
    if let Some((_, error)) = forbidden.into_iter().find(|(text, _)| conn_path.contains(text)) {
        return Err(error);
    }
    let (path, query) = conn_path.split_once('?').unwrap_or((conn_path, ""));
    if path.contains('%') {
        return Err(PathError::Encoded);
    }
    if path != PREFIX || path.len() == conn_path.len() {
        return Err(PathError::Prefix);
    }
    let named = |name| the(query, name).is_some_and(|value| !value.is_empty());
    if named(DIALER) && named(REQUEST) { Ok(query) } else { Err(PathError::Query) }
}

/// The value of the parameter that is there exactly once. Which one of two would count is anybody's guess.
fn the<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let parameters = query.split('&').map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
    let mut values = parameters.filter(|(found, _)| *found == name).map(|(_, value)| value);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// Why an agent does not follow a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathError {
    /// It has more than 2,048 bytes.
    TooLong,
    /// It has a space, a control character, or one that is not ASCII.
    Character,
    /// It has a `//`, behind which an authority could stand.
    DoubleSlash,
    /// It has an `@`, which could make a user of a host.
    At,
    /// It has a `\`, which some take for a `/`.
    Backslash,
    /// It has a `#`.
    Fragment,
    /// It has a `..`.
    DotDot,
    /// It has percent-encoding before its query.
    Encoded,
    /// It does not begin with `/revdial?`.
    Prefix,
    /// Its query does not name a dialer and a request, each once.
    Query,
    /// It makes no URI.
    Uri,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the path has more than 2,048 bytes",
            Self::Character => "the path has a space, a control character or one that is not ASCII",
            Self::DoubleSlash => "the path has a double slash",
            Self::At => "the path has an at sign",
            Self::Backslash => "the path has a backslash",
            Self::Fragment => "the path has a hash sign",
            Self::DotDot => "the path has two dots in a row",
            Self::Encoded => "the path has percent-encoding before its query",
            Self::Prefix => "the path does not begin with /revdial?",
            Self::Query => "the path's query does not name one dialer and one request",
            Self::Uri => "the path makes no URI",
        })
    }
}

impl std::error::Error for PathError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const D: &str = "4bbe7735fec31f8e214fac1d0a9bbc13";
    const R: &str = "f85e449a8bfd3e668f794f08527b8b5f";

    fn ids() -> (Id, Id) {
        (D.parse().unwrap(), R.parse().unwrap())
    }

    #[test]
    fn a_path_names_its_ids() {
        let (dialer, request) = ids();
        let path = conn_path(dialer, request);
        assert_eq!(path, format!("/revdial?revdial.dialer={D}&revdial.req={R}"));
        assert_eq!(request_of(&path), Some(request));
        for other in ["", "/revdial?", "/revdial", &path[1..], &format!("/api{path}"), "/revdial?revdial.req=nope"] {
            assert_eq!(request_of(other), None, "{other}");
        }
    }

    #[test]
    fn each_id_is_there_once_and_whole() {
        let (dialer, request) = (format!("revdial.dialer={D}"), format!("revdial.req={R}"));
        for query in [
            format!("{dialer}&{request}"),
            format!("{request}&{dialer}"),
            format!("runnerid=a&{dialer}&&x&{request}&=1"),
        ] {
            assert_eq!(pickup_ids(&query), Some(ids()), "{query}");
        }
        for query in [
            String::new(),
            dialer.clone(),
            request.clone(),
            format!("{dialer}&{request}&{dialer}"),
            format!("{dialer}&{request}&revdial.req"),
            format!("{dialer}0&{request}"),
            format!("{dialer}&{}", &request[..request.len() - 1]),
            format!("{dialer}&revdial.req=+{}", &R[1..]),
            format!("{dialer}&revdial.req={R}="),
            format!("{dialer}&Revdial.req={R}"),
            format!("{dialer}&revdial%2Ereq={R}"),
            format!("?{dialer}&{request}"),
        ] {
            assert_eq!(pickup_ids(&query), None, "{query}");
        }
    }

    #[test]
    fn a_pick_up_goes_where_the_control_link_goes() {
        let (dialer, request) = ids();
        let path = conn_path(dialer, request);
        for (control, base) in [
            ("http://h/api/v1/revdial?runnerid=a", "http://h/api/v1/revdial"),
            ("https://h:8443/base/api/v1/revdial", "https://h:8443/base/api/v1/revdial"),
            ("http://[::1]:80/", "http://[::1]:80/"),
            ("http://h", "http://h/"),
            ("http://h/revdial/revdial", "http://h/revdial/revdial"),
        ] {
            let uri = pickup_uri(&control.parse().unwrap(), &path).unwrap();
            assert_eq!(uri.to_string(), format!("{base}?revdial.dialer={D}&revdial.req={R}"));
        }
        let other = pickup_uri(&"http://h/t".parse().unwrap(), "/revdial?x=/%2e?&revdial.req=b&revdial.dialer=a");
        assert_eq!(other.unwrap(), "http://h/t?x=/%2e?&revdial.req=b&revdial.dialer=a");
    }

    #[test]
    fn a_server_cannot_send_an_agent_elsewhere() {
        let query = "revdial.dialer=1&revdial.req=2";
        let long = |len: usize| format!("/revdial?{query}&x={}", "x".repeat(len - query.len() - 12));
        let control = "http://h/api/v1/revdial".parse().unwrap();
        assert_eq!(long(2048).len(), 2048);
        assert!(pickup_uri(&control, &long(2048)).is_ok());
        for (path, error) in [
            (String::new(), PathError::Prefix),
            (long(2049), PathError::TooLong),
            ("/revdial".to_owned(), PathError::Prefix),
            (format!("revdial?{query}"), PathError::Prefix),
            (format!("/revdial/?{query}"), PathError::Prefix),
            (format!("/revdial2?{query}"), PathError::Prefix),
            (format!("/Revdial?{query}"), PathError::Prefix),
            (format!("/api/v1/revdial?{query}"), PathError::Prefix),
            (format!("?{query}"), PathError::Prefix),
            (format!("/rev%64ial?{query}"), PathError::Encoded),
            (format!("/revdial/%2e%2e/admin?{query}"), PathError::Encoded),
            (format!("//evil/revdial?{query}"), PathError::DoubleSlash),
            (format!("http://evil/revdial?{query}"), PathError::DoubleSlash),
            (format!("/revdial?{query}&x=http://evil"), PathError::DoubleSlash),
            (format!("/revdial@evil?{query}"), PathError::At),
            (format!("@evil/revdial?{query}"), PathError::At),
            (format!("/\\evil/revdial?{query}"), PathError::Backslash),
            (format!("/revdial/../admin?{query}"), PathError::DotDot),
            (format!("/revdial?{query}#x"), PathError::Fragment),
            (format!("/revdial? {query}"), PathError::Character),
            (format!("/revdial?{query}\r\nx: y"), PathError::Character),
            (format!("/revdial?{query}\0"), PathError::Character),
            (format!("/revdial?{query}\u{7f}"), PathError::Character),
            (format!("/revdial?{query}ä"), PathError::Character),
            ("/revdial?".to_owned(), PathError::Query),
            ("/revdial?revdial.dialer=1".to_owned(), PathError::Query),
            ("/revdial?revdial.dialer=1&revdial.req=".to_owned(), PathError::Query),
            ("/revdial?revdial.dialer&revdial.req=1".to_owned(), PathError::Query),
            (format!("/revdial?{query}&revdial.req=3"), PathError::Query),
            (format!("/revdial?{query}&x=<"), PathError::Uri),
        ] {
            assert_eq!(pickup_uri(&control, &path), Err(error), "{path:?}");
            assert!(!error.to_string().is_empty());
        }
        for control in ["h:80", "*"] {
            let control = control.parse().unwrap();
            assert_eq!(pickup_uri(&control, &format!("/revdial?{query}")), Err(PathError::Uri), "{control}");
        }
    }

    proptest! {
        #[test]
        fn any_path_goes_to_the_control_link_or_nowhere(
            control in prop_oneof![Just("https://u:p@h:1/a/b?c"), Just("http://h"), Just("/t"), Just("h:1"), Just("*")],
            path in prop_oneof![".*", "/revdial\\?revdial.dialer=1&revdial.req=.*", "[/revdial?.=&@\\\\#% ]{0,60}"],
        ) {
            let control: Uri = control.parse().unwrap();
            let _ = (pickup_ids(&path), request_of(&path));
            if let Ok(uri) = pickup_uri(&control, &path) {
                prop_assert_eq!(uri.scheme(), control.scheme());
                prop_assert_eq!(uri.authority(), control.authority());
                prop_assert_eq!(uri.path(), control.path());
                prop_assert_eq!(uri.to_string().parse::<Uri>().unwrap(), uri);
            }
        }
    }
}

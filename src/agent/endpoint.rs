//! Where the server's endpoint is: from the URL that a user writes to the one that is dialled. Pure.

use http::{
    Uri,
    uri::{Authority, Scheme},
};

use crate::key::AgentKey;

/// The endpoint's path below the server's base.
const ENDPOINT: &str = "/api/v1/revdial";

/// The URI to dial for this server URL and key: scheme `http` or `https`, the endpoint's path added unless it is
/// there, the key as `runnerid` behind the query that was given.
pub(crate) fn endpoint(url: &str, key: &AgentKey) -> Result<Uri, &'static str> {
    let uri: Uri = url.parse().map_err(|_| "is not a URL")?;
    let scheme = match uri.scheme_str().map(str::to_ascii_lowercase).as_deref() {
        Some("http" | "ws") => Scheme::HTTP,
        Some("https" | "wss") => Scheme::HTTPS,
        Some(_) => return Err("has a scheme other than http, https, ws and wss"),
        None => return Err("has no scheme; it begins with http://, https://, ws:// or wss://"),
    };
    let authority = uri.authority().ok_or("has no host")?;
    if authority.as_str().contains('@') {
        return Err("has a user name or password; use a token");
    }
    check(authority)?;
    let query = uri.query().filter(|query| !query.is_empty());
    if query.is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some("runnerid"))) {
        return Err("has a runnerid in its query already; the key goes there");
    }
    let base = uri.path().trim_end_matches('/');
    let path = if base.ends_with(ENDPOINT) { base.to_owned() } else { format!("{base}{ENDPOINT}") };
    let query = query.map_or_else(String::new, |query| format!("{query}&"));
    Uri::builder()
        .scheme(scheme)
        .authority(authority.clone())
        .path_and_query(format!("{path}?{query}runnerid={key}"))
        .build()
        .map_err(|_| "is not a URL")
}

/// Whether an authority without a user is a host, and a port if there is one.
pub(crate) fn check(authority: &Authority) -> Result<(), &'static str> {
    if authority.host().is_empty() {
        return Err("has no host");
    }
    // `http::Uri` takes `host:` and `host:99999` for hosts without a port.
    if authority.port().is_none() && authority.as_str() != authority.host() {
        return Err("has a port that is not a number from 1 to 65535");
    }
    if authority.port_u16() == Some(0) {
        return Err("has a port that is not a number from 1 to 65535");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Result<String, &'static str> {
        endpoint(url, &"Desktop-7".parse().unwrap()).map(|uri| uri.to_string())
    }

    #[test]
    fn a13_urls_become_the_endpoint() {
        let table = [
            ("http://h", "http://h/api/v1/revdial?runnerid=desktop-7"),
            ("http://h/", "http://h/api/v1/revdial?runnerid=desktop-7"),
            ("ws://h:8080", "http://h:8080/api/v1/revdial?runnerid=desktop-7"),
            ("HTTPS://h", "https://h/api/v1/revdial?runnerid=desktop-7"),
            ("wss://h/base/", "https://h/base/api/v1/revdial?runnerid=desktop-7"),
            ("http://h/api/v1/revdial", "http://h/api/v1/revdial?runnerid=desktop-7"),
            ("http://h/x/api/v1/revdial/", "http://h/x/api/v1/revdial?runnerid=desktop-7"),
            ("http://h/x?a=b&c", "http://h/x/api/v1/revdial?a=b&c&runnerid=desktop-7"),
            ("http://h?", "http://h/api/v1/revdial?runnerid=desktop-7"),
            ("http://[::1]:80", "http://[::1]:80/api/v1/revdial?runnerid=desktop-7"),
        ];
        for (url, expected) in table {
            assert_eq!(of(url).as_deref(), Ok(expected), "{url}");
        }
    }

    #[test]
    fn urls_that_cannot_be_are_refused() {
        let table = [
            ("", "URL"),
            ("h", "scheme"),
            ("/path", "scheme"),
            ("h:80", "scheme"),
            ("ftp://h", "scheme"),
            ("http://", "URL"),
            ("http://:80", "host"),
            ("http://user:pass@h", "user name"),
            ("http://h:", "port"),
            ("http://h:0", "port"),
            ("http://h:99999", "port"),
            ("http://h/?runnerid=x", "runnerid"),
            ("http://h/?a=b&runnerid", "runnerid"),
            ("http://h/ x", "URL"),
        ];
        for (url, why) in table {
            let told = of(url).unwrap_err();
            assert!(told.contains(why), "{url}: {told}");
        }
    }
}

//! Which proxy an agent's own connector goes through: the setting, and what the environment says. Pure.

use std::fmt;

use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::endpoint;
use crate::error::{Error, ErrorKind};

/// Through which proxy the agent's own connector reaches the server.
///
/// A proxy is a URL: `http://`, or without a scheme, for one that is asked by `CONNECT`; `https://` for the same with TLS to
/// the proxy, by this crate's feature `tls`; `socks5h://` for SOCKS5, where the proxy looks the server's name up, and
/// `socks5://`, where this side does and asks for its first eight addresses in turn. `user:password@` before the host,
/// percent-encoded, goes to the proxy only, as Basic credentials or as those of SOCKS5. The port is 80, 443 or 1080 unless
/// it is there. No `Debug`, log or error shows the credentials.
///
/// ```
/// use revdial::agent::{Agent, ProxyChoice};
///
/// let builder = || Agent::builder("https://gateway.example", "sandbox-1").token("secret");
/// assert!(builder().proxy(ProxyChoice::Url("socks5h://user:pass@10.0.0.1".into())).build().is_ok());
/// assert!(builder().proxy(ProxyChoice::Url("ftp://10.0.0.1".into())).build().is_err());
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyChoice {
    /// The one that the environment names: `https_proxy` for https and wss, `http_proxy` for http and ws, else
    /// `all_proxy`; none for the hosts, domains and networks in `no_proxy`. As curl does, the lower-case name is looked at
    /// first and then the upper-case one, and an empty variable is none; `HTTP_PROXY` is not looked at where
    /// `REQUEST_METHOD` is set, since there the header `Proxy` of a stranger may have filled it.
    #[default]
    Environment,
    /// None, whatever the environment says.
    Direct,
    /// This one, for every server and whatever the environment says.
    Url(String),
}

/// The URL of a proxy, of [`ProxyChoice::url_for`]. `Debug` and `Display` show it without its user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    set: String,
    /// Without the credentials.
    bare: Uri,
}

impl ProxyUrl {
    /// The URL as it is set, with the user and the password if they are in it: for whoever speaks to the proxy, and for no
    /// log.
    #[must_use]
    pub fn with_credentials(&self) -> &str {
        &self.set
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.bare.to_string().trim_end_matches('/'))
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyUrl({self})")
    }
}

impl fmt::Debug for ProxyChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Environment => "Environment",
            Self::Direct => "Direct",
            Self::Url(_) => "Url(..)",
        })
    }
}

impl ProxyChoice {
    /// The URL of the proxy through which an agent of this setting reaches a server; `None` if it goes straight. For tools
    /// that go the agent's way. Scheme and host of the server are looked at, and nothing else of its URL. The environment
    /// is this process's.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if what should name the proxy does not, as at
    /// [`AgentBuilder::build`](super::AgentBuilder::build). The source says what is wrong, and does not show the URL.
    ///
    /// ```
    /// use revdial::agent::ProxyChoice;
    ///
    /// let server = "wss://gateway.example".parse()?;
    /// let proxy = ProxyChoice::Url("http://user:pass@10.0.0.1:3128".into()).url_for(&server)?.unwrap();
    /// assert_eq!(proxy.to_string(), "http://10.0.0.1:3128");
    /// assert_eq!(proxy.with_credentials(), "http://user:pass@10.0.0.1:3128");
    /// assert!(ProxyChoice::Direct.url_for(&server)?.is_none());
    /// assert!(ProxyChoice::Url("ftp://10.0.0.1".into()).url_for(&server).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn url_for(&self, server: &Uri) -> Result<Option<ProxyUrl>, Error> {
        let Some(named) = self.named(server, |name| std::env::var(name).ok()) else { return Ok(None) };
        let proxy = named.read().map_err(|why| Error::with_source(ErrorKind::InvalidInput, why))?;
        Ok(Some(ProxyUrl { set: named.url, bare: proxy.uri().clone() }))
    }

    /// The proxy on the way to this server, if there is one. `variable` looks an environment variable up.
    pub(crate) fn proxy(
        &self,
        server: &Uri,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Intercept>, String> {
        self.named(server, variable).map(|named| named.read()).transpose()
    }

    fn named(&self, server: &Uri, variable: impl Fn(&str) -> Option<String>) -> Option<Named> {
        match self {
            Self::Direct => None,
            Self::Url(url) => Some(Named { by: None, url: url.clone() }),
            Self::Environment => {
                let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
                let no = variable("no_proxy").or_else(|| variable("NO_PROXY")).unwrap_or_default();
                let mut names = names(server, variable("REQUEST_METHOD").is_some()).iter();
                let named = names.find_map(|name| Some(Named { by: Some(name), url: variable(name)? }))?;
                (!is_excepted(server, &no)).then_some(named)
            }
        }
    }
}

/// What should be a proxy's URL, and the variable that it is from.
struct Named {
    by: Option<&'static str>,
    url: String,
}

impl Named {
    fn read(&self) -> Result<Intercept, String> {
        read(&self.url).map_err(|why| self.by.map_or(why.to_owned(), |name| format!("{name} in the environment {why}")))
    }
}

/// The variables that may name the proxy to this server, in their order.
fn names(server: &Uri, in_cgi: bool) -> &'static [&'static str] {
    match server.scheme_str() {
        Some("https" | "wss") => &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
        _ if in_cgi => &["http_proxy", "all_proxy", "ALL_PROXY"],
        _ => &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"],
    }
}

/// Whether `no` names this server as one that is reached directly.
fn is_excepted(server: &Uri, no: &str) -> bool {
    // Matchers know no WebSockets, and take the wildcard for names only.
    let parts =
        server.authority().map(|host| Uri::builder().scheme("http").authority(host.clone()).path_and_query("/"));
    let server = parts.and_then(|parts| parts.build().ok());
    let is_outside = |server| Matcher::builder().all("any").no(no).build().intercept(&server).is_none();
    no.split(',').any(|entry| entry.trim() == "*") || server.is_some_and(is_outside)
}

/// The proxy that a URL names. What is wrong with it is told without showing it: it may hold a password.
fn read(url: &str) -> Result<Intercept, &'static str> {
    const ANY: &str = "http://any/";
    let proxy = Matcher::builder().all(url).build().intercept(&Uri::from_static(ANY));
    let proxy = proxy.filter(|proxy| matches!(proxy.uri().scheme_str(), Some("http" | "https" | "socks5" | "socks5h")));
    let proxy =
        proxy.ok_or("is not the URL of a proxy, which begins with http://, https://, socks5:// or socks5h://")?;
    let authority = proxy.uri().authority().ok_or("has no host")?;
    // What is behind the first one would be taken for a part of the host's name, and be shown.
    if authority.as_str().contains('@') {
        return Err("has an @ in its user or password, where it has to be %40");
    }
    endpoint::check(authority)?;
    if proxy.raw_auth().is_some_and(|(user, password)| user.len().max(password.len()) > MAX_SOCKS_AUTH) {
        return Err("has a user or password of more than 255 bytes, which SOCKS5 cannot have");
    }
    Ok(proxy)
}

/// The longest user and password that SOCKS5 has room for, in bytes (RFC 1929).
const MAX_SOCKS_AUTH: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    const HTTPS: &str = "https://gateway.example/x";
    const HTTP: &str = "http://gateway.example/x";

    /// The proxy that these variables name, as `NAME=VALUE`.
    fn found(server: &str, variables: &[&str]) -> Result<Option<String>, String> {
        let lookup = |name: &str| {
            variables
                .iter()
                .find_map(|pair| pair.split_once('=').filter(|(is, _)| *is == name))
                .map(|(_, to)| to.into())
        };
        let server = server.parse().unwrap();
        ProxyChoice::Environment.proxy(&server, lookup).map(|proxy| proxy.map(|proxy| proxy.uri().to_string()))
    }

    #[test]
    fn a11_the_environment_names_proxies_as_for_curl() {
        let table: &[(&str, &[&str], Option<&str>)] = &[
            (HTTPS, &[], None),
            (HTTPS, &["HTTPS_PROXY=http://p:1"], Some("http://p:1/")),
            (HTTPS, &["https_proxy=http://q:1", "HTTPS_PROXY=http://p:1"], Some("http://q:1/")),
            (HTTPS, &["HTTP_PROXY=http://p:1", "http_proxy=http://p:1"], None),
            (HTTPS, &["ALL_PROXY=socks5h://p:1"], Some("socks5h://p:1/")),
            (HTTPS, &["all_proxy=socks5://q:1", "ALL_PROXY=http://p:1"], Some("socks5://q:1/")),
            (HTTPS, &["HTTPS_PROXY=p:3128", "ALL_PROXY=http://q:1"], Some("http://p:3128/")),
            (HTTPS, &["HTTPS_PROXY=", "ALL_PROXY=http://q:1"], Some("http://q:1/")),
            (HTTP, &["http_proxy=http://p:1"], Some("http://p:1/")),
            (HTTP, &["HTTP_PROXY=https://p"], Some("https://p/")),
            (HTTP, &["HTTP_PROXY=http://p:1", "REQUEST_METHOD=GET"], None),
            (HTTP, &["http_proxy=http://p:1", "REQUEST_METHOD=GET"], Some("http://p:1/")),
            (HTTP, &["HTTPS_PROXY=http://p:1"], None),
            ("wss://h", &["HTTPS_PROXY=http://p:1", "NO_PROXY=g"], Some("http://p:1/")),
            ("ws://h", &["HTTP_PROXY=http://p:1", "NO_PROXY=g"], Some("http://p:1/")),
            ("wss://h", &["HTTPS_PROXY=http://p:1", "NO_PROXY=h"], None),
        ];
        for (server, variables, expected) in table {
            assert_eq!(found(server, variables).unwrap().as_deref(), *expected, "{variables:?}");
        }
    }

    #[test]
    fn hosts_in_no_proxy_are_reached_directly() {
        let table = [
            ("NO_PROXY=gateway.example", true),
            ("no_proxy=gateway.example", true),
            ("NO_PROXY=other, .example", true),
            ("NO_PROXY=example", true),
            ("NO_PROXY=*", true),
            ("NO_PROXY=ateway.example,10.0.0.0/8", false),
            ("NO_PROXY=", false),
        ];
        for (no, direct) in table {
            let proxy = found(HTTPS, &["HTTPS_PROXY=http://p:1", no]).unwrap();
            assert_eq!(proxy.is_none(), direct, "{no}");
            // What is not used is not looked at.
            assert_eq!(found(HTTPS, &["HTTPS_PROXY=nonsense://", no]).is_ok(), direct, "{no}");
        }
        let numbered = "https://10.1.2.3:8443/";
        assert_eq!(found(numbered, &["ALL_PROXY=p", "NO_PROXY=10.0.0.0/8"]), Ok(None));
        assert!(found(numbered, &["ALL_PROXY=p", "NO_PROXY=10.1.2.4,11.0.0.0/8"]).unwrap().is_some());
        assert_eq!(found(numbered, &["ALL_PROXY=p", "NO_PROXY=*"]), Ok(None));
    }

    #[test]
    fn a_setting_stands_above_the_environment() {
        let lookup = |_: &str| Some("http://p:1".to_owned());
        assert!(ProxyChoice::Direct.proxy(&Uri::from_static(HTTPS), lookup).unwrap().is_none());
        let proxy =
            ProxyChoice::Url("socks5://user:p%40ss@q".into()).proxy(&Uri::from_static(HTTPS), lookup).unwrap().unwrap();
        assert_eq!((proxy.uri().to_string().as_str(), proxy.raw_auth()), ("socks5://q/", Some(("user", "p@ss"))));
        let proxy = ProxyChoice::Url("http://Aladdin:open%20sesame@q".into())
            .proxy(&Uri::from_static(HTTP), lookup)
            .unwrap()
            .unwrap();
        assert_eq!(proxy.basic_auth().unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }

    #[test]
    fn what_is_no_proxy_is_told_and_not_shown() {
        let long = format!("socks5://u:{}@p", "x".repeat(256));
        let hunter = [
            "ftp://u:hunter2@p",
            "socks4://hunter2@p",
            "http://hunter2@",
            "http://u:p@hunter2@p:3128",
            "socks5://u:p@hunter2@p",
            "http://p:99999",
            "http://p:0",
            "//",
        ];
        for url in hunter.into_iter().chain(["hunter2 at home", "", &long]) {
            let why = ProxyChoice::Url(url.into()).proxy(&Uri::from_static(HTTPS), |_| None).unwrap_err();
            assert!(!why.contains("hunter2") && !why.is_empty(), "{url}: {why}");
        }
        let why = found(HTTPS, &["HTTPS_PROXY=ftp://u:hunter2@p"]).unwrap_err();
        assert!(why.starts_with("HTTPS_PROXY ") && !why.contains("hunter2"), "{why}");
        assert_eq!(format!("{:?}", ProxyChoice::Url("http://u:hunter2@p".into())), "Url(..)");
    }

    #[test]
    fn the_url_of_a_proxy_shows_its_credentials_to_who_asks_for_them_and_in_no_output() {
        let table = [
            ("http://user:hunter2@p:3128", "http://p:3128"),
            ("https://hunter2@[::1]", "https://[::1]"),
            ("socks5h://user:hunter2%40@p/", "socks5h://p"),
            ("user:hunter2@p:1", "http://p:1"),
        ];
        for (set, shown) in table {
            let url = ProxyChoice::Url(set.into()).url_for(&Uri::from_static(HTTPS)).unwrap().unwrap();
            assert_eq!((url.to_string().as_str(), url.with_credentials()), (shown, set));
            let debug = format!("ProxyUrl({shown})");
            assert_eq!([format!("{url:?}"), format!("{url:#?}")], [debug.clone(), debug]);
        }
    }
}

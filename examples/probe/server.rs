//! The server's URL, and the places below it.

use std::{fmt, str::FromStr};

use http::{Uri, uri::InvalidUri};
use revdial::{AgentKey, TargetName};

/// Where agents dial in, below the server's base.
const ENDPOINT: &str = "/api/v1/revdial";

/// A server: scheme, host, port and the path in front of everything.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) is_tls: bool,
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    authority: String,
    base: String,
}

impl Server {
    /// Host and port as in the URL, for `Host`.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Host and port, also where the URL leaves the port out.
    pub(crate) fn host_and_port(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The path where agents dial in, with their key.
    pub(crate) fn endpoint(&self, key: Option<&AgentKey>) -> String {
        let query = key.map_or_else(String::new, |key| format!("?runnerid={key}"));
        format!("{}{ENDPOINT}{query}", self.base)
    }

    /// The path by which the gateway reaches a target of a key.
    pub(crate) fn through(&self, key: &AgentKey, target: &TargetName, path: &str) -> String {
        let target = if target.is_default() { String::new() } else { format!("{target}~") };
        format!("{}/proxy/{target}{key}{path}", self.base)
    }

    /// The path of one of the gateway's own routes.
    pub(crate) fn route(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The URL of a path, to be read.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", if self.is_tls { "https" } else { "http" }, self.authority)
    }

    /// The server's URL, for connectors and matchers.
    pub(crate) fn uri(&self) -> Result<Uri, InvalidUri> {
        self.url("/").parse()
    }

    /// The URL of a path as a WebSocket's.
    pub(crate) fn websocket(&self, path: &str) -> Result<Uri, InvalidUri> {
        format!("{}://{}{path}", if self.is_tls { "wss" } else { "ws" }, self.authority).parse()
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url(&self.base))
    }
}

/// The rules are the agent's; neither a password nor a query is shown in what is said about them.
impl FromStr for Server {
    type Err = &'static str;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let uri: Uri = url.parse().map_err(|_| "not a URL")?;
        let is_tls = match uri.scheme_str().map(str::to_ascii_lowercase).as_deref() {
            Some("http" | "ws") => false,
            Some("https" | "wss") => true,
            _ => return Err("a URL begins with http://, https://, ws:// or wss://"),
        };
        let authority = uri.authority().ok_or("no host")?.as_str();
        if authority.contains('@') {
            return Err("no user name or password belongs there; use a token");
        }
        let host = uri.host().unwrap_or_default();
        if host.is_empty() || (uri.port().is_none() && authority != host) || uri.port_u16() == Some(0) {
            return Err("no host, or a port that is not a number from 1 to 65535");
        }
        if uri.query().is_some() {
            return Err("no query belongs there");
        }
        let path = uri.path().trim_end_matches('/');
        Ok(Self {
            is_tls,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            authority: authority.to_owned(),
            base: path.strip_suffix(ENDPOINT).unwrap_or(path).to_owned(),
        })
    }
}

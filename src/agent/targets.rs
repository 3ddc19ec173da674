//! What a forwarding agent lets callers reach: an allow-list of names, each with a local address.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use super::allowed::Allowed;
use crate::{
    error::{Error, ErrorKind},
    key::{InvalidName, TargetName},
};

/// The allow-list of a forwarding agent: target names, each with the local address behind it.
///
/// What is not named is refused with [`ErrorKind::TargetUnknown`] on the caller's side.
///
/// A stream that fails is a reset for a TCP service, so that it does not take what it got for whole. A unix socket has
/// no reset: there a failure is a plain close, and a service has to know by its own protocol what is whole.
///
/// ```
/// use revdial::agent::Targets;
///
/// let targets = Targets::parse(["127.0.0.1:8080", "vnc=127.0.0.1:5900", "docker=unix:///run/docker.sock"])?;
/// assert_eq!(targets.len(), 3);
///
/// // Two addresses for one name are a mistake, not a choice.
/// assert!(Targets::parse(["a=127.0.0.1:1", "a=127.0.0.1:2"]).is_err());
/// # Ok::<(), revdial::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    addresses: BTreeMap<TargetName, Address>,
    allowed: Allowed,
}

/// Where a target is: a TCP port or a unix socket.
///
/// As text, `HOST:PORT` (an IPv6 address in brackets) or `unix:///PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// A host name or IP address, and a port. Names are looked up at each connect.
    Tcp {
        /// The host, an IPv6 address without its brackets.
        host: String,
        /// The port; not 0.
        port: u16,
    },
    /// The absolute path of a unix socket.
    Unix(PathBuf),
}

/// A target that cannot be, and why.
#[derive(Debug)]
struct InvalidTarget {
    text: String,
    why: String,
}

impl Targets {
    /// An allow-list that allows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads an allow-list from texts of the form `[NAME=]ADDRESS`; without a name it is the default target.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], whose source names the text and the fault: a name or address that cannot be, a
    /// name given twice, or no target at all.
    pub fn parse<I, S>(texts: I) -> Result<Self, Error>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let mut targets = Self::new();
        for text in texts {
            let text = text.as_ref();
            let (name, address) = split_name(text).map_err(|why| invalid(text, why))?;
            let name: TargetName = name.parse().map_err(|why: InvalidName| invalid(text, why.to_string()))?;
            let address = Address::read(address).map_err(|why| invalid(text, why))?;
            targets = targets.with(name, address)?;
        }
        if targets.is_empty() { Err(invalid("", "at least one target is needed")) } else { Ok(targets) }
    }

    /// Adds a target.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the name has an address already.
    pub fn with(mut self, name: TargetName, address: Address) -> Result<Self, Error> {
        if self.addresses.contains_key(&name) {
            return Err(invalid(&name.to_string(), "the target is given twice"));
        }
        self.addresses.insert(name, address);
        Ok(self)
    }

    /// Dials only the addresses that `allowed` takes, and refuses others with [`ErrorKind::TargetDenied`]. Default all.
    ///
    /// It is asked at each connect with the very address that is dialled then, so that a host name which comes to mean
    /// another machine opens no other door. Unix sockets are none of its matters. It must not block. One that panics
    /// takes no address, and is counted in `revdial_callback_failures_total`.
    ///
    /// ```
    /// use revdial::agent::Targets;
    ///
    /// let targets = Targets::parse(["db=db.example:5432"])?.allow(|address| address.port() == 5432);
    /// # Ok::<(), revdial::Error>(())
    /// ```
    #[must_use]
    pub fn allow(mut self, allowed: impl Fn(SocketAddr) -> bool + Send + Sync + 'static) -> Self {
        self.allowed = Allowed::by(allowed);
        self
    }

    /// Whether this address may be dialled.
    pub(crate) fn allows(&self, address: SocketAddr) -> bool {
        self.allowed.has(address)
    }

    /// The address behind a name.
    #[must_use]
    pub fn get(&self, name: &TargetName) -> Option<&Address> {
        self.addresses.get(name)
    }

    /// How many targets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether nothing is allowed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }
}

impl Address {
    fn read(text: &str) -> Result<Self, &'static str> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::read_unix(path);
        }
        if text.contains("://") {
            return Err("an address is host:port or unix:///path, without a scheme such as http://");
        }
        let (host, port) =
            text.rsplit_once(':').ok_or("the port is missing; an address is host:port or unix:///path")?;
        let port: u16 = port.parse().map_err(|_| "the port is not a number from 1 to 65535")?;
        if port == 0 {
            return Err("the port is not a number from 1 to 65535");
        }
        let bare = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) if address.parse::<std::net::Ipv6Addr>().is_ok() => address,
            Some(_) => return Err("what stands in brackets is not an IPv6 address"),
            None if host.contains(':') => return Err("an IPv6 address stands in brackets: [::1]:80"),
            None => host,
        };
        if bare.is_empty() {
            return Err("the host is empty");
        }
        if bare.chars().any(|c| c.is_whitespace() || c.is_control() || "/\\@?#[]=".contains(c)) {
            return Err("the host has a character that a host cannot have");
        }
        Ok(Self::Tcp { host: bare.to_owned(), port })
    }

    #[cfg(unix)]
    fn read_unix(path: &str) -> Result<Self, &'static str> {
        let path = path.strip_prefix("//").ok_or("a unix socket is written unix:///path")?;
        if !path.starts_with('/') || path.len() < 2 {
            return Err("the path of a unix socket is absolute: unix:///path");
        }
        // The operating system has a short bound for these paths, and would only tell at the first stream.
        std::os::unix::net::SocketAddr::from_pathname(path).map_err(|_| "the path is too long for a unix socket")?;
        Ok(Self::Unix(path.into()))
    }

    #[cfg(not(unix))]
    fn read_unix(_: &str) -> Result<Self, &'static str> {
        Err("there are no unix sockets on this system")
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::read(text).map_err(|why| invalid(text, why))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// The name and the address in `[NAME=]ADDRESS`. A path may have a `=` of its own.
fn split_name(text: &str) -> Result<(&str, &str), &'static str> {
    match text.split_once('=') {
        Some(("", _)) => Err("the name before the '=' is empty; the default target is written without '='"),
        Some((name, address)) if !name.starts_with("unix:") => Ok((name, address)),
        _ => Ok(("", text)),
    }
}

fn invalid(text: &str, why: impl Into<String>) -> Error {
    Error::with_source(ErrorKind::InvalidInput, InvalidTarget { text: text.to_owned(), why: why.into() })
}

impl fmt::Display for InvalidTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "target {:?}: {}", self.text, self.why)
    }
}

impl std::error::Error for InvalidTarget {}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.into(), port }
    }

    #[test]
    fn texts_that_name_a_target_are_read() {
        let table = [
            ("127.0.0.1:80", "", tcp("127.0.0.1", 80)),
            ("localhost:65535", "", tcp("localhost", 65535)),
            ("[::1]:80", "", tcp("::1", 80)),
            ("vnc=localhost:5900", "vnc", tcp("localhost", 5900)),
            ("VNC=localhost:5900", "vnc", tcp("localhost", 5900)),
            ("9876=127.0.0.1:9876", "9876", tcp("127.0.0.1", 9876)),
            ("unix:///run/a.sock", "", Address::Unix("/run/a.sock".into())),
            ("unix:///run/a=b.sock", "", Address::Unix("/run/a=b.sock".into())),
            ("x=unix:///run/a=b.sock", "x", Address::Unix("/run/a=b.sock".into())),
        ];
        for (text, name, address) in table {
            let targets = Targets::parse([text]).unwrap();
            assert_eq!(targets.get(&name.parse().unwrap()), Some(&address), "{text}");
            assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }
    }

    #[test]
    fn texts_that_name_none_are_refused_and_quoted() {
        let table = [
            ("", "port is missing"),
            ("8080", "port is missing"),
            ("localhost", "port is missing"),
            (":80", "host is empty"),
            ("localhost:", "port is not a number"),
            ("localhost:0", "port is not a number"),
            ("localhost:65536", "port is not a number"),
            ("::1:80", "brackets"),
            ("[localhost]:80", "brackets"),
            ("a b:80", "character"),
            ("user@host:80", "character"),
            ("http://localhost:80", "scheme"),
            ("=localhost:80", "empty"),
            ("my_target=localhost:80", "target has a character"),
            ("unix:/run/a.sock", "unix:///path"),
            ("unix://run/a.sock", "absolute"),
            ("unix:///", "absolute"),
        ];
        for (text, why) in table {
            let error = Targets::parse([text]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
            let told = error.source().unwrap().to_string();
            assert!(told.contains(why) && told.contains(text), "{text}: {told}");
        }
        assert!(Targets::parse([format!("unix:///{}", "a".repeat(200))]).is_err());
        assert!(Targets::parse::<[&str; 0], _>([]).is_err());
    }

    #[test]
    fn a_name_given_twice_is_refused() {
        for texts in [["localhost:1", "localhost:2"], ["a=localhost:1", "A=localhost:1"]] {
            assert_eq!(Targets::parse(texts).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }
}

//! What a URI means: the key and the target that its host names. No IO, no clock.

use http::Uri;

use crate::{
    error::{Error, ErrorKind},
    key::{AgentKey, TargetName},
};

/// What stands between a target's name and its key.
const SEPARATOR: char = '~';

/// Whom to dial and what to reach there.
///
/// | URI | key | target |
/// |---|---|---|
/// | `http://desktop-7/…` | `desktop-7` | the default one |
/// | `http://vnc~desktop-7/…` | `desktop-7` | `vnc` |
/// | `http://desktop-7:9876/…` | `desktop-7` | `9876` |
///
/// Both names are folded to lower case. The scheme does not matter. A port is a name here, so `http://desktop-7:80`
/// reaches the target named `80`.
///
/// ```
/// use revdial::{ErrorKind, connector::Target};
///
/// let target = Target::of(&"http://VNC~Desktop-7/index.html".parse()?)?;
/// assert_eq!((target.key().as_str(), target.target().as_str()), ("desktop-7", "vnc"));
///
/// let error = Target::of(&"http://user@desktop-7/".parse()?).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidInput);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    key: AgentKey,
    target: TargetName,
}

impl Target {
    /// This target of this key's agent.
    #[must_use]
    pub const fn new(key: AgentKey, target: TargetName) -> Self {
        Self { key, target }
    }

    /// What the authority of a URI names, in the ways of the table above.
    ///
    /// # Errors
    /// `InvalidInput` when there is no authority, when it has user information, a port that is no port, a target
    /// both in front of `~` and as a port, or a name that cannot be.
    pub fn of(uri: &Uri) -> Result<Self, Error> {
        let authority = uri.authority().ok_or_else(|| invalid("the URI has no host"))?.as_str();
        if authority.contains('@') {
            return Err(invalid("the URI has user information"));
        }
        // By hand: `Uri::host` gives `a` for `http://a:b/`, and so a dial to somebody else.
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port_name(port)?)),
            None => (authority, None),
        };
        let (target, key) = match (host.split_once(SEPARATOR), port) {
            (Some(_), Some(_)) => return Err(invalid("the URI names a target twice, before the key and as its port")),
            (Some(("", _)), None) => return Err(invalid("the URI has an empty target")),
            (Some((target, key)), None) => (name(target)?, key),
            (None, Some(port)) => (name(&port)?, host),
            (None, None) => (TargetName::default(), host),
        };
        let key = key.parse().map_err(|error| Error::with_source(ErrorKind::InvalidInput, error))?;
        Ok(Self { key, target })
    }

    /// Whom to dial.
    #[must_use]
    pub fn key(&self) -> &AgentKey {
        &self.key
    }

    /// What to reach there.
    #[must_use]
    pub fn target(&self) -> &TargetName {
        &self.target
    }
}

/// The name of the target that a port stands for: its number, without leading zeros.
fn port_name(port: &str) -> Result<String, Error> {
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()); // parse would take a sign
    match port.parse::<u16>() {
        Ok(number) if digits => Ok(number.to_string()),
        _ => Err(invalid("the port of the URI is no port")),
    }
}

fn name(target: &str) -> Result<TargetName, Error> {
    target.parse().map_err(|error| Error::with_source(ErrorKind::InvalidInput, error))
}

fn invalid(why: &'static str) -> Error {
    Error::with_source(ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uri: &str) -> Result<(String, String), ErrorKind> {
        let target = Target::of(&uri.parse().unwrap()).map_err(|error| error.kind())?;
        Ok((target.key.as_str().to_owned(), target.target.as_str().to_owned()))
    }

    #[test]
    fn names_are_found_and_folded() {
        for (uri, key, target) in [
            ("http://desktop-7/", "desktop-7", ""),
            ("https://Desktop-7", "desktop-7", ""),
            ("http://VNC~Desktop-7/x?y", "desktop-7", "vnc"),
            ("http://desktop-7:9876/", "desktop-7", "9876"),
            ("http://desktop-7:080/", "desktop-7", "80"),
            ("ws://a.b_c", "a.b_c", ""),
            ("desktop-7:1", "desktop-7", "1"),
        ] {
            assert_eq!(of(uri), Ok((key.to_owned(), target.to_owned())), "{uri}");
        }
    }

    #[test]
    fn the_error_names_what_is_wrong() {
        for (uri, wrong) in [("http://user@a/", "user information"), ("http://a:b/", "port"), ("http://a_/", "key")] {
            let error = Target::of(&uri.parse().unwrap()).unwrap_err();
            assert!(std::error::Error::source(&error).unwrap().to_string().contains(wrong), "{uri}: {error:?}");
        }
    }

    #[test]
    fn what_is_ambiguous_is_an_error_and_no_dial() {
        for uri in [
            "/path",
            "http://user@desktop-7/",
            "http://user:password@desktop-7/",
            "http://desktop-7:/",
            "http://desktop-7:b/",
            "http://tenant:desktop-7/",
            "http://desktop-7:65536/",
            "http://desktop-7:99999999999999999999/",
            "http://vnc~desktop-7:80/",
            "http://~desktop-7/",
            "http://vnc~/",
            "http://a~b~c/",
            "http://vnc_~desktop-7/",
            "http://10.0.0.1/",
            "http://[::1]/",
            "http://[::1]:80/",
            "http://-a/",
        ] {
            assert_eq!(of(uri), Err(ErrorKind::InvalidInput), "{uri}");
        }
    }
}

//! Names and numbers that every floor shares: who a tunnel belongs to, what it reaches, which link is newer.

use std::{fmt, str::FromStr, sync::Arc};

/// The longest key, in bytes: what fits behind a target and a `~` in one DNS-like name of 253 bytes.
const MAX_KEY: usize = 128;

/// The longest target name, in bytes: one DNS label.
const MAX_TARGET: usize = 63;

/// Who a tunnel belongs to: the name of an agent on the server.
///
/// Lower-cased when it is made, since hyper's pools compare hosts without regard to case and two keys that differ
/// only there would share connections. Allowed is `[a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?` whose last dot-part is
/// not a number, because URL parsers turn such hosts into IPv4 addresses.
///
/// Cheap to clone.
///
/// ```
/// use revdial::AgentKey;
///
/// let key: AgentKey = "Desktop-7".parse()?;
/// assert_eq!(key.as_str(), "desktop-7");
/// assert!("10.0.0.1".parse::<AgentKey>().is_err());
/// assert!("a:b".parse::<AgentKey>().is_err());
/// # Ok::<(), revdial::InvalidName>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentKey(Arc<str>);

impl AgentKey {
    /// The key as text, lower-cased.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AgentKey {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = |why| Err(InvalidName { what: "key", why });
        if text.is_empty() {
            return invalid("is empty");
        }
        if text.len() > MAX_KEY {
            return invalid("is longer than 128 bytes");
        }
        let key = text.to_ascii_lowercase();
        if !key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b)) {
            return invalid("has a character other than letters, digits, '.', '_' and '-'");
        }
        if !key.starts_with(|c: char| c.is_ascii_alphanumeric()) || !key.ends_with(|c: char| c.is_ascii_alphanumeric())
        {
            return invalid("does not begin and end with a letter or digit");
        }
        if key.rsplit('.').next().is_some_and(is_number) {
            return invalid("ends in a number, which URL parsers take for an address");
        }
        Ok(Self(key.into()))
    }
}

/// What the WHATWG URL standard takes for a number at the end of a host: digits, or `0x` and hex digits.
fn is_number(part: &str) -> bool {
    let hex = part.strip_prefix("0x");
    hex.map_or_else(|| part.bytes().all(|b| b.is_ascii_digit()), |digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl fmt::Display for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// What a stream reaches behind an agent: the name of one of its targets, or the default one.
///
/// Allowed is `[a-z0-9-]{1,63}`, lower-cased when it is made; the empty name is the default target.
///
/// ```
/// use revdial::TargetName;
///
/// let vnc: TargetName = "VNC".parse()?;
/// assert_eq!(vnc.as_str(), "vnc");
/// assert_eq!(TargetName::default().as_str(), "");
/// assert!("my_target".parse::<TargetName>().is_err());
/// # Ok::<(), revdial::InvalidName>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetName(
    /// None for the default target, so that no memory is asked for it. A text that is there is not empty.
    Option<Arc<str>>,
);

impl TargetName {
    /// The name as text; empty for the default target.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether this is the default target.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.0.is_none()
    }
}

impl FromStr for TargetName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = |why| Err(InvalidName { what: "target", why });
        if text.len() > MAX_TARGET {
            return invalid("is longer than 63 bytes");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return invalid("has a character other than letters, digits and '-'");
        }
        Ok(Self((!text.is_empty()).then(|| text.to_ascii_lowercase().into())))
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_default() { "(default)" } else { self.as_str() })
    }
}

impl fmt::Debug for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A text that cannot be a key or a target name, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidName {
    what: &'static str,
    why: &'static str,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} {}", self.what, self.why)
    }
}

impl std::error::Error for InvalidName {}

/// The number that the server gives a link when it answers 101: never sent, and rising for each key.
///
/// What an older link has to say about a newer one (a late HELLO, a loss) is told by it and ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch with this number. Numbers have no meaning but their order.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number of this epoch.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_a_uri_can_carry_are_allowed() {
        let longest = "a".repeat(128);
        for key in ["a", "7x", "desktop-ses_x", "a.b", "A-B.c9x", "1.2.x3", longest.as_str()] {
            assert!(key.parse::<AgentKey>().is_ok(), "{key}");
        }
    }

    #[test]
    fn keys_that_a_uri_would_change_are_refused() {
        let too_long = "a".repeat(129);
        for key in [
            "", "-a", "a-", "a.", "_a", "a b", "a:b", "a@b", "a/b", "ä", "10.0.0.1", "a.0x1f", "x.7", "7", "0x", "a~b",
            &too_long,
        ] {
            assert!(key.parse::<AgentKey>().is_err(), "{key}");
        }
    }
}

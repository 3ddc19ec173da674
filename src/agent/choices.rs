//! What an agent speaks with its server, as its user chooses.

use std::{error::Error as StdError, fmt, str::FromStr};

/// Which protocol an agent speaks. From text: `auto`, `native` or `dialback`.
///
/// ```
/// use revdial::agent::ProtocolChoice;
///
/// assert_eq!("auto".parse(), Ok(ProtocolChoice::default()));
/// assert!("http".parse::<ProtocolChoice>().is_err());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProtocolChoice {
    /// The native one if the server does, else [dial-back](crate::dialback), on the same connection.
    #[default]
    Auto,
    /// The native one only: a server that does not speak it is refused, slowly and loudly.
    Native,
    /// Dial-back only.
    Dialback,
}

/// A text that names no [`ProtocolChoice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownProtocol;

/// Over which version of HTTP an agent asks for its WebSockets. From text: `1.1` or `2`.
///
/// ```
/// use revdial::agent::HttpVersion;
///
/// assert_eq!("1.1".parse(), Ok(HttpVersion::default()));
/// assert_eq!("2".parse(), Ok(HttpVersion::Http2));
/// assert!("3".parse::<HttpVersion>().is_err());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HttpVersion {
    /// HTTP/1.1, by `GET` and `Upgrade`: what every server takes.
    #[default]
    Http1,
    /// HTTP/2, by extended `CONNECT` (RFC 8441), each WebSocket on a connection of its own: for ways on which HTTP/1.1 does
    /// not pass.
    ///
    /// TLS agrees on HTTP/2 by ALPN; with a server that does not, the agent falls back to HTTP/1.1 on the same connection.
    /// With one that does and whose HTTP/2 then offers no extended `CONNECT`, which takes 5 s to be sure of, it falls back to
    /// HTTP/1.1 on another connection of the same attempt. It says so at `warn`, and asks that server by HTTP/1.1 at once
    /// until an attempt fails.
    ///
    /// Without TLS, or by a connector that is given, the server has to expect HTTP/2 at once. There, and where it speaks
    /// nothing else, one without extended `CONNECT` is refused with [`ErrorKind::Version`](crate::ErrorKind::Version), slowly
    /// and loudly.
    Http2,
}

/// A text that names no [`HttpVersion`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownHttpVersion;

impl FromStr for ProtocolChoice {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        match text {
            "auto" => Ok(Self::Auto),
            "native" => Ok(Self::Native),
            "dialback" => Ok(Self::Dialback),
            _ => Err(UnknownProtocol),
        }
    }
}

impl FromStr for HttpVersion {
    type Err = UnknownHttpVersion;

    fn from_str(text: &str) -> Result<Self, UnknownHttpVersion> {
        match text {
            "1.1" => Ok(Self::Http1),
            "2" => Ok(Self::Http2),
            _ => Err(UnknownHttpVersion),
        }
    }
}

impl fmt::Display for UnknownProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is none of auto, native, dialback")
    }
}

impl fmt::Display for UnknownHttpVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is neither 1.1 nor 2")
    }
}

impl StdError for UnknownProtocol {}

impl StdError for UnknownHttpVersion {}

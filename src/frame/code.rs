//! The numbers by which sides say why: close codes of sessions and links, reset codes of streams.

use std::fmt;

/// Why a session or a link is closed: a WebSocket close code, with the meanings that the protocol gives them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(u16);

macro_rules! codes {
    ($type:ident { $($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)* }) => {
        impl $type {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// The code with this number, known or not.
            #[must_use]
            pub const fn new(number: u16) -> Self {
                Self(number)
            }

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u16 {
                self.0
            }

            /// What the code means, in words; `None` for one that this version does not know.
            #[must_use]
            pub const fn meaning(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($text),)*
                    _ => None,
                }
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.meaning() {
                    Some(text) => write!(f, "{} ({text})", self.0),
                    None => write!(f, "{}", self.0),
                }
            }
        }
    };
}

codes!(CloseCode {
    /// An orderly end.
    NORMAL = 1000, "closed";
    /// The peer goes down after a drain.
    DRAINED = 1001, "drained";
    /// Bytes that do not parse.
    MALFORMED = 1002, "bytes that do not parse";
    /// A text message.
    TEXT = 1003, "text message";
    /// A control line of the dial-back protocol that is none; `revdial.v1` has no use for it.
    INVALID_DATA = 1007, "invalid data";
    /// The agent is not allowed here.
    POLICY = 1008, "policy";
    /// A message over the limit.
    TOO_BIG = 1009, "too big";
    /// The peer failed inside.
    INTERNAL = 1011, "internal error";
    /// The server restarts.
    RESTART = 1012, "restart";
    /// The server asks to try later.
    TRY_LATER = 1013, "try again later";
    /// Credentials that are not, or no longer, valid.
    CREDENTIALS = 4401, "credentials";
    /// The key, or the session, belongs to another principal.
    FOREIGN = 4403, "key not yours";
    /// Nothing was heard for the dead-peer time.
    DEAD_PEER = 4408, "dead peer";
    /// A late attempt, or a link older than the bound one.
    STALE = 4409, "stale";
    /// Another agent has taken the key.
    REPLACED = 4410, "replaced";
    /// The key is in use and the policy rejects a second agent.
    IN_USE = 4411, "key in use";
    /// Over a budget of the server.
    OVER_BUDGET = 4413, "over budget";
    /// A frame that parses but is forbidden where it stands.
    FORBIDDEN = 4420, "forbidden frame";
    /// Data beyond the credit.
    CREDIT = 4421, "data beyond the credit";
    /// No common version.
    VERSION = 4426, "version";
    /// A flood.
    FLOOD = 4429, "flood";
});

/// Why one stream is reset or stopped.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResetCode(u16);

codes!(ResetCode {
    /// The side that resets gave the stream up.
    CANCELLED = 1, "cancelled";
    /// The agent has no target of this name.
    TARGET_UNKNOWN = 2, "no such target";
    /// The agent does not allow this target.
    TARGET_DENIED = 3, "target not allowed";
    /// The local service refused the connection.
    TARGET_REFUSED = 4, "connection refused";
    /// The local service did not answer the connect.
    TARGET_TIMEOUT = 5, "target did not answer";
    /// More streams, or more unanswered opens, than the agent takes.
    TOO_MANY_STREAMS = 6, "too many streams";
    /// The local service reset its connection.
    TARGET_RESET = 7, "target reset the connection";
    /// The side that resets failed inside.
    INTERNAL = 8, "internal error";
    /// The side that resets goes down.
    SHUTDOWN = 9, "shutting down";
});

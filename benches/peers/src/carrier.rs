//! What is compared: ways to carry streams from a server to an agent.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What carries the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Carrier {
    /// Ours, with the defaults of both ends.
    Native,
    /// Ours, with the bounds for bytes in flight and unread raised to 256 MiB, of all streams and of each.
    NativeWide,
    /// Ours, with a policy that keeps nothing for replay.
    NativeNoGrace,
    /// Ours at both ends, in the dial-back protocol.
    Dialback,
    /// A TCP connection for each stream, to a port of the agent: as if there were no need for a tunnel.
    Tcp,
    /// A TCP connection with a WebSocket handshake for each stream, likewise, and then the least framing; no control link:
    /// what dial-back cannot do without.
    Upgraded,
    /// The messages of one tungstenite WebSocket, with its defaults: as if one stream were enough.
    Raw,
    /// The least that a multiplexer over a WebSocket can do, which is no product: what bounds the goals of ours.
    Bare,
    /// The same with windows of 256 MiB, for long links.
    BareWide,
    /// The `yamux` crate over TCP.
    YamuxTcp,
    /// The `yamux` crate over the messages of a tungstenite WebSocket.
    YamuxWebSocket,
    /// The `h2` crate over a TCP connection that the agent dials and on which the server is the client.
    H2,
}

use Carrier::{
    Bare, BareWide, Dialback, H2, Native, NativeNoGrace, NativeWide, Raw, Tcp, Upgraded, YamuxTcp, YamuxWebSocket,
};

impl Carrier {
    /// Those with streams, in the order of the tables; variants of ours and [`Raw`] are added where they tell something.
    pub(crate) const STREAMS: [Self; 6] = [Native, Dialback, Tcp, YamuxTcp, YamuxWebSocket, H2];

    pub(crate) const ALL: [Self; 12] =
        [Native, NativeWide, NativeNoGrace, Dialback, Tcp, Upgraded, Raw, Bare, BareWide, YamuxTcp, YamuxWebSocket, H2];

    /// For tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Native => "native",
            NativeWide => "native, bounds of 256 MiB",
            NativeNoGrace => "native, no grace",
            Dialback => "dial-back",
            Tcp => "plain TCP",
            Upgraded => "a WebSocket a stream",
            Raw => "raw tungstenite",
            Bare => "a bare mux",
            BareWide => "a bare mux, windows of 256 MiB",
            YamuxTcp => "yamux over TCP",
            YamuxWebSocket => "yamux over tungstenite",
            H2 => "h2, reversed",
        }
    }

    /// For the command line of a side, which its users do not see.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Native => "native",
            NativeWide => "native-wide",
            NativeNoGrace => "native-no-grace",
            Dialback => "dial-back",
            Tcp => "tcp",
            Upgraded => "upgraded",
            Raw => "raw",
            Bare => "bare",
            BareWide => "bare-wide",
            YamuxTcp => "yamux-tcp",
            YamuxWebSocket => "yamux-websocket",
            H2 => "h2",
        }
    }

    /// Whether the server dials the agent, and not the agent the server.
    pub(crate) fn is_dialled_by_server(self) -> bool {
        matches!(self, Tcp | Upgraded)
    }
}

impl FromStr for Carrier {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|carrier| carrier.word() == word).ok_or_else(|| format!("no carrier: {word}").into())
    }
}

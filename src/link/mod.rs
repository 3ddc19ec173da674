//! One WebSocket, and nothing about tunnels.
//!
//! - `handshake`: what both ends of the opening handshake must agree on.
//! - `upgrade`: the server's end of it, `client` the agent's; over HTTP/1.1, and over HTTP/2 by extended `CONNECT`.
//! - `challenge`: how a client knows a WebSocket server over HTTP/1.1.
//! - `messages`: whole binary messages once it is done, over `framed`, our framing, with `header`, `close`, and `inbound`
//!   and `outbound` for its buffers.
//! - `wire`: the byte stream below.
//! - `bytes`: one read and written as a byte stream, whatever the borders of its messages.
//! - `error`: why a link stopped.
//! - `differential`: for tests and fuzzing, whether our framing and the WebSocket library's agree, on a `pipe` that has no
//!   peer. Else of that library there is the key arithmetic of the handshake alone.

mod bytes;
#[cfg(any(feature = "agent", feature = "proxy"))]
mod challenge;
#[cfg(feature = "agent")]
mod client;
mod close;
#[cfg(any(test, fuzzing))]
mod differential;
mod error;
mod framed;
mod handshake;
mod header;
mod inbound;
mod messages;
mod outbound;
#[cfg(any(test, fuzzing))]
mod pipe;
#[cfg(feature = "server")]
mod upgrade;
mod wire;

// For the agent.
#[cfg(feature = "agent")]
pub(crate) use client::{Handshake, NoConnect, Opening, Refused, connect, pick_up};
// For everybody above.
pub(crate) use bytes::{ByteEnd, ByteLink};
pub use error::LinkEnd;
pub(crate) use error::LinkError;
pub use handshake::Protocol;
pub(crate) use messages::MessageLink;
// For the server.
#[cfg(feature = "server")]
pub(crate) use messages::MAX_CONTROL_MESSAGE;
#[cfg(feature = "server")]
pub(crate) use upgrade::{Refusal, Upgrade, offers_protocols};
// For those who ask services for WebSockets.
#[cfg(feature = "proxy")]
pub(crate) use challenge::Challenge;
// For fuzzing.
#[cfg(fuzzing)]
pub(crate) use differential::differential;
// For tests of those above, which make links over pipes.
#[cfg(test)]
pub(crate) use messages::Side;

//! The carriers, each with its two sides: how a server opens a stream, and how an agent takes it.

pub(crate) mod agent;
mod bare;
mod framing;
mod h2;
mod h2_pipe;
mod inbox;
mod message_bytes;
mod native;
mod outbox;
pub(crate) mod raw;
pub(crate) mod server;
mod sockets;
mod upgraded;
mod yamux;

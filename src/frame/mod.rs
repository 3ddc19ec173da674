//! Bytes to values and back: messages of frames, as both sides of a session exchange them.
//!
//! [`decode()`] reads a message, [`MessageHead::encode`] and [`Frame::encode`] write one. Nothing here reads a clock,
//! waits, or remembers what came before: which frame may follow which is the business of [`proto`](crate::proto).
//! The types may be used without the rest of the crate, for a peer or a tool that brings its own I/O.
//!
//! What follows is the specification of the protocol, of which this module implements what a message and a frame
//! are, and [`proto`](crate::proto) the rest.
//!
#![doc = include_str!("PROTOCOL.md")]
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod code;
mod decode;
mod encode;
mod error;
mod fields;
#[expect(clippy::module_inception, reason = "the file that answers \"what is a frame\"")]
mod frame;
mod message;
mod wire;

pub use code::{CloseCode, ResetCode};
pub use decode::{Frames, decode};
pub(crate) use encode::data_head;
pub use error::{DecodeError, DecodeErrorKind};
pub use frame::{
    Bounds, FRAME_HEAD, Frame, Hello, InstanceId, MAX_AGENT_VERSION, MAX_LABEL, MAX_LABELS, MAX_MESSAGE, MAX_METADATA,
    MAX_PAYLOAD, MAX_REASON, MAX_TRACEPARENT, MESSAGE_HEAD, MessageHead, Metadata, SessionId, StreamId, Welcome,
};
pub(crate) use message::Layout;
pub use message::Message;

//! Who does the framing of a link: we, or the library.

use std::task::{Context, Poll};

use bytes::{Buf, Bytes};

use super::{
    error::LinkError,
    framed::Framed,
    library::Library,
    messages::{Limits, Side, WRITE_BUFFER},
    wire::Wire,
};
use crate::frame::{CloseCode, MAX_MESSAGE, Message};

/// What came.
#[derive(Debug)]
pub(super) enum Event {
    Message(Bytes),
    Ping,
    Pong(Bytes),
}

/// One WebSocket, framed by either. Both have the same calls, which are told where ours are.
pub(super) enum Engine {
    Ours(Box<Framed>),
    Library(Box<Library>),
}

impl Engine {
    pub(super) async fn new(wire: Wire, side: Side, limits: Limits) -> Self {
        let Limits { max_message, read_buffer } = limits;
        match read_buffer {
            None => Self::Ours(Box::new(Framed::new(wire, side, max_message))),
            Some(read_buffer) => {
                let room = WRITE_BUFFER.saturating_add(max_message.max(MAX_MESSAGE));
                Self::Library(Box::new(Library::new(wire, side, max_message, read_buffer, room).await))
            }
        }
    }

    pub(super) fn wire(&mut self) -> &mut Wire {
        match self {
            Self::Ours(framed) => framed.wire(),
            Self::Library(library) => library.wire(),
        }
    }

    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, LinkError>> {
        match self {
            Self::Ours(framed) => framed.poll_event(cx),
            Self::Library(library) => library.poll_event(cx),
        }
    }

    /// Whether the last read brought less than it asked for, and all of it was taken; the library does not tell.
    pub(super) fn is_drained(&self) -> bool {
        match self {
            Self::Ours(framed) => framed.is_drained(),
            Self::Library(_) => false,
        }
    }

    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        match self {
            Self::Ours(framed) => framed.poll_ready(cx),
            Self::Library(library) => library.poll_ready(cx),
        }
    }

    pub(super) fn start_copied(&mut self, buf: &mut impl Buf, len: usize) -> Result<(), LinkError> {
        match self {
            Self::Ours(framed) => framed.start_copied(buf, len),
            Self::Library(library) => library.start_message(buf.copy_to_bytes(len)),
        }
    }

    pub(super) fn start_message(&mut self, message: Message) -> Result<(), LinkError> {
        match self {
            Self::Ours(framed) => framed.start_message(message),
            Self::Library(library) => library.start_message(message.into_bytes()),
        }
    }

    pub(super) fn start_ping(&mut self, payload: [u8; 8]) -> Result<(), LinkError> {
        match self {
            Self::Ours(framed) => {
                framed.start_ping(payload);
                Ok(())
            }
            Self::Library(library) => library.start_ping(payload),
        }
    }

    pub(super) fn start_close(&mut self, code: CloseCode, reason: &str) {
        match self {
            Self::Ours(framed) => framed.start_close(code, reason),
            Self::Library(library) => library.start_close(code, reason),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        match self {
            Self::Ours(framed) => framed.poll_flush(cx),
            Self::Library(library) => library.poll_flush(cx),
        }
    }
}

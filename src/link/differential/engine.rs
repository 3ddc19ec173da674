//! One WebSocket, framed by us or by the library, behind the same calls.

use std::task::{Context, Poll};

use super::library::Library;
use crate::{
    frame::{CloseCode, Message},
    link::{
        error::LinkError,
        framed::{Event, Framed},
        messages::Side,
        wire::Wire,
    },
};

/// Whose framing it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Ours,
    Library,
}

pub(super) enum Engine {
    Ours(Box<Framed>),
    Library(Box<Library>),
}

impl Engine {
    pub(super) fn new(framing: Framing, wire: Wire, side: Side, max_message: usize) -> Self {
        match framing {
            Framing::Ours => Self::Ours(Box::new(Framed::new(wire, side, max_message))),
            Framing::Library => Self::Library(Box::new(Library::new(wire, side, max_message))),
        }
    }

    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, LinkError>> {
        match self {
            Self::Ours(framed) => framed.poll_event(cx),
            Self::Library(library) => library.poll_event(cx),
        }
    }

    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        match self {
            Self::Ours(framed) => framed.poll_ready(cx),
            Self::Library(library) => library.poll_ready(cx),
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

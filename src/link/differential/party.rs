//! One engine on a pipe, driven as the link drives it, and what it tells and writes.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::engine::{Engine, Framing};
use crate::{
    frame::CloseCode,
    link::{
        error::LinkError,
        framed::Event,
        header::{Header, Opcode, mask},
        messages::Side,
        pipe::Pipe,
        wire::Wire,
    },
};

/// How it stopped: errors by what their owner has to tell apart, not by their words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Closed(Option<u16>, String),
    Eof,
    AmidMessage,
    Text,
    TooBig,
    Malformed,
    /// Nothing more comes, and no end.
    Silence,
}

impl End {
    fn of(error: LinkError) -> Self {
        match error {
            LinkError::Closed { code, reason } => Self::Closed(code.map(CloseCode::number), reason),
            LinkError::Eof => Self::Eof,
            LinkError::Io(_) => Self::AmidMessage,
            LinkError::Text => Self::Text,
            LinkError::TooBig => Self::TooBig,
            LinkError::Malformed(_) => Self::Malformed,
            LinkError::Flood => unreachable!("floods are counted above"),
        }
    }

    /// The code that the owner closes with: the peer broke a rule.
    pub(super) fn refusal(&self) -> Option<CloseCode> {
        match self {
            Self::Text => Some(CloseCode::TEXT),
            Self::TooBig => Some(CloseCode::TOO_BIG),
            Self::Malformed => Some(CloseCode::MALFORMED),
            Self::Closed(..) | Self::Eof | Self::AmidMessage | Self::Silence => None,
        }
    }
}

/// What came before the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    Message(Bytes),
    Ping,
    Pong(Bytes),
}

/// A frame that was written, without its mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) opcode: Opcode,
    pub(super) payload: Vec<u8>,
}

/// An engine and its pipe.
pub(super) struct Party {
    engine: Engine,
    pipe: Pipe,
    side: Side,
}

/// More polls than any input can be worth: an engine that spins ends here.
const MAX_POLLS: usize = 1 << 20;

impl Party {
    pub(super) fn new(framing: Framing, side: Side, max_message: usize, pipe: Pipe) -> Self {
        let engine = Engine::new(framing, Wire::new(pipe.clone(), &[]), side, max_message);
        Self { engine, pipe, side }
    }

    /// All that comes until the end, or until the pipe has nothing more.
    pub(super) fn hear(&mut self) -> (Vec<Heard>, End) {
        let mut heard = Vec::new();
        for _ in 0..MAX_POLLS {
            match self.poll(Engine::poll_event) {
                Poll::Ready(Ok(Event::Message(message))) => heard.push(Heard::Message(message)),
                Poll::Ready(Ok(Event::Ping)) => heard.push(Heard::Ping),
                Poll::Ready(Ok(Event::Pong(payload))) => heard.push(Heard::Pong(payload)),
                Poll::Ready(Err(error)) => return (heard, End::of(error)),
                Poll::Pending if self.pipe.is_starved() => return (heard, End::Silence),
                Poll::Pending => {}
            }
        }
        panic!("spins after {heard:?}");
    }

    /// Queues a message once there is room.
    pub(super) fn say(&mut self, message: crate::frame::Message) {
        self.until_ready(Engine::poll_ready);
        self.engine.start_message(message).expect("nothing was closed");
    }

    pub(super) fn ping(&mut self, payload: [u8; 8]) {
        self.engine.start_ping(payload).expect("nothing was closed");
    }

    /// Whether all is written now.
    pub(super) fn try_flush(&mut self) -> bool {
        self.poll(Engine::poll_flush).map(|flushed| flushed.expect("writes do not fail")).is_ready()
    }

    pub(super) fn flush(&mut self) {
        self.until_ready(Engine::poll_flush);
    }

    /// As the link closes: flushed first.
    pub(super) fn close(&mut self, code: CloseCode, reason: &str) {
        self.flush();
        self.engine.start_close(code, reason);
        self.flush();
    }

    /// What was written: whole frames of the shortest form, masked by clients.
    pub(super) fn written(&self) -> Vec<Written> {
        let (bytes, mut frames) = (self.pipe.written(), Vec::new());
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (header, at) = Header::decode(rest).expect("a frame that can be").expect("a whole header");
            assert_eq!(header.encode().1, at, "the shortest form of {header:?}");
            assert_eq!(header.mask.is_some(), self.side == Side::Client);
            assert!(header.is_last);
            let (frame, behind) = rest.split_at(at + header.len as usize);
            let mut payload = frame[at..].to_vec();
            mask(&mut payload, header.mask.unwrap_or_default());
            frames.push(Written { opcode: header.opcode, payload });
            rest = behind;
        }
        frames
    }

    fn until_ready(&mut self, poll: impl Fn(&mut Engine, &mut Context<'_>) -> Poll<Result<(), LinkError>>) {
        for _ in 0..MAX_POLLS {
            if let Poll::Ready(result) = self.poll(&poll) {
                return result.expect("writes do not fail");
            }
        }
        panic!("spins");
    }

    /// Polls once. `Pending` without one from below would never be woken.
    fn poll<T>(&mut self, poll: impl Fn(&mut Engine, &mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let before = self.pipe.pendings();
        let polled = poll(&mut self.engine, &mut Context::from_waker(Waker::noop()));
        assert!(polled.is_ready() || self.pipe.pendings() > before, "nobody wakes this task");
        polled
    }
}

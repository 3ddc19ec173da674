//! Our own data framing: binary messages both ways over a byte stream, with buffers that follow their use.
//!
//! A payload is a slice of what was read, unmasked in place; one that is sent unmasked is written from where it lies,
//! behind its header, by one vectored write.

use std::{
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use super::{
    close,
    error::LinkError,
    header::{Header, MAX_CONTROL, Opcode, rotated},
    inbound::Inbound,
    messages::{Side, WRITE_BUFFER},
    outbound::Outbound,
    wire::Wire,
};
use crate::frame::{CloseCode, Message};

/// How much answers to pings may take beyond a full buffer; of those that find no room only the last one is kept.
const PONG_ROOM: usize = 4 * 1024;

/// How many fragments that end no message one poll takes: they may be empty, and cost the peer next to nothing.
const FRAGMENTS_PER_POLL: usize = 1024;

/// What came.
#[derive(Debug)]
pub(super) enum Event {
    Message(Bytes),
    Ping,
    Pong(Bytes),
}

/// One WebSocket.
pub(super) struct Framed {
    wire: Wire,
    side: Side,
    max_message: usize,
    inbound: Inbound,
    /// The fragments of a message that is under way.
    partial: Option<BytesMut>,
    outbound: Outbound,
    /// There is no room before all of it is written.
    full: bool,
    /// The answer to a ping, for which there was no room.
    pong: Option<Bytes>,
    /// A close frame was queued, after which nothing may follow.
    closed: bool,
    /// The peer's close frame was read, after which nothing comes.
    over: bool,
}

impl Framed {
    pub(super) fn new(wire: Wire, side: Side, max_message: usize) -> Self {
        let outbound = Outbound::new(&wire);
        Self {
            wire,
            side,
            max_message,
            inbound: Inbound::new(),
            partial: None,
            outbound,
            full: false,
            pong: None,
            closed: false,
            over: false,
        }
    }

    pub(super) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Whether the last read brought less than it asked for, and all of it was taken.
    pub(super) fn is_drained(&self) -> bool {
        self.inbound.is_drained()
    }

    /// The next message or control frame. Answers to pings are written on the way.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, LinkError>> {
        let mut fragments = 0;
        loop {
            if self.over {
                return Poll::Ready(Err(LinkError::Eof));
            }
            if let Some(event) = self.parse(&mut fragments)? {
                return Poll::Ready(Ok(event));
            }
            if fragments >= FRAGMENTS_PER_POLL {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !self.outbound.is_empty() {
                // That it fails is told by what is read.
                let _ = self.poll_flush(cx);
            }
            if ready!(self.inbound.poll_fill(&mut self.wire, cx)).map_err(LinkError::Io)? == 0 {
                let whole = self.inbound.unread().is_empty() && self.partial.is_none();
                return Poll::Ready(Err(if whole { LinkError::Eof } else { LinkError::amid_a_message() }));
            }
        }
    }

    /// Parses up to the next event, but no more than so many fragments, which is counted.
    fn parse(&mut self, fragments: &mut usize) -> Result<Option<Event>, LinkError> {
        while *fragments < FRAGMENTS_PER_POLL {
            let Some((header, at)) = Header::decode(self.inbound.unread()).map_err(LinkError::Malformed)? else {
                return Ok(None);
            };
            if header.mask.is_some() != (self.side == Side::Server) {
                return Err(LinkError::Malformed(if self.side == Side::Server {
                    "unmasked frame"
                } else {
                    "masked frame"
                }));
            }
            let begun = self.partial.as_ref().map_or(0, BytesMut::len);
            let len = usize::try_from(header.len).unwrap_or(usize::MAX);
            match header.opcode {
                Opcode::Text | Opcode::Binary if self.partial.is_some() => {
                    return Err(LinkError::Malformed("message within another"));
                }
                Opcode::Text => return Err(LinkError::Text),
                Opcode::Continuation if self.partial.is_none() => {
                    return Err(LinkError::Malformed("nothing to continue"));
                }
                Opcode::Binary | Opcode::Continuation if len > self.max_message - begun => {
                    return Err(LinkError::TooBig);
                }
                _ => {}
            }
            let whole = at + len;
            let lacks = whole.saturating_sub(self.inbound.unread().len());
            if lacks > 0 {
                self.inbound.lacks(lacks);
                return Ok(None);
            }
            self.inbound.skip(at);
            let payload = self.inbound.take(len, header.mask);
            match self.on_frame(header, payload)? {
                Some(event) => return Ok(Some(event)),
                None => *fragments += 1,
            }
        }
        Ok(None)
    }

    fn on_frame(&mut self, header: Header, payload: BytesMut) -> Result<Option<Event>, LinkError> {
        match header.opcode {
            Opcode::Binary if header.is_last => Ok(Some(Event::Message(payload.freeze()))),
            Opcode::Binary => {
                self.partial = Some(payload);
                Ok(None)
            }
            Opcode::Continuation => {
                let Some(mut message) = self.partial.take() else {
                    return Err(LinkError::Malformed("nothing to continue"));
                };
                message.extend_from_slice(&payload);
                if header.is_last {
                    return Ok(Some(Event::Message(message.freeze())));
                }
                self.partial = Some(message);
                Ok(None)
            }
            Opcode::Ping => {
                if !self.closed {
                    self.pong = Some(payload.freeze());
                    self.queue_pong();
                }
                Ok(Some(Event::Ping))
            }
            Opcode::Pong => Ok(Some(Event::Pong(payload.freeze()))),
            Opcode::Close => Err(self.on_close(&payload)?),
            Opcode::Text => Err(LinkError::Text),
        }
    }

    /// The peer's close frame is answered by the same code.
    fn on_close(&mut self, payload: &[u8]) -> Result<LinkError, LinkError> {
        let (code, reason) = close::decode(payload).map_err(LinkError::Malformed)?;
        self.over = true;
        if !self.closed {
            self.closed = true;
            self.queue_control(Opcode::Close, payload);
        }
        Ok(LinkError::Closed { code, reason: reason.to_owned() })
    }

    /// Whether there is room for one more message; a full buffer is written out first.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.full |= self.outbound.len() >= WRITE_BUFFER;
        if self.full {
            ready!(self.poll_write_out(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Queues a message, for which there is room.
    pub(super) fn start_message(&mut self, message: Message) -> Result<(), LinkError> {
        if self.closed {
            return Err(LinkError::Eof);
        }
        let key = self.key();
        let header = Header { is_last: true, opcode: Opcode::Binary, len: message.len() as u64, mask: key };
        self.outbound.push_header(header);
        let mut at = 0;
        for piece in message.into_pieces() {
            let len = piece.len();
            self.outbound.push(piece, key.map(|key| rotated(key, at)));
            at += len;
        }
        Ok(())
    }

    /// The same for so many bytes that lie elsewhere, of which a large first part may be written at once from there.
    pub(super) fn start_from(&mut self, cx: &mut Context<'_>, buf: &mut impl Buf, len: usize) -> Result<(), LinkError> {
        if self.closed {
            return Err(LinkError::Eof);
        }
        let key = self.key();
        let header = Header { is_last: true, opcode: Opcode::Binary, len: len as u64, mask: key };
        let mut at = 0;
        if key.is_none() {
            let first = buf.chunk().len().min(len);
            let wire = Pin::new(&mut self.wire);
            self.outbound.push_or_write(wire, cx, header, &buf.chunk()[..first]).map_err(LinkError::Io)?;
            buf.advance(first);
            at = first;
        } else {
            self.outbound.push_header(header);
        }
        while at < len {
            let n = buf.chunk().len().min(len - at);
            self.outbound.push_copied(&buf.chunk()[..n], key.map(|key| rotated(key, at)));
            buf.advance(n);
            at += n;
        }
        Ok(())
    }

    /// Queues a ping; one for which there is no room is left out.
    pub(super) fn start_ping(&mut self, payload: [u8; 8]) {
        if !self.closed && self.outbound.len() < WRITE_BUFFER + PONG_ROOM {
            self.queue_control(Opcode::Ping, &payload);
        }
    }

    /// Queues the close frame, unless there was one.
    pub(super) fn start_close(&mut self, code: CloseCode, reason: &str) {
        if !mem::replace(&mut self.closed, true) {
            let mut payload = code.number().to_be_bytes().to_vec();
            payload.extend_from_slice(reason.as_bytes());
            self.queue_control(Opcode::Close, &payload);
        }
    }

    /// Writes all that is queued.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        ready!(self.poll_write_out(cx))?;
        Pin::new(&mut self.wire).poll_flush(cx).map_err(LinkError::Io)
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        loop {
            while !self.outbound.is_empty() {
                let written = ready!(self.outbound.poll_write(Pin::new(&mut self.wire), cx)).map_err(LinkError::Io)?;
                if written == 0 {
                    return Poll::Ready(Err(LinkError::Io(io::ErrorKind::WriteZero.into())));
                }
                self.outbound.advance(written);
            }
            self.queue_pong();
            if self.outbound.is_empty() {
                self.full = false;
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn queue_pong(&mut self) {
        if self.outbound.len() < WRITE_BUFFER + PONG_ROOM
            && let Some(payload) = self.pong.take()
            && !self.closed
        {
            self.queue_control(Opcode::Pong, &payload);
        }
    }

    fn queue_control(&mut self, opcode: Opcode, payload: &[u8]) {
        let payload = &payload[..payload.len().min(MAX_CONTROL)];
        let header = Header { is_last: true, opcode, len: payload.len() as u64, mask: self.key() };
        self.outbound.push_header(header);
        self.outbound.push(Bytes::copy_from_slice(payload), header.mask);
    }

    /// Clients mask, by a key that nobody can foretell.
    fn key(&self) -> Option<[u8; 4]> {
        (self.side == Side::Client).then(rand::random)
    }
}

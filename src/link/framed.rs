//! Our own data framing: binary messages both ways over a byte stream, with buffers that follow their use.
//!
//! A payload is a slice of what was read, unmasked in place; one that is sent unmasked is written from where it lies,
//! behind its header, by one vectored write.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem::{self, MaybeUninit},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::{
    error::LinkError,
    header::{Header, MAX_CONTROL, Opcode, mask},
    messages::{Side, WRITE_BUFFER},
    wire::Wire,
};
use crate::frame::CloseCode;

/// What a read of an idle link asks for, on the stack: such a link holds nothing.
const SMALL_READ: usize = 4 * 1024;

/// The most that one read asks for: one of the biggest messages, and below what the allocator maps anew each time.
const LARGE_READ: usize = 64 * 1024;

/// How much more than what a message lacks is read: the heads of the next. More of that would only be copied to where
/// the rest of it comes.
const BEYOND: usize = 4 * 1024;

/// How many buffers whose messages are still read wait to be used again. Freed and allocated in turn, they would be
/// given back to the system and faulted in anew (measured: half the CPU time of bulk).
const MAX_SPARES: usize = 8;

/// After so many small reads in a row the buffer shrinks.
const SMALL_READS: u32 = 32;

/// From this length on a payload that needs no mask is written from where it lies. Below, a copy is cheaper.
const SHARED: usize = 4 * 1024;

/// How much is copied before it is masked; a multiple of the key's length.
const MASKED_BLOCK: usize = 4 * 1024;

/// How many pieces go into one write.
const SLICES: usize = 16;

/// The buffer of a batch below this is not kept for the next one.
const SMALL_WRITE: usize = 4 * 1024;

/// How much answers to pings may take beyond a full buffer; of those that find no room only the last one is kept.
const PONG_ROOM: usize = 4 * 1024;

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
    /// Read and not parsed.
    unread: BytesMut,
    /// Empty rests of large buffers, of which messages were cut off.
    spares: VecDeque<BytesMut>,
    /// How much the next read asks for.
    read: usize,
    small_reads: u32,
    /// What the frame that is under way still lacks.
    lacks: usize,
    /// The fragments of a message that is under way.
    partial: Option<BytesMut>,
    out: Out,
    /// There is no room before all of it is written.
    full: bool,
    /// The answer to a ping, for which there was no room.
    pong: Option<Bytes>,
    /// A close frame was queued, after which nothing may follow.
    closed: bool,
    /// The peer's close frame was read, after which nothing comes.
    over: bool,
}

/// What is to be written, in order: pieces, then the tail.
#[derive(Default)]
struct Out {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
    /// How much was queued since it was empty last.
    batch: usize,
}

impl Framed {
    pub(super) fn new(wire: Wire, side: Side, max_message: usize) -> Self {
        Self {
            wire,
            side,
            max_message,
            unread: BytesMut::new(),
            spares: VecDeque::new(),
            read: SMALL_READ,
            small_reads: 0,
            lacks: 0,
            partial: None,
            out: Out::default(),
            full: false,
            pong: None,
            closed: false,
            over: false,
        }
    }

    pub(super) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// The next message or control frame. Answers to pings are written on the way.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, LinkError>> {
        loop {
            if self.over {
                return Poll::Ready(Err(LinkError::Eof));
            }
            if let Some(event) = self.parse()? {
                return Poll::Ready(Ok(event));
            }
            if !self.out.is_empty() {
                // That it fails is told by what is read.
                let _ = self.poll_flush(cx);
            }
            ready!(self.poll_fill(cx))?;
        }
    }

    /// Reads more. What is asked for grows while reads bring as much, and shrinks when they have been small for long.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let asked = if self.lacks > 0 { self.lacks + BEYOND } else { self.read }.min(LARGE_READ + BEYOND);
        let n = if asked <= SMALL_READ {
            let mut scratch = [MaybeUninit::uninit(); SMALL_READ];
            let mut read = ReadBuf::uninit(&mut scratch);
            ready!(Pin::new(&mut self.wire).poll_read(cx, &mut read)).map_err(LinkError::Io)?;
            self.unread.extend_from_slice(read.filled());
            read.filled().len()
        } else {
            self.make_room(asked);
            ready!(poll_read_buf(Pin::new(&mut self.wire), cx, &mut self.unread)).map_err(LinkError::Io)?
        };
        if n == 0 {
            let whole = self.unread.is_empty() && self.partial.is_none();
            return Poll::Ready(Err(if whole { LinkError::Eof } else { LinkError::amid_a_message() }));
        }
        self.lacks = self.lacks.saturating_sub(n);
        if n >= self.read {
            self.read = (self.read * 4).min(LARGE_READ);
        }
        self.small_reads = if n < self.read / 4 { self.small_reads + 1 } else { 0 };
        if self.small_reads == SMALL_READS {
            self.small_reads = 0;
            self.read = SMALL_READ;
            self.spares = VecDeque::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Has room for so much more behind what is unread: where it is, in a buffer that is free again, or in a new one.
    fn make_room(&mut self, more: usize) {
        if self.unread.capacity() - self.unread.len() >= more || self.unread.try_reclaim(more) {
            return;
        }
        let wanted = self.unread.len() + more;
        let free = self.spares.iter_mut().position(|spare| spare.try_reclaim(wanted));
        let spare = free.and_then(|at| self.spares.remove(at));
        let mut room = spare.unwrap_or_else(|| BytesMut::with_capacity(wanted.max(LARGE_READ + 2 * BEYOND)));
        room.extend_from_slice(&self.unread);
        let mut old = mem::replace(&mut self.unread, room);
        if self.read > SMALL_READ && self.spares.len() < MAX_SPARES {
            old.clear();
            self.spares.push_back(old);
        }
    }

    fn parse(&mut self) -> Result<Option<Event>, LinkError> {
        loop {
            let Some((header, at)) = Header::decode(&self.unread).map_err(malformed)? else { return Ok(None) };
            if header.mask.is_some() != (self.side == Side::Server) {
                return Err(malformed(if self.side == Side::Server { "unmasked frame" } else { "masked frame" }));
            }
            let begun = self.partial.as_ref().map_or(0, BytesMut::len);
            let len = usize::try_from(header.len).unwrap_or(usize::MAX);
            match header.opcode {
                Opcode::Text => return Err(LinkError::Text),
                Opcode::Binary if self.partial.is_some() => return Err(malformed("message within another")),
                Opcode::Continuation if self.partial.is_none() => return Err(malformed("nothing to continue")),
                Opcode::Binary | Opcode::Continuation if len > self.max_message - begun => {
                    return Err(LinkError::TooBig);
                }
                _ => {}
            }
            let whole = at + len;
            if self.unread.len() < whole {
                self.lacks = whole - self.unread.len();
                return Ok(None);
            }
            self.unread.advance(at);
            let payload = self.take(len, header.mask);
            match self.on_frame(header, payload)? {
                Some(event) => return Ok(Some(event)),
                None => continue,
            }
        }
    }

    /// The next bytes, unmasked. Few of them are copied, so that a message that stays unread pins no more than about
    /// four times its size, and the buffer is free to be used again.
    fn take(&mut self, len: usize, key: Option<[u8; 4]>) -> BytesMut {
        let mut payload = if len == self.unread.len() && self.read == SMALL_READ {
            mem::take(&mut self.unread)
        } else if len < self.unread.capacity() / 4 {
            let copy = BytesMut::from(&self.unread[..len]);
            self.unread.advance(len);
            copy
        } else {
            self.unread.split_to(len)
        };
        if let Some(key) = key {
            mask(&mut payload, key);
        }
        payload
    }

    fn on_frame(&mut self, header: Header, payload: BytesMut) -> Result<Option<Event>, LinkError> {
        match header.opcode {
            Opcode::Binary if header.is_last => Ok(Some(Event::Message(payload.freeze()))),
            Opcode::Binary => {
                self.partial = Some(payload);
                Ok(None)
            }
            Opcode::Continuation => {
                let Some(mut message) = self.partial.take() else { return Err(malformed("nothing to continue")) };
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
        let (code, reason) = match payload {
            [] => (None, String::new()),
            [_] => return Err(malformed("close frame of one byte")),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if code < 1000 {
                    return Err(malformed("close code below 1000"));
                }
                (Some(CloseCode::new(code)), String::from_utf8_lossy(reason).into_owned())
            }
        };
        self.over = true;
        if !self.closed {
            self.closed = true;
            self.queue_control(Opcode::Close, payload);
        }
        Ok(LinkError::Closed { code, reason })
    }

    /// Whether there is room for one more message; a full buffer is written out first.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.full |= self.out.len >= WRITE_BUFFER;
        if self.full {
            ready!(self.poll_write_out(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Queues a message, for which there is room.
    pub(super) fn start_message(&mut self, message: Bytes) -> Result<(), LinkError> {
        if self.closed {
            return Err(LinkError::Eof);
        }
        let key = self.key();
        let header = Header { is_last: true, opcode: Opcode::Binary, len: message.len() as u64, mask: key };
        self.out.push(header, message);
        Ok(())
    }

    /// Queues a ping; one for which there is no room is left out.
    pub(super) fn start_ping(&mut self, payload: [u8; 8]) {
        if !self.closed && self.out.len < WRITE_BUFFER + PONG_ROOM {
            self.queue_control(Opcode::Ping, &payload);
        }
    }

    /// Queues the close frame, unless there was one.
    pub(super) fn start_close(&mut self, code: CloseCode, reason: &str) {
        if !std::mem::replace(&mut self.closed, true) {
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
            while !self.out.is_empty() {
                let written = ready!(self.out.poll_write(Pin::new(&mut self.wire), cx)).map_err(LinkError::Io)?;
                if written == 0 {
                    return Poll::Ready(Err(LinkError::Io(io::ErrorKind::WriteZero.into())));
                }
                self.out.advance(written);
            }
            self.queue_pong();
            if self.out.is_empty() {
                self.full = false;
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn queue_pong(&mut self) {
        if self.out.len < WRITE_BUFFER + PONG_ROOM
            && let Some(payload) = self.pong.take()
            && !self.closed
        {
            self.queue_control(Opcode::Pong, &payload);
        }
    }

    fn queue_control(&mut self, opcode: Opcode, payload: &[u8]) {
        let payload = &payload[..payload.len().min(MAX_CONTROL)];
        let header = Header { is_last: true, opcode, len: payload.len() as u64, mask: self.key() };
        self.out.push(header, Bytes::copy_from_slice(payload));
    }

    /// Clients mask, by a key that nobody can foretell.
    fn key(&self) -> Option<[u8; 4]> {
        (self.side == Side::Client).then(rand::random)
    }
}

impl Out {
    fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn push(&mut self, header: Header, payload: Bytes) {
        let before = self.tail.len();
        let shared = header.mask.is_none() && payload.len() >= SHARED;
        let (bytes, n) = header.encode();
        self.tail.extend_from_slice(&bytes[..n]);
        if !shared {
            match header.mask {
                None => self.tail.extend_from_slice(&payload),
                // Block by block, so that each is masked while it is in the nearest cache.
                Some(key) => payload.chunks(MASKED_BLOCK).for_each(|block| {
                    let at = self.tail.len();
                    self.tail.extend_from_slice(block);
                    mask(&mut self.tail[at..], key);
                }),
            }
        }
        let mut queued = self.tail.len() - before;
        if shared {
            queued += payload.len();
            self.pieces.push_back(self.tail.split().freeze());
            self.pieces.push_back(payload);
        }
        self.len += queued;
        self.batch += queued;
    }

    fn poll_write(&self, wire: Pin<&mut Wire>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.pieces.is_empty() {
            return wire.poll_write(cx, &self.tail);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let pieces = self.pieces.iter().map(|piece| &piece[..]).chain([&self.tail[..]]);
        let n = slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
        wire.poll_write_vectored(cx, &slices[..n])
    }

    fn advance(&mut self, mut written: usize) {
        self.len -= written;
        while let Some(first) = self.pieces.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.pieces.pop_front();
        }
        self.tail.advance(written);
        if self.len == 0 {
            if mem::take(&mut self.batch) < SMALL_WRITE {
                self.tail = BytesMut::new();
            }
        }
    }
}

fn malformed(rule: &'static str) -> LinkError {
    LinkError::Malformed(rule.to_owned())
}

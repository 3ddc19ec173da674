//! What is to be written: small pieces in a row, large ones where they lie.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use super::{
    header::{Header, copy_masked},
    wire::Wire,
};

/// From this length on a payload that needs no mask is written from where it lies. Below, a copy is cheaper.
const SHARED: usize = 4 * 1024;

/// How many pieces go into one write.
const SLICES: usize = 16;

/// The buffer of a batch below this is not kept for the next one, unless it is tiny.
const SMALL_WRITE: usize = 4 * 1024;

/// What an idle link holds for writing, at most: the next small message needs nothing else.
const TINY_WRITE: usize = 256;

/// What is to be written, in order: pieces, then the tail.
#[derive(Default)]
pub(super) struct Outbound {
    pieces: VecDeque<Bytes>,
    tail: Tail,
    len: usize,
    /// The wire takes one piece at a time: small ones are joined whatever that costs.
    joins: bool,
    /// How much was queued since it was empty last.
    batch: usize,
}

/// Bytes that were copied to be written. What its buffer holds beyond them is of no meaning: room that was filled once,
/// so that a copy can be masked on the way into it.
#[derive(Default)]
struct Tail {
    buffer: BytesMut,
    /// Where they begin: what lies before is written.
    start: usize,
    /// Where they end.
    end: usize,
}

impl Tail {
    fn unsent(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Room for so many more bytes, to be filled. What is written gives its place up once the rest is no more than that:
    /// on a wire that is always behind, all that was ever sent would stay.
    fn grow(&mut self, by: usize) -> &mut [u8] {
        if self.buffer.len() < self.end + by && self.start >= self.unsent().len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let start = self.end;
        self.end += by;
        if self.buffer.len() < self.end {
            self.buffer.resize(self.end, 0);
        }
        &mut self.buffer[start..self.end]
    }

    /// Takes out what is not written.
    fn split(&mut self) -> Bytes {
        let mut unsent = self.buffer.split_to(mem::take(&mut self.end));
        unsent.advance(mem::take(&mut self.start));
        unsent.freeze()
    }

    /// So many more are written.
    fn advance(&mut self, written: usize) {
        self.start += written;
    }

    /// All is written. What follows begins at the front again, in the same buffer or, as need be, in another.
    fn clear(&mut self, keep: bool) {
        (self.start, self.end) = (0, 0);
        if !keep && self.buffer.capacity() > TINY_WRITE {
            self.buffer = BytesMut::new();
        }
    }
}

impl Outbound {
    pub(super) fn new(wire: &Wire) -> Self {
        Self { joins: !wire.is_write_vectored(), ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push_header(&mut self, header: Header) {
        let (bytes, n) = header.encode();
        self.tail.grow(n).copy_from_slice(&bytes[..n]);
        self.count(n);
    }

    /// Queues bytes of a payload, as they are or masked.
    pub(super) fn push(&mut self, bytes: Bytes, key: Option<[u8; 4]>) {
        if key.is_some() || self.joins || bytes.len() < SHARED {
            return self.push_copied(&bytes, key);
        }
        self.count(bytes.len());
        if !self.tail.unsent().is_empty() {
            self.pieces.push_back(self.tail.split());
        }
        self.pieces.push_back(bytes);
    }

    /// Queues a copy, masked on the way.
    pub(super) fn push_copied(&mut self, bytes: &[u8], key: Option<[u8; 4]>) {
        self.count(bytes.len());
        let room = self.tail.grow(bytes.len());
        match key {
            Some(key) => copy_masked(bytes, room, key),
            None => room.copy_from_slice(bytes),
        }
    }

    /// Queues a header and a payload that lies elsewhere and needs no mask. A large one with nothing before it is written
    /// from there, as far as the wire takes it, and only the rest is copied.
    pub(super) fn push_or_write(
        &mut self,
        wire: Pin<&mut Wire>,
        cx: &mut Context<'_>,
        header: Header,
        payload: &[u8],
    ) -> io::Result<()> {
        let (bytes, n) = header.encode();
        let mut unsent = [&bytes[..n], payload];
        if self.is_empty()
            && !self.joins
            && payload.len() >= SHARED
            && let Poll::Ready(written) = wire.poll_write_vectored(cx, &unsent.map(IoSlice::new))
        {
            let written = written?;
            let of_header = written.min(n);
            unsent = [&bytes[of_header..n], &payload[written - of_header..]];
        }
        unsent.into_iter().filter(|piece| !piece.is_empty()).for_each(|piece| self.push_copied(piece, None));
        Ok(())
    }

    fn count(&mut self, queued: usize) {
        self.len += queued;
        self.batch += queued;
    }

    pub(super) fn poll_write(&self, wire: Pin<&mut Wire>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.pieces.is_empty() {
            return wire.poll_write(cx, self.tail.unsent());
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let pieces = self.pieces.iter().map(|piece| &piece[..]).chain([self.tail.unsent()]);
        let n = slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
        wire.poll_write_vectored(cx, &slices[..n])
    }

    pub(super) fn advance(&mut self, mut written: usize) {
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
            let was_small = mem::take(&mut self.batch) < SMALL_WRITE;
            self.tail.clear(!was_small);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::link::{
        header::{Opcode, mask, rotated},
        pipe::{Pace, Pipe},
    };

    const KEY: [u8; 4] = [1, 20, 90, 255];

    fn bytes(len: usize) -> Bytes {
        (0..len).map(|at| (at * 7) as u8).collect()
    }

    /// Writes once.
    fn write(outbound: &mut Outbound, wire: &mut Wire) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(written)) = outbound.poll_write(Pin::new(wire), &mut cx) else {
            panic!("the pipe takes all")
        };
        outbound.advance(written);
        written
    }

    /// What comes out where each write takes as much as it is given; and how many it took.
    fn written(mut outbound: Outbound) -> (Vec<u8>, usize) {
        let pipe = Pipe::new(Pace::default(), Pace::default(), false);
        let (mut wire, mut writes) = (Wire::new(pipe.clone(), &[]), 0);
        while !outbound.is_empty() {
            write(&mut outbound, &mut wire);
            writes += 1;
        }
        (pipe.written(), writes)
    }

    #[test]
    fn a_message_in_pieces_is_masked_as_one_in_a_row_whatever_their_lengths() {
        let mut outbound = Outbound::default();
        let (mut plain, mut at) = (Vec::new(), 0);
        for len in [1, 2, 3, 0, 5, 4, 7, SHARED + 1, SHARED - 1, 2 * SHARED + 3, 6, 1] {
            plain.extend_from_slice(&bytes(len));
            outbound.push(bytes(len), Some(rotated(KEY, at)));
            at += len;
        }
        let expected: Vec<_> = plain.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        assert_eq!(written(outbound).0, expected);
    }

    /// Headers, and payloads of which some are shared; with the tail as many pieces as go into four writes, but for one.
    fn many_pieces() -> (Outbound, Vec<u8>, Vec<usize>) {
        let all = bytes(SHARED + SLICES);
        let (mut outbound, mut expected, mut borders) = (Outbound::default(), Vec::new(), Vec::new());
        for len in (0..SLICES).flat_map(|at| [SHARED + at, at, SHARED]).take(3 * SLICES - 1) {
            let header = Header { is_last: true, opcode: Opcode::Binary, len: len as u64, mask: None };
            let (head, n) = header.encode();
            outbound.push_header(header);
            outbound.push(all.slice(..len), None);
            borders.push(expected.len());
            expected.extend_from_slice(&head[..n]);
            borders.push(expected.len());
            expected.extend_from_slice(&all[..len]);
        }
        outbound.push(all.slice(..9), None);
        expected.extend_from_slice(&all[..9]);
        (outbound, expected, borders)
    }

    #[test]
    fn pieces_leave_in_order_in_few_writes() {
        let (outbound, expected, _) = many_pieces();
        let len = outbound.len();
        let (written, writes) = written(outbound);
        assert_eq!(len, expected.len());
        assert!(written == expected);
        assert_eq!(writes, 4, "two pieces for each shared payload, and the tail with the last of them");
    }

    #[test]
    fn what_a_write_left_over_follows_wherever_it_was_cut() {
        let (_, expected, borders) = many_pieces();
        let cuts = borders.iter().flat_map(|border| border.saturating_sub(1)..=border + 1).chain([expected.len()]);
        for cut in cuts {
            let (mut outbound, ..) = many_pieces();
            outbound.advance(cut);
            assert_eq!(outbound.len(), expected.len() - cut);
            assert!(written(outbound).0 == expected[cut..], "cut at {cut}");
        }
    }

    #[test]
    fn a_payload_that_lies_elsewhere_is_written_from_there_and_what_is_left_over_follows() {
        let header = |len| Header { is_last: true, opcode: Opcode::Binary, len: len as u64, mask: None };
        for len in [1, SHARED - 1, SHARED, 2 * SHARED] {
            for first in [0, 1, 3, 4, 5, 100, usize::MAX] {
                let pace = if first == usize::MAX { vec![] } else { vec![first as u8] };
                let pipe = Pipe::new(Pace::default(), Pace::new(pace), false);
                let mut wire = Wire::new(pipe.clone(), &[]);
                let mut outbound = Outbound::new(&wire);
                let mut cx = Context::from_waker(Waker::noop());
                outbound.push_or_write(Pin::new(&mut wire), &mut cx, header(len), &bytes(len)).unwrap();
                let (head, n) = header(len).encode();
                let expected = [&head[..n], &bytes(len)].concat();
                let taken = if len < SHARED { 0 } else { first.min(expected.len()) };
                assert_eq!(pipe.written(), expected[..taken], "{len} bytes, of which a write takes {first}");
                assert_eq!(written(outbound).0, expected[taken..]);
            }
        }
        // What comes behind something waits for it.
        let pipe = Pipe::new(Pace::default(), Pace::default(), false);
        let mut wire = Wire::new(pipe.clone(), &[]);
        let mut outbound = Outbound::new(&wire);
        outbound.push(bytes(3), None);
        let mut cx = Context::from_waker(Waker::noop());
        outbound.push_or_write(Pin::new(&mut wire), &mut cx, header(SHARED), &bytes(SHARED)).unwrap();
        assert_eq!((pipe.written().len(), outbound.len()), (0, 3 + 4 + SHARED));
    }

    #[test]
    fn a_wire_that_is_always_behind_has_what_was_written_leave_the_buffer() {
        let mut outbound = Outbound::default();
        let (mut plain, mut written) = (Vec::new(), Vec::new());
        for at in 0..1000 {
            let more = bytes(1000 + at % 7);
            outbound.push(more.clone(), Some(rotated(KEY, plain.len())));
            plain.extend_from_slice(&more);
            let some = outbound.len().saturating_sub(1 + at % 5);
            written.extend_from_slice(&outbound.tail.unsent()[..some]);
            outbound.advance(some);
            assert!(!outbound.is_empty() && outbound.tail.buffer.capacity() < 8 * 1024);
        }
        written.extend_from_slice(outbound.tail.unsent());
        mask(&mut written, KEY);
        assert!(written == plain);
    }

    #[test]
    fn the_buffer_of_a_small_batch_is_given_back_and_that_of_a_tiny_or_a_large_one_is_kept() {
        let pipe = Pipe::new(Pace::default(), Pace::default(), false);
        let mut wire = Wire::new(pipe, &[]);
        let mut outbound = Outbound::default();
        outbound.push(bytes(100), None);
        write(&mut outbound, &mut wire);
        assert!((100..=TINY_WRITE).contains(&outbound.tail.buffer.capacity()));
        outbound.push(bytes(TINY_WRITE + 1), None);
        write(&mut outbound, &mut wire);
        assert_eq!(outbound.tail.buffer.capacity(), 0);
        for _ in 0..20 {
            outbound.push(bytes(1000), Some(KEY));
        }
        write(&mut outbound, &mut wire);
        assert!(outbound.is_empty() && outbound.tail.buffer.capacity() > 0);
        // In two writes, of which the last one is small.
        outbound.push(bytes(5000), Some(KEY));
        outbound.advance(4900);
        write(&mut outbound, &mut wire);
        assert!(outbound.is_empty() && outbound.tail.buffer.capacity() > 0);
        outbound.push(bytes(100), Some(KEY));
        write(&mut outbound, &mut wire);
        assert_eq!(outbound.tail.buffer.capacity(), 0);
    }
}

//! What was read and not parsed, in buffers that follow their use: none once some small reads came in a row, large ones
//! in bulk.

use std::{
    io,
    mem::{self, MaybeUninit},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::{header::mask, wire::Wire};

/// What a read of an idle link asks for, on the stack: such a link holds nothing.
const SMALL_READ: usize = 4 * 1024;

/// The most that one read asks for: one of the biggest messages, and below what the allocator maps anew each time.
const LARGE_READ: usize = 64 * 1024;

/// How much more than what a message lacks is read: the heads of the next. More of that would only be copied to where
/// the rest of it comes.
const BEYOND: usize = 4 * 1024;

/// The size of a buffer for large reads.
const BUFFER: usize = LARGE_READ + 2 * BEYOND;

/// How many buffers whose messages are still read wait to be used again. Freed and allocated in turn, they would be
/// given back to the system and faulted in anew (measured: half the CPU time of bulk, and of bursts over a long way).
const MAX_SPARES: usize = 64;

/// A buffer that had to be larger than this, for a message of a dial-back stream, is used for that only.
const MAX_SPARE: usize = 2 * BUFFER;

/// After so many small reads in a row the buffer shrinks.
const SMALL_READS: u32 = 8;

/// Bytes that came, and room for more.
pub(super) struct Inbound {
    unread: BytesMut,
    /// How much `unread` is a part of, and would pin.
    size: usize,
    /// Empty rests of large buffers, of which messages were cut off, with their sizes.
    spares: Vec<(BytesMut, usize)>,
    /// How much the next read asks for.
    read: usize,
    small_reads: u32,
    /// The last read brought less than it asked for.
    short: bool,
    /// What the frame that is under way still lacks.
    lacks: usize,
}

impl Inbound {
    pub(super) fn new() -> Self {
        Self {
            unread: BytesMut::new(),
            size: 0,
            spares: Vec::new(),
            read: SMALL_READ,
            small_reads: 0,
            short: false,
            lacks: 0,
        }
    }

    pub(super) fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Whether the last read brought less than it asked for, and all of it was taken.
    pub(super) fn is_drained(&self) -> bool {
        self.short && self.unread.is_empty()
    }

    /// The frame that is under way lacks so much.
    pub(super) fn lacks(&mut self, lacks: usize) {
        self.lacks = lacks;
    }

    /// The next bytes are done with.
    pub(super) fn skip(&mut self, n: usize) {
        self.unread.advance(n);
    }

    /// Reads more. What is asked for grows while reads bring as much, and shrinks when they have been small for long.
    /// Gives how much came, 0 at the end.
    pub(super) fn poll_fill(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let asked = if self.lacks > 0 { self.lacks + BEYOND } else { self.read }.min(LARGE_READ + BEYOND);
        let n = if asked <= SMALL_READ {
            let mut scratch = [MaybeUninit::uninit(); SMALL_READ];
            let mut read = ReadBuf::uninit(&mut scratch);
            ready!(Pin::new(wire).poll_read(cx, &mut read))?;
            self.unread.extend_from_slice(read.filled());
            self.size = self.size.max(self.unread.capacity());
            read.filled().len()
        } else {
            self.make_room(asked);
            ready!(poll_read_buf(Pin::new(wire), cx, &mut (&mut self.unread).limit(asked)))?
        };
        self.short = n < asked;
        self.lacks = self.lacks.saturating_sub(n);
        if n >= self.read {
            self.read = (self.read * 4).min(LARGE_READ);
        }
        self.small_reads = if n < self.read / 4 { self.small_reads + 1 } else { 0 };
        if self.small_reads == SMALL_READS {
            self.small_reads = 0;
            self.read = SMALL_READ;
            self.spares = Vec::new();
        }
        Poll::Ready(Ok(n))
    }

    /// Has room for so much more behind what is unread: where it is, in a buffer that is free again, or in a new one.
    fn make_room(&mut self, more: usize) {
        if self.unread.capacity() - self.unread.len() >= more || self.unread.try_reclaim(more) {
            return;
        }
        let wanted = self.unread.len() + more;
        // The newest first: where readers keep up it is free, and still in the cache.
        let free = self.spares.iter_mut().rposition(|(spare, _)| spare.try_reclaim(wanted));
        let spare = free.map(|at| self.spares.remove(at));
        // One that is longer than most is not copied for each read.
        let new = wanted.max(2 * self.unread.len()).max(BUFFER);
        let (mut room, size) = spare.unwrap_or_else(|| (BytesMut::with_capacity(new), new));
        room.extend_from_slice(&self.unread);
        let mut old = (mem::replace(&mut self.unread, room), mem::replace(&mut self.size, size));
        if self.read > SMALL_READ && self.spares.len() < MAX_SPARES && (BUFFER..=MAX_SPARE).contains(&old.1) {
            old.0.clear();
            self.spares.push(old);
        }
    }

    /// The next bytes, unmasked. Few of them are copied, so that a message that stays unread pins no more than about
    /// four times its size, and the buffer is free to be used again.
    pub(super) fn take(&mut self, len: usize, key: Option<[u8; 4]>) -> BytesMut {
        let mut payload = if len < self.size / 4 {
            let copy = BytesMut::from(&self.unread[..len]);
            self.unread.advance(len);
            copy
        } else if len == self.unread.len() && self.size <= SMALL_READ {
            mem::take(&mut self.unread)
        } else {
            self.unread.split_to(len)
        };
        if self.unread.is_empty() && (self.read == SMALL_READ || self.size > MAX_SPARE) {
            self.unread = BytesMut::new();
            self.size = 0;
        }
        if let Some(key) = key {
            mask(&mut payload, key);
        }
        payload
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::link::pipe::{Pace, Pipe};

    /// What came, from a pipe that gives all it has.
    struct Reader {
        inbound: Inbound,
        pipe: Pipe,
        wire: Wire,
    }

    impl Reader {
        fn new() -> Self {
            let pipe = Pipe::new(Pace::default(), Pace::default(), false);
            let wire = Wire::new(pipe.clone(), &[]);
            Self { inbound: Inbound::new(), pipe, wire }
        }

        /// One whose reads have become large.
        fn in_bulk() -> Self {
            let mut reader = Self::new();
            (0..3).for_each(|_| drop(reader.read_and_take(LARGE_READ)));
            assert_eq!(reader.inbound.read, LARGE_READ);
            reader
        }

        /// Reads once while so much is there; how much came. What was there and was not read is gone.
        fn read(&mut self, available: usize) -> usize {
            self.pipe.replace(&vec![7; available]);
            let filled = self.inbound.poll_fill(&mut self.wire, &mut Context::from_waker(Waker::noop()));
            let Poll::Ready(Ok(n)) = filled else { panic!("{filled:?}") };
            n
        }

        fn read_and_take(&mut self, available: usize) -> BytesMut {
            let n = self.read(available);
            self.inbound.take(n, None)
        }

        fn holds(&self) -> usize {
            self.inbound.size + self.inbound.spares.iter().map(|(_, size)| size).sum::<usize>()
        }
    }

    #[test]
    fn an_idle_link_holds_no_buffer() {
        let mut reader = Reader::new();
        assert_eq!(reader.holds(), 0);
        for _ in 0..3 {
            assert_eq!(reader.read_and_take(1000).len(), 1000);
            assert_eq!(reader.holds(), 0);
        }
        reader.pipe.replace(b"");
        assert!(reader.inbound.poll_fill(&mut reader.wire, &mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(reader.holds(), 0);
    }

    #[test]
    fn reads_ask_for_more_while_they_bring_as_much() {
        let mut reader = Reader::new();
        let sizes = [0; 5].map(|_| reader.read_and_take(1 << 20).len());
        assert_eq!(sizes, [SMALL_READ, 4 * SMALL_READ, LARGE_READ, LARGE_READ, LARGE_READ]);
    }

    #[test]
    fn a_message_longer_than_a_read_is_not_copied_for_each_read() {
        let mut reader = Reader::new();
        let (len, mut reads, mut places) = (4 << 20, 0, Vec::new());
        while reader.inbound.unread.len() < len {
            reader.inbound.lacks(len - reader.inbound.unread.len());
            reader.read(LARGE_READ);
            reads += 1;
            places.push(reader.inbound.unread.as_ptr());
        }
        places.dedup();
        assert!(reads > 60 && places.len() < 9, "{reads} reads, at {} places", places.len());
    }

    #[test]
    fn buffers_whose_messages_are_gone_are_used_again() {
        let mut reader = Reader::in_bulk();
        let kept = [0; 3].map(|_| reader.read_and_take(LARGE_READ));
        let places = kept.each_ref().map(|message| message.as_ptr());
        drop(kept);
        for _ in 0..20 {
            let message = reader.read_and_take(LARGE_READ);
            assert!(places.contains(&message.as_ptr()), "a buffer of its own");
        }
        let spares = reader.inbound.spares.len();
        assert!(
            (1..=4).contains(&spares),
            "{spares}: one was put back for each that was used, and not by the allocator"
        );
    }

    #[test]
    fn few_buffers_wait_to_be_used_again() {
        let mut reader = Reader::in_bulk();
        let kept: Vec<_> = (0..3 * MAX_SPARES).map(|_| reader.read_and_take(LARGE_READ)).collect();
        assert_eq!(reader.inbound.spares.len(), MAX_SPARES);
        assert!(kept.iter().flatten().all(|byte| *byte == 7), "none was used again too early");
    }

    #[test]
    fn after_small_reads_in_a_row_all_buffers_are_given_back() {
        let mut reader = Reader::in_bulk();
        let kept = [0; 3].map(|_| reader.read_and_take(LARGE_READ));
        for _ in 0..2 {
            (1..SMALL_READS).for_each(|_| drop(reader.read_and_take(100)));
            assert_eq!(reader.read_and_take(LARGE_READ).len(), LARGE_READ, "a large one between them");
        }
        (1..SMALL_READS).for_each(|_| drop(reader.read_and_take(100)));
        assert!(reader.holds() >= LARGE_READ);
        drop(reader.read_and_take(100));
        assert_eq!(reader.holds(), 0);
        drop(kept);
    }

    #[test]
    fn a_payload_pins_four_times_its_length_at_the_most_wherever_in_a_buffer_it_lies() {
        for len in [100, 1000, 4000, 16_000] {
            let mut reader = Reader::in_bulk();
            reader.read(LARGE_READ);
            while reader.inbound.unread.len() > len {
                let (at, size) = (reader.inbound.unread.as_ptr(), reader.inbound.size);
                assert_ne!(reader.inbound.take(len, None).as_ptr(), at, "{len} bytes pin {size}");
            }
        }
        // The read that makes the buffer small again still is of the large one.
        let mut reader = Reader::in_bulk();
        for _ in 0..SMALL_READS {
            reader.read(1000);
            let at = reader.inbound.unread.as_ptr();
            assert_ne!(reader.inbound.take(1000, None).as_ptr(), at);
        }
        assert_eq!(reader.holds(), 0);
    }

    #[test]
    fn a_buffer_for_a_message_beyond_the_common_length_is_not_kept() {
        let mut reader = Reader::in_bulk();
        let len = 4 << 20;
        while reader.inbound.unread.len() < len {
            reader.inbound.lacks(len - reader.inbound.unread.len());
            reader.read(LARGE_READ);
        }
        let message = reader.inbound.take(reader.inbound.unread.len(), None);
        assert!(message.len() >= len && reader.holds() <= MAX_SPARES * MAX_SPARE, "{}", reader.holds());
        assert_eq!(reader.inbound.size, 0);
    }

    #[test]
    fn a_short_payload_is_copied_out_of_a_large_buffer_and_a_long_one_is_not() {
        let mut reader = Reader::in_bulk();
        reader.read(LARGE_READ);
        let at = reader.inbound.unread.as_ptr();
        assert_ne!(reader.inbound.take(1000, None).as_ptr(), at);
        let at = reader.inbound.unread.as_ptr();
        assert_eq!(reader.inbound.take(LARGE_READ - 1000, None).as_ptr(), at);
    }
}

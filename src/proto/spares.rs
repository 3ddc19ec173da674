//! Large buffers that wait to be used again.

use bytes::{Bytes, BytesMut};

/// From this length on buffers are used again: freed in bursts, as acks come, they would be given back to the system
/// and faulted in anew (measured: a third of the CPU time of eight busy streams).
pub(crate) const LARGE: usize = 32 * 1024;

/// How many buffers wait: 2 MiB of them, what eight busy streams have under way over a long way.
const MAX_SPARES: usize = 32;

/// Empty buffers of bytes that were acked.
#[derive(Debug, Default)]
pub(crate) struct Spares(Vec<BytesMut>);

impl Spares {
    /// An empty buffer with room for `len` bytes, and for not many more.
    pub(crate) fn take(&mut self, len: usize) -> BytesMut {
        let fits = |spare: &BytesMut| spare.capacity() >= len;
        let at = if len >= LARGE { self.0.iter().rposition(fits) } else { None };
        at.map_or_else(|| BytesMut::with_capacity(len), |at| self.0.swap_remove(at))
    }

    /// Has the buffer behind these bytes used again, unless something else still holds a part of it.
    pub(crate) fn put(&mut self, bytes: Bytes) {
        if self.0.len() < MAX_SPARES
            && let Ok(mut buffer) = bytes.try_into_mut()
        {
            buffer.clear();
            // The parts before this one are free as well.
            if buffer.capacity() >= LARGE || buffer.try_reclaim(LARGE) {
                self.0.push(buffer);
            }
        }
    }

    /// Gives all back.
    pub(crate) fn give_back(&mut self) {
        self.0 = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(mut buffer: BytesMut, len: usize) -> Bytes {
        buffer.resize(len, 7);
        buffer.freeze()
    }

    #[test]
    fn a_large_buffer_is_used_again_once_nobody_holds_any_of_it() {
        let mut spares = Spares::default();
        let mut parts = filled(spares.take(LARGE), LARGE);
        let at = parts.as_ptr();
        let first = parts.split_to(LARGE / 2);
        spares.put(first.clone());
        assert!(spares.0.is_empty(), "the rest is held");
        drop(first);
        spares.put(parts);
        let again = spares.take(LARGE);
        assert_eq!((again.as_ptr(), again.len()), (at, 0), "all of it, not only the last part");
    }

    #[test]
    fn small_ones_are_left_to_the_allocator_and_so_are_those_beyond_the_bound() {
        let mut spares = Spares::default();
        let small = filled(spares.take(LARGE / 2), LARGE / 2);
        spares.put(small);
        assert!(spares.0.is_empty());
        let many: Vec<Bytes> = (0..2 * MAX_SPARES).map(|_| filled(spares.take(LARGE), LARGE)).collect();
        many.into_iter().for_each(|bytes| spares.put(bytes));
        assert_eq!(spares.0.len(), MAX_SPARES);
        assert!(spares.take(LARGE * 4).capacity() >= LARGE * 4, "one that fits, or a new one");
        assert_eq!(spares.take(1).capacity(), 1, "small ones leave them alone");
        assert_eq!(spares.0.len(), MAX_SPARES);
        spares.give_back();
        assert_eq!(spares.0.capacity(), 0);
    }
}

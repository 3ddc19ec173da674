//! What there is for each stream, found by its id and in the order of ids.

use std::{collections::VecDeque, mem};

use crate::frame::StreamId;

/// A sorted ring. Ids rise, and streams that were opened together mostly end together: so most are found by their
/// distance from the last or the first without a search, and little is moved when one goes; half of them at the most,
/// which is cheap up to some thousands. (Measured with 64 streams that come and go: a B-tree's searches were a quarter of
/// the instructions of a dial.)
#[derive(Debug)]
pub(crate) struct Table<T> {
    entries: VecDeque<(StreamId, T)>,
}

/// A table with room for so many keeps it until none is left.
const SMALL: usize = 16;

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new() }
    }
}

impl<T> Table<T> {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub(crate) fn get(&self, id: StreamId) -> Option<&T> {
        let guess = self.guess(id);
        if self.is_at(guess, id) {
            return self.entries.get(guess).map(|(_, value)| value);
        }
        let at = self.search(id).ok()?;
        self.entries.get(at).map(|(_, value)| value)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: StreamId) -> Option<&mut T> {
        let guess = self.guess(id);
        if self.is_at(guess, id) {
            return self.entries.get_mut(guess).map(|(_, value)| value);
        }
        let at = self.search(id).ok()?;
        self.entries.get_mut(at).map(|(_, value)| value)
    }

    /// In the order of ids.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (StreamId, &mut T)> {
        self.entries.iter_mut().map(|(id, value)| (*id, value))
    }

    /// In the order of ids.
    #[cfg(any(feature = "server", feature = "agent"))]
    pub(crate) fn into_values(self) -> impl Iterator<Item = T> {
        self.entries.into_iter().map(|(_, value)| value)
    }

    /// Puts a value in, and gives the one that was there before.
    pub(crate) fn insert(&mut self, id: StreamId, value: T) -> Option<T> {
        if self.entries.back().is_none_or(|(last, _)| *last < id) {
            self.entries.push_back((id, value));
            return None;
        }
        match self.find(id) {
            Ok(at) => self.entries.get_mut(at).map(|(_, old)| mem::replace(old, value)),
            Err(at) => {
                self.entries.insert(at, (id, value));
                None
            }
        }
    }

    /// Takes what is there, and gives memory back once most of it is of no use.
    pub(crate) fn remove(&mut self, id: StreamId) -> Option<T> {
        let at = self.find(id).ok()?;
        let (_, value) = self.entries.remove(at)?;
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        } else if self.entries.capacity() > SMALL && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.capacity() / 2);
        }
        Some(value)
    }

    /// Where it is, or where it would be.
    fn find(&self, id: StreamId) -> Result<usize, usize> {
        let guess = self.guess(id);
        if self.is_at(guess, id) { Ok(guess) } else { self.search(id) }
    }

    /// Where it is if no id behind it is missing: nothing is further from the last one than the ids between them are many.
    fn guess(&self, id: StreamId) -> usize {
        let last = self.entries.back().map_or(0, |(last, _)| last.number());
        self.entries.len().wrapping_sub(1).wrapping_sub(last.wrapping_sub(id.number()) as usize)
    }

    fn is_at(&self, at: usize, id: StreamId) -> bool {
        self.entries.get(at).is_some_and(|(there, _)| *there == id)
    }

    /// Where it is, or where it would be, however many are missing.
    #[cold]
    fn search(&self, id: StreamId) -> Result<usize, usize> {
        // Old ones that stay have none missing before them, as a rule.
        let first = self.entries.front().map_or(0, |(first, _)| first.number());
        let from_first = id.number().wrapping_sub(first) as usize;
        if self.is_at(from_first, id) {
            return Ok(from_first);
        }
        self.entries.binary_search_by_key(&id, |(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn id(number: u32) -> StreamId {
        StreamId::new(number).unwrap()
    }

    proptest! {
        /// As a B-tree does, whatever comes and goes.
        #[test]
        fn it_is_a_sorted_map(steps in proptest::collection::vec((0..4_u8, 1..60_u32), 0..400)) {
            let (mut table, mut map) = (Table::default(), BTreeMap::new());
            for (value, (step, number)) in steps.into_iter().enumerate() {
                let id = id(number);
                match step {
                    0 => prop_assert_eq!(table.remove(id), map.remove(&id)),
                    1 => prop_assert_eq!(table.get_mut(id), map.get_mut(&id)),
                    _ => prop_assert_eq!(table.insert(id, value), map.insert(id, value)),
                }
                prop_assert_eq!((table.len(), table.get(id)), (map.len(), map.get(&id)));
            }
            prop_assert!(table.iter_mut().eq(map.iter_mut().map(|(id, value)| (*id, value))));
            #[cfg(any(feature = "server", feature = "agent"))]
            prop_assert!(table.into_values().eq(map.into_values()));
        }
    }

    #[test]
    fn it_keeps_little_memory_for_those_that_went() {
        let mut table = Table::default();
        (1..=1000).for_each(|n| assert_eq!(table.insert(id(n), n), None));
        for n in 1..=1000 {
            assert_eq!(table.remove(id(n)), Some(n));
            assert!(table.entries.capacity() <= SMALL.max(4 * table.len()));
        }
        assert_eq!(table.entries.capacity(), 0);
    }
}

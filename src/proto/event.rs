//! What a session tells its owner.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
    time::Duration,
};

use crate::frame::{CloseCode, StreamId};

/// Something that the owner of a session may have waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer opened a stream: [`Session::incoming`](crate::proto::Session::incoming) has it.
    Opened,
    /// The peer answered an open, or it failed: [`Session::opened`](crate::proto::Session::opened) tells.
    Answered(StreamId),
    /// A stream whose last read found nothing has bytes, its end, or an error.
    Readable(StreamId),
    /// A stream whose last write found no room has room, or an error.
    Writable(StreamId),
    /// The peer reads no more of a stream: it said so, reset it, or the session ended. Once for each stream.
    Stopped(StreamId),
    /// An open that found too many unanswered may be tried again.
    OpensAvailable,
    /// The peer drains.
    Draining {
        /// Why; with 4410 nothing new is connected.
        code: CloseCode,
        /// When the peer cuts off what still runs, from now.
        deadline: Duration,
        /// Connect anew after a random part of this.
        jitter: Duration,
        /// Free text for the log.
        reason: Arc<str>,
    },
    /// The link is dead: close it with 4408 and tell the session by
    /// [`Session::link_down`](crate::proto::Session::link_down).
    LinkDead(DeadCause),
    /// The session ended: [`Session::ended`](crate::proto::Session::ended) tells why.
    Ended,
}

/// By what a link is held for dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadCause {
    /// No byte came in for the dead-peer time.
    Silent,
    /// Counted messages were outstanding and none was newly acked for the dead-peer time.
    NoAck,
}

/// Which event it is: what happened, and to which stream.
type Key = (u8, Option<StreamId>);

/// Events that wait for the owner, in order, each at most once: however seldom it asks, streams bound them.
#[derive(Debug, Default)]
pub(crate) struct Events {
    queue: VecDeque<Event>,
    /// What stands in `queue`, since that held more than [`FEW`] until it was empty again.
    waiting: HashSet<Key, BuildHasherDefault<KeyHasher>>,
}

/// So many events are compared one by one, which costs less than to hash them.
const FEW: usize = 8;

/// Spreads keys by a multiplication. Ids that a peer picks to collide make it compare no more of them than there may be
/// streams.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(n.into());
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        // The golden ratio's fraction, as in Fibonacci hashing.
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        // The table looks at the low bits.
        self.0.rotate_left(32)
    }
}

impl Event {
    fn stream(&self) -> Option<StreamId> {
        match self {
            Self::Answered(id) | Self::Readable(id) | Self::Writable(id) | Self::Stopped(id) => Some(*id),
            Self::Opened | Self::OpensAvailable | Self::Draining { .. } | Self::LinkDead(_) | Self::Ended => None,
        }
    }

    fn key(&self) -> Key {
        let kind = match self {
            Self::Opened => 0,
            Self::Answered(_) => 1,
            Self::Readable(_) => 2,
            Self::Writable(_) => 3,
            Self::Stopped(_) => 4,
            Self::OpensAvailable => 5,
            Self::Draining { .. } => 6,
            Self::LinkDead(_) => 7,
            Self::Ended => 8,
        };
        (kind, self.stream())
    }
}

impl Events {
    /// Adds an event. One of its kind that waits already makes do, with the words of the new one.
    pub(crate) fn push(&mut self, event: Event) {
        let key = event.key();
        let is_new = !self.waiting.is_empty() && self.waiting.insert(key);
        let same = if is_new { None } else { self.queue.iter_mut().find(|waiting| waiting.key() == key) };
        match same {
            Some(waiting) => *waiting = event,
            None => self.queue.push_back(event),
        }
        if self.waiting.is_empty() && self.queue.len() > FEW {
            self.waiting.extend(self.queue.iter().map(Event::key));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        let event = self.queue.pop_front()?;
        if !self.waiting.is_empty() {
            self.waiting.remove(&event.key());
        }
        Some(event)
    }

    /// Drops what concerns a stream that is forgotten.
    pub(crate) fn forget_stream(&mut self, id: StreamId) {
        self.forget(|event| event.stream() == Some(id));
    }

    /// Drops what concerns a link that is gone: it would be taken for a word about the next one.
    pub(crate) fn forget_link(&mut self) {
        self.forget(|event| matches!(event, Event::LinkDead(_)));
    }

    fn forget(&mut self, is_stale: impl Fn(&Event) -> bool) {
        let waiting = &mut self.waiting;
        self.queue.retain(|event| {
            let stale = is_stale(event);
            if stale && !waiting.is_empty() {
                waiting.remove(&event.key());
            }
            !stale
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> StreamId {
        StreamId::new(number).unwrap()
    }

    fn draining(code: CloseCode) -> Event {
        Event::Draining { code, deadline: Duration::ZERO, jitter: Duration::ZERO, reason: "".into() }
    }

    #[test]
    fn an_event_waits_once_and_in_order_and_the_last_words_count() {
        let mut events = Events::default();
        for event in
            [Event::Readable(id(1)), draining(CloseCode::RESTART), Event::Readable(id(2)), Event::Readable(id(1))]
        {
            events.push(event);
        }
        events.push(draining(CloseCode::REPLACED));
        assert_eq!(events.pop(), Some(Event::Readable(id(1))));
        assert_eq!(events.pop(), Some(draining(CloseCode::REPLACED)));
        events.push(Event::Readable(id(1)));
        assert_eq!(events.pop(), Some(Event::Readable(id(2))));
        assert_eq!(events.pop(), Some(Event::Readable(id(1))));
        assert_eq!(events.pop(), None);
    }

    #[test]
    fn of_many_events_too_each_waits_once_and_again_after_it_was_taken() {
        let many = 3 * FEW as u32;
        let mut events = Events::default();
        for _ in 0..2 {
            (0..2).for_each(|_| (1..=many).for_each(|n| events.push(Event::Readable(id(n)))));
            events.forget_stream(id(many));
            for n in 1..many {
                assert_eq!(events.pop(), Some(Event::Readable(id(n))));
                events.push(Event::Writable(id(1)));
            }
            assert_eq!([events.pop(), events.pop()], [Some(Event::Writable(id(1))), None]);
            assert!(events.is_empty() && events.waiting.is_empty());
        }
    }

    #[test]
    fn what_concerns_a_forgotten_stream_or_link_is_dropped() {
        let mut events = Events::default();
        events.push(Event::Stopped(id(1)));
        events.push(Event::Stopped(id(2)));
        events.push(Event::LinkDead(DeadCause::Silent));
        events.forget_stream(id(1));
        events.forget_link();
        events.push(Event::Ended);
        assert_eq!(events.pop(), Some(Event::Stopped(id(2))));
        assert_eq!(events.pop(), Some(Event::Ended));
        assert_eq!(events.pop(), None);
    }
}

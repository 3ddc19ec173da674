//! What a session tells its owner.

use std::{collections::VecDeque, sync::Arc, time::Duration};

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

/// The kinds of events that wait for the owner: of one stream, or of none.
#[derive(Debug, Default)]
pub(crate) struct EventSet(u16);

impl EventSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// Notes that this one waits; `false`: it did so before.
    fn add(&mut self, event: &Event) -> bool {
        let before = self.0;
        self.0 |= event.bit();
        self.0 != before
    }

    /// Notes that this one waits no more.
    pub(crate) fn remove(&mut self, event: &Event) {
        self.0 &= !event.bit();
    }
}

/// Events that wait for the owner, in order, each at most once: however seldom it asks, streams bound them.
#[derive(Debug, Default)]
pub(crate) struct Events {
    queue: VecDeque<Event>,
    /// Those of no stream; each stream has its own.
    waiting: EventSet,
}

impl Event {
    pub(crate) fn stream(&self) -> Option<StreamId> {
        match self {
            Self::Answered(id) | Self::Readable(id) | Self::Writable(id) | Self::Stopped(id) => Some(*id),
            Self::Opened | Self::OpensAvailable | Self::Draining { .. } | Self::LinkDead(_) | Self::Ended => None,
        }
    }

    /// What kind it is.
    const fn bit(&self) -> u16 {
        match self {
            Self::Opened => 1,
            Self::Answered(_) => 1 << 1,
            Self::Readable(_) => 1 << 2,
            Self::Writable(_) => 1 << 3,
            Self::Stopped(_) => 1 << 4,
            Self::OpensAvailable => 1 << 5,
            Self::Draining { .. } => 1 << 6,
            Self::LinkDead(_) => 1 << 7,
            Self::Ended => 1 << 8,
        }
    }
}

impl Events {
    /// Adds an event of no stream. One of its kind that waits already makes do, with the words of the new one.
    pub(crate) fn push(&mut self, event: Event) {
        if self.waiting.add(&event) {
            self.queue.push_back(event);
        } else if let Some(same) = self.queue.iter_mut().find(|waiting| waiting.bit() == event.bit()) {
            *same = event;
        }
    }

    /// Adds an event of the stream that has this set, unless it is in that.
    pub(crate) fn push_of(&mut self, set: &mut EventSet, event: Event) {
        if set.add(&event) {
            self.queue.push_back(event);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The oldest. If it is a stream's, that is to be told by [`EventSet::remove`].
    pub(crate) fn pop(&mut self) -> Option<Event> {
        let event = self.queue.pop_front()?;
        self.waiting.remove(&event);
        Some(event)
    }

    /// Drops what concerns a stream that is forgotten.
    pub(crate) fn forget_stream(&mut self, id: StreamId, set: &EventSet) {
        if !set.is_empty() {
            self.queue.retain(|event| event.stream() != Some(id));
        }
    }

    /// Drops what concerns a link that is gone: it would be taken for a word about the next one.
    pub(crate) fn forget_link(&mut self) {
        let dead = Event::LinkDead(DeadCause::Silent);
        self.queue.retain(|event| event.bit() != dead.bit());
        self.waiting.remove(&dead);
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
        let (mut events, mut streams) = (Events::default(), [EventSet::default(), EventSet::default()]);
        events.push_of(&mut streams[0], Event::Readable(id(1)));
        events.push(draining(CloseCode::RESTART));
        events.push_of(&mut streams[1], Event::Readable(id(2)));
        events.push_of(&mut streams[0], Event::Readable(id(1)));
        events.push(draining(CloseCode::REPLACED));
        assert_eq!(events.pop(), Some(Event::Readable(id(1))));
        streams[0].remove(&Event::Readable(id(1)));
        assert_eq!(events.pop(), Some(draining(CloseCode::REPLACED)));
        events.push_of(&mut streams[0], Event::Readable(id(1)));
        events.push(draining(CloseCode::RESTART));
        assert_eq!(events.pop(), Some(Event::Readable(id(2))));
        assert_eq!(events.pop(), Some(Event::Readable(id(1))));
        assert_eq!(events.pop(), Some(draining(CloseCode::RESTART)));
        assert_eq!(events.pop(), None);
    }

    #[test]
    fn events_of_one_stream_and_of_none_are_told_apart() {
        let (mut events, mut waiting) = (Events::default(), EventSet::default());
        let all = [Event::Answered(id(1)), Event::Readable(id(1)), Event::Writable(id(1)), Event::Stopped(id(1))];
        let others =
            [Event::Opened, Event::OpensAvailable, Event::LinkDead(DeadCause::NoAck), draining(CloseCode::RESTART)];
        for _ in 0..2 {
            all.iter().for_each(|event| events.push_of(&mut waiting, event.clone()));
            others.iter().chain([&Event::Ended]).for_each(|event| events.push(event.clone()));
        }
        for event in all.into_iter().chain(others).chain([Event::Ended]) {
            assert_eq!(events.pop(), Some(event));
        }
        assert!(events.is_empty());
    }

    #[test]
    fn what_concerns_a_forgotten_stream_or_link_is_dropped() {
        let (mut events, mut streams) = (Events::default(), [EventSet::default(), EventSet::default()]);
        events.push_of(&mut streams[0], Event::Stopped(id(1)));
        events.push_of(&mut streams[1], Event::Stopped(id(2)));
        events.push(Event::LinkDead(DeadCause::Silent));
        events.forget_stream(id(1), &streams[0]);
        events.forget_link();
        events.push(Event::Ended);
        events.push(Event::LinkDead(DeadCause::NoAck));
        assert_eq!(events.pop(), Some(Event::Stopped(id(2))));
        assert_eq!(events.pop(), Some(Event::Ended));
        assert_eq!(events.pop(), Some(Event::LinkDead(DeadCause::NoAck)));
        assert_eq!(events.pop(), None);
    }
}

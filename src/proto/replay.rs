//! Counted messages, kept until the peer says that it has them.

use std::collections::VecDeque;

use super::{
    error::Violation,
    spares::{LARGE, Spares},
};
use crate::frame::{CloseCode, Message};

/// What keeping one message costs beside its bytes: its entry here and the allocation's own.
const KEEPING: usize = 128;

/// The counted messages of one direction of a session that the peer may still miss.
#[derive(Debug)]
pub(crate) struct Replay {
    /// Unacked messages in order; the first has number `acked + 1`.
    kept: VecDeque<Message>,
    acked: u64,
    /// How many of `kept` were given to the present link.
    sent: usize,
    bytes: usize,
    /// Buffers of large messages that were acked.
    spares: Spares,
    /// Nothing is kept: the session ends with its link.
    off: bool,
}

impl Replay {
    /// For a session that sends up to `bound` bytes ahead.
    pub(crate) fn new(bound: usize) -> Self {
        Self { kept: VecDeque::new(), acked: 0, sent: 0, bytes: 0, spares: Spares::new(bound), off: false }
    }

    /// From now on nothing is kept: what was sent counts as acked.
    pub(crate) fn turn_off(&mut self) {
        self.off = true;
    }

    /// Whether nothing is kept, nor to be acked.
    pub(crate) fn is_off(&self) -> bool {
        self.off
    }

    /// What a message of this length costs while it is kept.
    pub(crate) fn cost(len: usize) -> usize {
        len.saturating_add(KEEPING)
    }

    /// The cost of all that is kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whether the peer has told before that it has handled more than `received` messages.
    pub(crate) fn is_stale(&self, received: u64) -> bool {
        received < self.acked && !self.off
    }

    /// The number of the next new message.
    pub(crate) fn next_number(&self) -> u64 {
        self.acked.saturating_add(self.kept.len() as u64).saturating_add(1)
    }

    /// Keeps a new message, which is now given to the link.
    pub(crate) fn keep(&mut self, message: Message) {
        debug_assert_eq!(self.sent, self.kept.len(), "a new message before the kept ones");
        if self.off {
            self.acked = self.acked.saturating_add(1);
            return;
        }
        self.bytes = self.bytes.saturating_add(Self::cost(message.len()));
        self.kept.push_back(message);
        self.sent = self.kept.len();
    }

    /// The peer has handled `received` messages. Tells whether any of them is news.
    pub(crate) fn forget(&mut self, received: u64) -> Result<bool, Violation> {
        if received >= self.next_number() {
            return Err(Violation::new(CloseCode::FORBIDDEN, "received more messages than were sent"));
        }
        let news = received > self.acked;
        while self.acked < received
            && let Some(message) = self.kept.pop_front()
        {
            self.acked = self.acked.saturating_add(1);
            self.sent = self.sent.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(Self::cost(message.len()));
            if message.len() >= LARGE {
                message.into_pieces().for_each(|piece| self.spares.put(piece));
            }
        }
        Ok(news)
    }

    /// Buffers for what is to be sent.
    pub(crate) fn spares(&mut self) -> &mut Spares {
        &mut self.spares
    }

    /// Gives spare buffers back, if nothing is under way.
    pub(crate) fn rest(&mut self) {
        if self.kept.is_empty() {
            self.spares.give_back();
        }
    }

    /// A new link, whose peer has handled `received` messages: the rest is to be sent again. Tells whether any of
    /// those is news.
    pub(crate) fn rewind(&mut self, received: u64) -> Result<bool, Violation> {
        if received < self.acked {
            return Err(Violation::new(CloseCode::FORBIDDEN, "received fewer messages than were acked"));
        }
        let news = self.forget(received)?;
        self.sent = 0;
        Ok(news)
    }

    /// Whether messages wait to be sent again.
    pub(crate) fn is_due(&self) -> bool {
        self.sent < self.kept.len()
    }

    /// The next message to be sent again.
    pub(crate) fn next(&mut self) -> Option<Message> {
        let message = self.kept.get(self.sent)?.clone();
        self.sent = self.sent.saturating_add(1);
        Some(message)
    }

    /// Forgets all, at the end of the session.
    pub(crate) fn clear(&mut self) {
        self.kept = VecDeque::new();
        self.spares.give_back();
        self.sent = 0;
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn with(messages: usize) -> Replay {
        let mut replay = Replay::new(1 << 20);
        for n in 0..messages {
            replay.keep(Bytes::from(vec![n as u8; 10]).into());
        }
        replay
    }

    #[test]
    fn what_the_peer_has_is_forgotten_and_the_rest_sent_again_in_order() {
        let mut replay = with(3);
        assert!(!replay.is_due());
        assert_eq!(replay.rewind(1), Ok(true));
        assert_eq!(replay.next().unwrap().into_bytes()[0], 1);
        assert_eq!(replay.next().unwrap().into_bytes()[0], 2);
        assert_eq!(replay.next(), None);
        assert_eq!(replay.next_number(), 4);
        assert_eq!(replay.bytes(), 2 * Replay::cost(10));
    }

    #[test]
    fn counts_that_cannot_be_are_violations() {
        let mut replay = with(3);
        assert!(replay.forget(4).is_err());
        assert_eq!(replay.forget(2), Ok(true));
        assert_eq!(replay.forget(1), Ok(false), "an older count is ignored");
        assert!(replay.rewind(1).is_err(), "but not on a new link");
        assert!(replay.forget(u64::MAX).is_err());
    }

    #[test]
    fn the_buffers_of_large_messages_are_used_again_unless_the_link_holds_them_and_given_back_at_rest() {
        let mut replay = Replay::new(1 << 20);
        let keep = |replay: &mut Replay| {
            let mut buffer = replay.spares().take(LARGE);
            let at = buffer.as_ptr();
            buffer.resize(LARGE, 7);
            replay.keep(buffer.freeze().into());
            at
        };
        let first = keep(&mut replay);
        let _in_the_link = replay.kept[0].clone();
        let second = keep(&mut replay);
        replay.forget(2).unwrap();
        assert_eq!(keep(&mut replay), second);
        assert_ne!(keep(&mut replay), first, "the link holds a clone");
        replay.forget(3).unwrap();
        replay.rest();
        assert_eq!(keep(&mut replay), second, "something is under way");
        replay.forget(5).unwrap();
        assert_eq!(replay.spares().len(), 2);
        replay.rest();
        assert!(replay.is_empty() && replay.spares().len() == 0);
    }

    #[test]
    fn what_is_not_kept_counts_as_acked() {
        let mut replay = Replay::new(1 << 20);
        replay.turn_off();
        replay.keep(Bytes::from_static(b"x").into());
        assert_eq!((replay.next_number(), replay.bytes(), replay.is_empty(), replay.is_due()), (2, 0, true, false));
        assert_eq!(replay.forget(0), Ok(false));
        assert_eq!(replay.forget(1), Ok(false));
        assert!(replay.forget(2).is_err(), "more than were sent");
        assert!(replay.rewind(0).is_err(), "there is nothing to send again");
    }

    #[test]
    fn an_ack_during_the_replay_moves_it_on() {
        let mut replay = with(4);
        replay.rewind(0).unwrap();
        replay.next();
        assert_eq!(replay.forget(3), Ok(true));
        assert_eq!(replay.next().unwrap().into_bytes()[0], 3);
    }
}

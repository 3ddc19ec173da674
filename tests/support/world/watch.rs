//! What does a side owe on its present link? Notice of a dead one in time, DRAIN again, a PONG for a PING and no other.

use std::time::{Duration, Instant};

use bytes::Bytes;
use revdial::{
    frame::Frame,
    proto::{DeadCause, Session},
};

use crate::pair::frames;

#[derive(Debug, Clone)]
pub(crate) struct Watch {
    /// The last byte that came in.
    heard: Instant,
    /// Since when messages are outstanding and none is newly acked.
    unacked: Option<Instant>,
    /// The peer has said something on this link, or on the last one.
    spoken: bool,
    /// A counted message, or the ack of one, got through on it.
    progress: bool,
    /// This side drains, and has not said so on this link.
    owes_drain: bool,
    drains: bool,
    /// PINGs that are not answered.
    pings: u32,
}

impl Watch {
    pub(crate) fn new(now: Instant) -> Self {
        let (spoken, progress, owes_drain, drains) = (false, false, false, false);
        Self { heard: now, unacked: None, spoken, progress, owes_drain, drains, pings: 0 }
    }

    /// A new link; `news`: by its first message something was newly acked.
    pub(crate) fn up(&mut self, now: Instant, outstanding: bool, news: bool) {
        let drains = self.drains;
        *self =
            Self { drains, owes_drain: drains, progress: news, unacked: outstanding.then_some(now), ..Self::new(now) };
    }

    pub(crate) fn drain(&mut self) {
        (self.drains, self.owes_drain) = (true, true);
    }

    pub(crate) fn hear(&mut self, now: Instant, message: &Bytes, number: u64, news: bool, outstanding: bool) {
        (self.heard, self.spoken) = (now, true);
        self.progress |= news || number > 0;
        if news || !outstanding {
            self.unacked = outstanding.then_some(now);
        }
        if number == 0 && frames(message.clone()).iter().any(|frame| matches!(frame, Frame::Ping(_))) {
            self.pings += 1;
        }
    }

    pub(crate) fn say(&mut self, now: Instant, message: &Bytes, number: u64) {
        if number > 0 {
            self.unacked.get_or_insert(now);
            return;
        }
        for frame in frames(message.clone()) {
            match frame {
                Frame::Drain { .. } => self.owes_drain = false,
                Frame::Ping(_) => assert!(!self.owes_drain, "a PING before DRAIN"),
                Frame::Pong(_) => assert!(std::mem::take(&mut self.pings) > 0, "a PONG to nothing of this link"),
                _ => {}
            }
        }
    }

    /// M-50, M-53.
    pub(crate) fn check(&self, now: Instant, session: &Session, dead_after: Duration) {
        assert_eq!(session.heard(), self.spoken, "M-53: whether the peer has spoken");
        assert_eq!(session.progress(), self.progress, "whether anything got through");
        if session.is_up() {
            assert!(now < self.heard + dead_after, "M-50: a silent link is not noticed");
            assert!(self.unacked.is_none_or(|since| now < since + dead_after), "M-50: no acks, and not noticed");
        }
    }

    /// A link is held for dead: M-50.
    pub(crate) fn dead(&self, now: Instant, cause: DeadCause, dead_after: Duration) {
        let since = if cause == DeadCause::Silent { Some(self.heard) } else { self.unacked };
        assert!(since.is_some_and(|since| since + dead_after <= now), "M-50: dead too early, {cause:?}");
    }

    /// Nothing more is to be said, though the link would take it.
    pub(crate) fn all_said(&self) {
        assert!(!self.owes_drain, "M-57: DRAIN is not said again");
        assert!(self.pings == 0, "a PING without a PONG");
    }
}

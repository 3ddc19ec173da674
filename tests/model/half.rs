//! What does one side of a session count, keep and send again?

use crate::{
    mutant::Mutant,
    state::{Id, Message, Side, Wrong},
    tunnel::Tunnel,
};

/// What the application sends: its `place`-th word in this session, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Payload {
    pub(crate) session: Id,
    pub(crate) place: u8,
}

/// A counted message, unchanged until the peer has it: its head says what was received when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Kept {
    pub(crate) payload: Payload,
    pub(crate) received: u8,
}

/// One side of a session, without its links.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Half {
    /// Messages that the peer may lack; the first has number `acked + 1`.
    pub(crate) kept: Vec<Kept>,
    pub(crate) acked: u8,
    /// How many of `kept` were given to the present link.
    pub(crate) given: u8,
    /// Counted messages of the peer that were received.
    pub(crate) received: u8,
    /// Something was received and no message has left since that says so.
    pub(crate) ack_due: bool,
    /// What the application has sent.
    pub(crate) made: u8,
    /// What the application was given.
    pub(crate) handled: u8,
    /// What is counted and not handled yet: only a mutant has such.
    pub(crate) waiting: Option<Payload>,
}

/// What a side sends next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Replay,
    New,
    Uncounted,
}

impl Half {
    /// The number of the last message that was made.
    pub(crate) fn sent(&self) -> u8 {
        self.acked + self.kept.len() as u8
    }

    /// A link is bound whose peer has received so many messages: the rest is to be sent again.
    pub(crate) fn link_up(&mut self, peer_has: u8, rules: &Tunnel) -> Result<(), Wrong> {
        if peer_has < self.acked || peer_has > self.sent() {
            return Err(Wrong::Violation);
        }
        if !rules.lack(Mutant::ReplayTooEarly) {
            self.on_received(peer_has)?;
        }
        self.given = u8::from(rules.lack(Mutant::ReplayTooLate) && !self.kept.is_empty());
        self.ack_due = false;
        Ok(())
    }

    /// The link is gone, and with it what it has delivered and nobody handled.
    pub(crate) fn link_down(&mut self) {
        self.given = 0;
        self.ack_due = false;
        self.waiting = None;
    }

    /// The peer says how much it has received; an older word is no news.
    fn on_received(&mut self, peer_has: u8) -> Result<(), Wrong> {
        if peer_has > self.sent() {
            return Err(Wrong::Violation);
        }
        let news = peer_has.saturating_sub(self.acked);
        self.kept.drain(..usize::from(news));
        self.acked += news;
        self.given = self.given.saturating_sub(news);
        Ok(())
    }

    /// Whose turn it is: what the peer lacks goes before anything new, and the bound holds up only that.
    pub(crate) fn turn(&self, side: Side, rules: &Tunnel) -> Option<Turn> {
        let full = self.kept.len() >= usize::from(rules.bound);
        let may_write = rules.may_write(side, self);
        if may_write && rules.is_uncounted(side, self.made + 1) {
            return Some(Turn::Uncounted);
        }
        if usize::from(self.given) < self.kept.len() {
            return (!full || !rules.lack(Mutant::ReplayBlockedAtBound)).then_some(Turn::Replay);
        }
        (may_write && (!full || rules.lack(Mutant::BoundUnchecked))).then_some(Turn::New)
    }

    /// The next message for the link.
    pub(crate) fn next(&mut self, side: Side, session: Id, rules: &Tunnel) -> Option<Message> {
        let received = self.received;
        let payload = Payload { session, place: self.made + 1 };
        match self.turn(side, rules)? {
            Turn::Replay => {
                let kept = self.kept[usize::from(self.given)];
                self.given += 1;
                // Its head bears an old ack, so that a new one stays due.
                let number = self.acked + self.given;
                Some(Message::Counted { number, payload: kept.payload, received: kept.received })
            }
            Turn::Uncounted => {
                self.made += 1;
                self.ack_due = false;
                Some(Message::Uncounted { payload, received })
            }
            Turn::New => {
                self.made += 1;
                self.ack_due = false;
                let number = self.sent() + 1;
                if rules.lack(Mutant::ForgetOnSend) {
                    self.acked += 1;
                } else {
                    self.kept.push(Kept { payload, received });
                    self.given += 1;
                }
                Some(Message::Counted { number, payload, received })
            }
        }
    }

    /// An ack that leaves alone.
    pub(crate) fn ack(&mut self) -> Message {
        self.ack_due = false;
        Message::Ack { received: self.received }
    }

    /// A message has come on the link that is bound.
    pub(crate) fn on_message(&mut self, message: Message, session: Id, rules: &Tunnel) -> Result<(), Wrong> {
        match message {
            Message::Hello(_) | Message::Welcome { .. } | Message::Refused => Err(Wrong::Violation),
            Message::Ack { received } => self.on_received(received),
            Message::Uncounted { payload, received } => {
                self.on_received(received)?;
                self.on_payload(payload, session)
            }
            Message::Counted { number, payload, received } => {
                self.on_received(received)?;
                if number <= self.received {
                    return Err(Wrong::Duplicate);
                }
                if number > self.received + 1 {
                    return Err(Wrong::Violation);
                }
                self.ack_due = true;
                self.received += 1;
                if !rules.lack(Mutant::AckBeforeHandling) {
                    return self.on_payload(payload, session);
                }
                self.waiting.replace(payload).map_or(Ok(()), |before| self.on_payload(before, session))
            }
        }
    }

    /// What was counted before is handled.
    pub(crate) fn on_handled(&mut self, session: Id) -> Result<(), Wrong> {
        self.waiting.take().map_or(Ok(()), |payload| self.on_payload(payload, session))
    }

    /// The application is given what came.
    fn on_payload(&mut self, payload: Payload, session: Id) -> Result<(), Wrong> {
        let next = Payload { session, place: self.handled + 1 };
        if payload != next {
            return Err(Wrong::Order);
        }
        self.handled += 1;
        Ok(())
    }
}

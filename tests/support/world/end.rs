//! What does one side of a session do? A real [`Session`], its holders' handles, and a check of all that it gives.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Debug,
    time::{Duration, Instant},
};

use bytes::Bytes;
use revdial::{
    frame::{Bounds, CloseCode, MessageHead, StreamId, decode},
    proto::{Event, Role, Session, SessionConfig, SessionEnd, Violation},
};

use super::{
    ledger::{Cause, Record, Serial},
    seen::What,
    watch::Watch,
};
use crate::pair::Side;

/// What a handle may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wait {
    Read,
    Write,
    Answer,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Handle {
    pub(crate) accepted: bool,
    pub(crate) written: u64,
    pub(crate) read: u64,
    pub(crate) finished: bool,
    pub(crate) ended: bool,
    pub(crate) failed: bool,
}

/// What a session asks of its owner.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    pub(crate) dead: bool,
    pub(crate) drains: Option<(CloseCode, Duration, Duration)>,
}

#[derive(Debug)]
pub(crate) struct End {
    pub(crate) serial: Serial,
    pub(crate) side: Side,
    pub(crate) session: Session,
    /// Does all that `session` does, until it is taken for another machine's.
    twin: Option<Session>,
    pub(crate) config: SessionConfig,
    pub(crate) handles: BTreeMap<StreamId, Handle>,
    pub(crate) parked: BTreeSet<(StreamId, Wait)>,
    pub(crate) opener_parked: bool,
    /// The messages that the peer may lack, and how many came before.
    kept: VecDeque<Bytes>,
    pub(crate) acked: u64,
    /// How many links in a row were bound with messages outstanding and none newly acked.
    fruitless: u32,
    /// Since when there is, or was, a link.
    pub(crate) linked: Instant,
    pub(crate) cause: Option<Cause>,
    /// CLOSE, of a session that ended in order.
    last_word: Option<Bytes>,
    pub(crate) watch: Watch,
}

impl End {
    pub(crate) fn new(
        side: Side,
        serial: Serial,
        config: &SessionConfig,
        peer: Bounds,
        twin: bool,
        now: Instant,
    ) -> Self {
        let role = if side == Side::Server { Role::Server } else { Role::Agent };
        let session = || Session::new(role, config.clone(), peer, serial);
        Self {
            serial,
            side,
            session: session(),
            twin: twin.then(session),
            config: config.clone(),
            handles: BTreeMap::new(),
            parked: BTreeSet::new(),
            opener_parked: false,
            kept: VecDeque::new(),
            acked: 0,
            fruitless: 0,
            linked: now,
            cause: None,
            last_word: None,
            watch: Watch::new(now),
        }
    }

    /// The same session on another machine, if it can be had.
    pub(crate) fn copy(&mut self) -> Option<Self> {
        let session = self.twin.take()?;
        let (parked, handles, kept) = (self.parked.clone(), self.handles.clone(), self.kept.clone());
        let config = self.config.clone();
        Some(Self {
            session,
            twin: None,
            config,
            handles,
            parked,
            kept,
            cause: None,
            last_word: None,
            watch: self.watch.clone(),
            ..*self
        })
    }

    /// Both sessions, where there are two, do the same.
    pub(crate) fn call<R: PartialEq + Debug>(&mut self, mut call: impl FnMut(&mut Session) -> R) -> R {
        let result = call(&mut self.session);
        if let Some(twin) = &mut self.twin {
            assert_eq!(call(twin), result, "the same inputs give the same outputs");
        }
        result
    }

    /// How many counted messages were made.
    pub(crate) fn sent(&self) -> u64 {
        self.acked + self.kept.len() as u64
    }

    /// A link is bound, whose peer has so many messages. [M-46] is the only violation between correct peers.
    pub(crate) fn up(&mut self, now: Instant, has: u64, record: &Record) -> Result<(), Violation> {
        self.linked = now;
        if record.forked {
            self.watch.up(now, true, true);
            return self.call(|session| session.link_up(now, has));
        }
        assert!(self.acked <= has && has <= self.sent(), "a count that cannot be: {has} of {}", self.sent());
        let news = has > self.acked;
        self.forget(has);
        self.fruitless += u32::from(!news && !self.kept.is_empty());
        self.watch.up(now, !self.kept.is_empty(), news);
        let result = self.call(|session| session.link_up(now, has));
        let endless = self.side == Side::Server && self.fruitless > 10;
        assert_eq!(result.map_err(|violation| violation.code()).err(), endless.then_some(CloseCode::FLOOD));
        result
    }

    pub(crate) fn down(&mut self, now: Instant) {
        self.call(|session| session.link_down(now));
    }

    fn forget(&mut self, has: u64) {
        while self.acked < has && self.kept.pop_front().is_some() {
            self.acked += 1;
            self.fruitless = 0;
        }
    }

    /// A message from the bound link.
    pub(crate) fn hear(&mut self, now: Instant, message: &Bytes, record: &Record) {
        let head = head(message);
        let before = self.acked;
        if !record.forked {
            assert!(head.received <= self.sent(), "more was received than was sent");
            let expected = self.session.received() + 1;
            assert!(head.number == 0 || head.number == expected, "{head:?} instead of {expected}");
            self.forget(head.received);
        }
        self.watch.hear(now, message, head.number, self.acked > before, !self.kept.is_empty());
        self.call(|session| session.handle_activity(now));
        let result = self.call(|session| session.handle_message(now, message.clone()));
        assert!(result.is_ok() || record.forked, "a correct peer broke a rule: {result:?}");
    }

    /// What is to be sent: each counted message the first time, or again as it was.
    pub(crate) fn say(&mut self, now: Instant, record: &Record) -> Option<Bytes> {
        let Some(message) = self.call(|session| session.poll_transmit(now).map(Bytes::from)) else {
            if self.session.is_up() && self.session.ended().is_none() {
                self.watch.all_said();
            }
            return None;
        };
        if self.session.ended().is_some() {
            assert!(self.kept.is_empty() || record.forked, "M-54: closed before all was acked");
            self.last_word = Some(message);
            return None;
        }
        let MessageHead { number, received } = head(&message);
        self.watch.say(now, &message, number);
        if record.forked || number == 0 {
            return Some(message);
        }
        if number > self.sent() {
            assert_eq!(number, self.sent() + 1, "a number was left out");
            assert_eq!(received, self.session.received());
            self.kept.push_back(message.clone());
        } else {
            let at = number.checked_sub(self.acked + 1).expect("not what the peer has") as usize;
            assert_eq!(self.kept[at], message, "M-45: sent again unchanged");
        }
        Some(message)
    }

    /// What an ended session has to say.
    pub(crate) fn last_word(&mut self, now: Instant) -> Option<Bytes> {
        let last = self.last_word.take();
        last.or_else(|| self.call(|session| session.poll_transmit(now).map(Bytes::from)))
    }

    /// Whoever an event names is woken.
    pub(crate) fn take_events(&mut self, now: Instant, record: &mut Record) -> Asks {
        let mut asks = Asks::default();
        while let Some(event) = self.call(Session::poll_event) {
            match event {
                Event::Readable(id) => drop(self.parked.remove(&(id, Wait::Read))),
                Event::Writable(id) => drop(self.parked.remove(&(id, Wait::Write))),
                Event::Answered(id) => {
                    self.parked.remove(&(id, Wait::Answer));
                    self.look(now, record, id);
                }
                Event::OpensAvailable => self.opener_parked = false,
                Event::LinkDead(cause) => {
                    asks.dead = true;
                    if !record.forked {
                        self.watch.dead(now, cause, self.config.dead_after);
                    }
                }
                Event::Draining { code, deadline, jitter, .. } => {
                    record.hear_drain(self.side);
                    asks.drains = Some((code, deadline, jitter));
                }
                _ => {}
            }
        }
        asks
    }

    pub(crate) fn drain(&mut self, code: CloseCode, deadline: Duration, jitter: Duration) {
        self.watch.drain();
        self.call(|session| session.drain(code, deadline, jitter, "drain"));
    }

    /// Ends it, without a word to the peer.
    pub(crate) fn end(&mut self, end: &SessionEnd, cause: Cause) {
        if self.session.ended().is_none() {
            self.cause = Some(cause);
            self.call(|session| session.end(end.clone()));
        }
    }

    /// Ends it with a word to the peer, if there is a link.
    pub(crate) fn close(&mut self, code: CloseCode, end: &SessionEnd, cause: Cause) {
        if self.session.ended().is_none() {
            self.cause = Some(cause);
            self.call(|session| session.close(code, "", end.clone()));
        }
    }

    /// The session has ended: its holders read what arrived, learn that, and go; nothing is left.
    pub(crate) fn bury(mut self, now: Instant, record: &mut Record) {
        let end = self.session.ended().expect("it has ended").clone();
        record.end(self.side, &end, self.cause);
        self.take_events(now, record);
        for id in self.handles.keys().copied().collect::<Vec<_>>() {
            while self.read(now, record, id, usize::MAX) > 0 {}
            self.write(now, record, id, 1);
            let handle = &self.handles[&id];
            assert!(handle.failed || handle.ended || !handle.accepted, "{id:?} outlives its session");
            self.detach(record, id);
        }
        let stats = self.session.stats();
        if stats.replayed_bytes > 0 {
            record.seen.see(What::Replayed);
        }
        let left = (stats.streams, stats.buffered_bytes, stats.unread_bytes, self.session.poll_timeout());
        assert_eq!(left, (0, 0, 0, None), "{:?} is left of an ended session", self.side);
    }

    /// Once all is done that is due.
    pub(crate) fn check_watch(&self, now: Instant, record: &Record) {
        let due = self.session.poll_timeout().is_some_and(|at| at <= now);
        if !due && !record.forked {
            self.watch.check(now, &self.session, self.config.dead_after);
        }
    }

    /// I4 and I3: what is kept and what is unread stay within their bounds, and no message came twice.
    pub(crate) fn check(&self, record: &Record) {
        let (stats, config) = (self.session.stats(), &self.config);
        assert!(stats.buffered_bytes <= config.send_bound + 66 * 1024, "{stats:?}");
        assert!(stats.unread_bytes <= config.recv_budget, "{stats:?}");
        assert!(stats.streams <= config.max_streams as usize, "{stats:?}");
        assert!(stats.duplicate_messages == 0 || record.forked, "{stats:?}");
        assert_eq!(self.session.ended(), None);
    }
}

pub(crate) fn head(message: &Bytes) -> MessageHead {
    decode(message.clone()).expect("a message of ours").0
}

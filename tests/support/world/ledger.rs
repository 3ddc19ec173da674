//! What may be seen of a stream or a session? A record of what its holders did, against which all that they see is held.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use revdial::{
    frame::{CloseCode, ResetCode, SessionId, StreamId},
    proto::{SessionEnd, StreamError},
};

use super::seen::{Seen, What};
use crate::pair::Side;

/// Which session, of all that there were.
pub(crate) type Serial = u64;

pub(crate) fn id_of(serial: Serial) -> SessionId {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&serial.to_be_bytes());
    SessionId::new(id)
}

pub(crate) fn serial_of(id: SessionId) -> Serial {
    Serial::from_be_bytes(id.as_bytes()[8..].try_into().expect("eight bytes"))
}

/// Why a side gave a session up, other than by what the session itself heard and said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The grace, or the agent's hold, ran out; nothing is held.
    Expired,
    /// The process went away.
    Gone,
    /// Its agent began anew while the key was in grace.
    Outlived,
    /// It was drained and its time was over, or it was the oldest of too many.
    DrainOver,
    /// The agent has a newer session, and no link for this one.
    MovedOn,
    /// The server does not know it any more: WELCOME brought another one.
    Unknown,
    /// 4409: it is in other hands.
    Stale,
    /// The agent was replaced: 4410.
    Replaced,
    /// The other side closed the WebSocket with a code that ends sessions.
    Closed(CloseCode),
    /// Two machines went on with it.
    Forked,
}

/// One session.
#[derive(Debug, Default)]
pub(crate) struct Record {
    streams: BTreeMap<StreamId, Story>,
    /// Why each side's end is no more.
    ended: BTreeMap<Side, String>,
    /// Who asked for an orderly end,
    asked: BTreeSet<Side>,
    /// who drains it,
    drained: BTreeSet<Side>,
    /// and who knows that the other one does.
    heard_drain: BTreeSet<Side>,
    /// Machines that have, or had, the server's link, since there are two.
    holders: BTreeSet<usize>,
    /// There are two machines that have it: what its agent wrote is not to be told.
    pub(crate) copied: bool,
    /// Both have had the server's link: anything may be in it, and 4420 is what mostly comes of it.
    pub(crate) forked: bool,
    pub(crate) seen: Seen,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Story {
    /// Before this nobody gives the open up.
    overdue: Instant,
    server: Told,
    agent: Told,
}

/// What the holder at one side did.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) written: u64,
    pub(crate) finished: bool,
    pub(crate) reset: bool,
    pub(crate) detached: bool,
}

impl Story {
    pub(crate) fn of(&mut self, side: Side) -> &mut Told {
        match side {
            Side::Server => &mut self.server,
            Side::Agent => &mut self.agent,
        }
    }
}

impl Record {
    pub(crate) fn open(&mut self, id: StreamId, overdue: Instant) {
        let story = Story { overdue, server: Told::default(), agent: Told::default() };
        assert!(self.streams.insert(id, story).is_none(), "{id:?} was opened before");
    }

    pub(crate) fn story(&mut self, id: StreamId) -> &mut Story {
        self.streams.get_mut(&id).unwrap_or_else(|| panic!("{id:?} was never opened"))
    }

    pub(crate) fn told(&mut self, id: StreamId, side: Side) -> &mut Told {
        self.story(id).of(side)
    }

    /// A side asks for an orderly end.
    pub(crate) fn ask(&mut self, side: Side) {
        self.asked.insert(side);
    }

    pub(crate) fn drain(&mut self, side: Side) {
        self.drained.insert(side);
    }

    pub(crate) fn hear_drain(&mut self, side: Side) {
        self.heard_drain.insert(side);
    }

    /// Whether a side opens nothing any more.
    pub(crate) fn is_draining(&self, side: Side) -> bool {
        self.asked.contains(&side) || self.drained.contains(&side) || self.heard_drain.contains(&side)
    }

    /// Whether a side may end it by itself: it was asked to, or drains, and the peer opens nothing any more.
    fn may_end(&self, side: Side) -> bool {
        self.asked.contains(&side) || (self.drained.contains(&side) && self.heard_drain.contains(&side.other()))
    }

    pub(crate) fn has_ended(&self, side: Side) -> bool {
        self.ended.contains_key(&side)
    }

    /// A second machine has the session. `bound`: the one that has the server's link.
    pub(crate) fn copy(&mut self, bound: Option<usize>) {
        self.copied = true;
        self.holders.extend(bound);
    }

    /// The server binds a link of this machine.
    pub(crate) fn bind(&mut self, holder: usize) {
        if self.copied {
            self.holders.insert(holder);
            if self.holders.len() > 1 && !std::mem::replace(&mut self.forked, true) {
                self.seen.see(What::Forked);
            }
        }
    }

    /// I10: a side's end of the session is over, for a reason that is one.
    pub(crate) fn end(&mut self, side: Side, end: &SessionEnd, cause: Option<Cause>) {
        let other = side.other();
        self.seen_end(side, end, cause);
        let stated = match (end, cause) {
            _ if self.forked => true,
            // M-46, which `End::up` has checked; no other rule is broken here.
            (SessionEnd::Unresumable(violation), _) => violation.code() == CloseCode::FLOOD && side == Side::Server,
            (SessionEnd::Lost | SessionEnd::Replaced, Some(_)) => true,
            (SessionEnd::Replaced, None) if self.may_end(side) => true, // drained with 4410
            // By CLOSE, or by a close code: the peer's end is over before.
            (SessionEnd::ClosedByPeer { .. } | SessionEnd::Replaced, None) => self.has_ended(other),
            (SessionEnd::ClosedByPeer { .. }, Some(Cause::Closed(_))) => self.has_ended(other),
            (SessionEnd::Shutdown, None) => self.may_end(side),
            (SessionEnd::Shutdown, Some(Cause::DrainOver)) => true,
            _ => false,
        };
        assert!(stated, "the {side:?}'s session ended for no reason: {end:?}, {cause:?}");
        self.ended.entry(side).or_insert_with(|| format!("{end:?}, {cause:?}"));
    }

    fn seen_end(&mut self, side: Side, end: &SessionEnd, cause: Option<Cause>) {
        self.seen.see(match (end, cause) {
            (SessionEnd::Unresumable(violation), _) if violation.code() == CloseCode::FLOOD => What::Fruitless,
            (SessionEnd::Unresumable(_), _) => What::Mismatch,
            (_, Some(Cause::Expired)) if side == Side::Server => What::Expired,
            (_, Some(Cause::Expired)) => What::HeldOut,
            (_, Some(Cause::Unknown)) => What::Unknown,
            (_, Some(Cause::Outlived)) => What::Outlived,
            (_, Some(Cause::Stale)) => What::Stale,
            (_, Some(Cause::Replaced)) => What::Replaced,
            (_, Some(Cause::DrainOver)) => What::DrainOver,
            (SessionEnd::Shutdown, None) if self.asked.contains(&side) => What::ShutDown,
            (SessionEnd::Shutdown | SessionEnd::Replaced, None) if self.drained.contains(&side) => What::Drained,
            _ => return,
        });
    }

    /// A holder at `side` saw that its stream failed.
    pub(crate) fn failed(
        &mut self,
        id: StreamId,
        side: Side,
        error: &StreamError,
        now: Instant,
        later: Option<Instant>,
    ) {
        match error {
            StreamError::Reset { .. } => self.seen.see(What::Reset),
            StreamError::Unanswered => self.seen.see(What::Unanswered),
            StreamError::Session(_) => self.seen.see(What::Lost),
            _ => {}
        }
        if self.forked {
            return;
        }
        let copied = self.copied;
        let story = self.story(id);
        let overdue = now >= later.max(Some(story.overdue)).unwrap_or(now);
        let peer = story.of(side.other());
        let stated = match error {
            StreamError::Reset { code, reason } => match side {
                // An agent may refuse what is within the bounds while its program holds streams that are past.
                Side::Server => peer.reset || *code == ResetCode::TOO_MANY_STREAMS,
                Side::Agent if &**reason == "not answered in time" => overdue,
                Side::Agent => peer.reset,
            },
            StreamError::Stopped(_) => peer.detached,
            StreamError::Unanswered => side == Side::Server && overdue,
            StreamError::Session(_) => true, // `end` has judged that
            _ => false,
        };
        let stated = stated || (copied && side == Side::Server);
        assert!(stated, "{id:?} of the {side:?} failed for no reason: {error:?} of {story:?}");
    }
}

//! What the handles, streams and the driver of one session share: the session, its link's epoch, and the wakers of
//! those who wait. Always behind the lock.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{budget::Charge, report::News};
use crate::{
    frame::{Bounds, CloseCode},
    key::Epoch,
    proto::{Event, Role, Session, SessionConfig, SessionEnd, SessionStats, Table},
};

mod after;
mod links;
mod opens;
mod parked;
mod waiting;

use links::LinkSlot;
use opens::QueuedOpen;
use parked::Parked;
use waiting::Slots;

pub(crate) use links::BindError;
pub(super) use {
    after::After,
    waiting::{Rounds, Wait, Waiters},
};

/// What the peer said in DRAIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerDrain {
    /// Why; with 4410 nothing new is connected.
    pub(crate) code: CloseCode,
    /// For how long what runs may go on, from when DRAIN came.
    pub(crate) deadline: Duration,
    /// Connect anew after a random part of this.
    pub(crate) jitter: Duration,
}

/// Whether the driver of the bound link goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It does.
    Live,
    /// Nothing was heard for too long.
    Dead,
    /// The session ended.
    Ended(SessionEnd),
}

/// What is behind the lock.
pub(super) struct State {
    pub(super) session: Session,
    /// The code and words with which this side ends the session, where it does.
    pub(super) closing: Option<(CloseCode, Arc<str>)>,
    link: LinkSlot,
    dead: bool,
    driver: Option<Parked>,
    streams: Table<Slots>,
    opens: BTreeMap<u64, QueuedOpen>,
    incoming: Waiters,
    ended: Waiters,
    drains: Waiters,
    peer_drain: Option<PeerDrain>,
    /// What the metrics have been told.
    reported: SessionStats,
    /// Where what it holds without a link is charged.
    pub(super) charge: Option<Charge>,
    /// Since when the bound link is.
    up_since: Option<Instant>,
    tickets: u64,
    rounds: Arc<Rounds>,
    after: After,
}

impl State {
    /// `session` without a link; its first one has `epoch` or a later one.
    pub(super) fn new(session: Session, epoch: Epoch) -> Self {
        Self {
            session,
            closing: None,
            link: LinkSlot::Awaited(epoch),
            dead: false,
            driver: None,
            streams: Table::default(),
            opens: BTreeMap::new(),
            incoming: Waiters::default(),
            ended: Waiters::default(),
            drains: Waiters::default(),
            peer_drain: None,
            reported: SessionStats::default(),
            charge: None,
            up_since: None,
            tickets: 0,
            rounds: Arc::default(),
            after: After::default(),
        }
    }

    /// Charges what the session holds, if it has no link.
    pub(super) fn recharge(&mut self) {
        let Some(charge) = &mut self.charge else { return };
        let paused = !self.session.is_up() && self.session.ended().is_none();
        let stats = paused.then(|| self.session.stats());
        charge.set(stats.map_or(0, |stats| stats.buffered_bytes + stats.unread_bytes));
    }

    /// What the peer said last in DRAIN, if it drains.
    pub(super) fn peer_drain(&self) -> Option<PeerDrain> {
        self.peer_drain
    }

    /// What the metrics have not been told yet.
    pub(super) fn unreported(&mut self) -> News {
        let now = self.session.stats();
        News::new(&mem::replace(&mut self.reported, now), &now)
    }

    /// Whether the bound link goes on.
    pub(super) fn verdict(&self) -> Verdict {
        match self.session.ended() {
            Some(end) => Verdict::Ended(end.clone()),
            None if self.dead => Verdict::Dead,
            None => Verdict::Live,
        }
    }

    /// Whether anybody is woken once the lock is released.
    pub(super) fn wakes(&self) -> bool {
        self.after.wakes()
    }

    /// What is to be done once the lock is released.
    pub(super) fn take_after(&mut self) -> After {
        mem::take(&mut self.after)
    }

    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// Turns the session's events into wakers.
    #[inline]
    pub(super) fn settle(&mut self) {
        if self.session.has_events() {
            self.settle_events();
        }
    }

    fn settle_events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            let after = &mut self.after;
            match event {
                Event::Opened => {
                    self.rounds.sets.fetch_add(1, Ordering::Release);
                    after.wake(self.incoming.take());
                }
                Event::Answered(id) => after.wake(self.streams.get_mut(id).and_then(|slots| slots.answer.take())),
                Event::Readable(id) => {
                    self.rounds.reads.fetch_add(1, Ordering::Release);
                    after.wake(self.streams.get_mut(id).and_then(|slots| slots.read.take()));
                }
                Event::Writable(id) => after.wake(self.streams.get_mut(id).and_then(|slots| slots.write.take())),
                Event::Stopped(id) => after.wake(self.streams.get_mut(id).and_then(|slots| slots.stopped.take())),
                Event::OpensAvailable => self.open_queued(),
                Event::Draining { code, deadline, jitter, .. } => {
                    self.peer_drain = Some(PeerDrain { code, deadline, jitter });
                    self.rounds.sets.fetch_add(1, Ordering::Release);
                    after.wake(self.drains.take());
                    self.open_queued();
                }
                Event::LinkDead(_) => self.dead = true,
                Event::Ended => self.wake_all(),
            }
        }
    }

    fn wake_all(&mut self) {
        self.open_queued();
        self.rounds.sets.fetch_add(1, Ordering::Release);
        self.rounds.reads.fetch_add(1, Ordering::Release);
        let after = &mut self.after;
        after.wake(mem::take(&mut self.streams).into_values().flat_map(Slots::into_wakers));
        after.wake(self.incoming.take());
        after.wake(self.ended.take());
        self.unpark();
    }

    /// Puts an ended session in the place of one in which something panicked, and gives that, to be dropped. Boxed, as
    /// room for it would be moved about at each turn of the lock.
    pub(super) fn fall(&mut self) -> Box<Session> {
        let mut ended = Session::new(Role::Agent, SessionConfig::default(), Bounds::default(), 0);
        ended.end(SessionEnd::Internal);
        self.closing = Some((CloseCode::INTERNAL, "internal error".into()));
        let fallen = Box::new(mem::replace(&mut self.session, ended));
        // Finds the end, and wakes all.
        self.settle();
        fallen
    }
}

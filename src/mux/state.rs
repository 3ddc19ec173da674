//! What the handles, streams and the driver of one session share: the session, its link's epoch, and the wakers of
//! those who wait. Always behind the lock.

use std::{
    collections::BTreeMap,
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use super::{budget::Charge, report::News};
use crate::{
    frame::{Bounds, CloseCode, Metadata, StreamId},
    key::{Epoch, TargetName},
    proto::{Event, OpenError, Role, Session, SessionConfig, SessionEnd, SessionStats, Violation},
};

/// Opens that wait for others to be answered; beyond, they fail at once. As many as streams by default: more could
/// not all be open in the end.
const MAX_QUEUED_OPENS: usize = 1024;

/// Why a link is not bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BindError {
    /// A newer one is, or was.
    Stale,
    /// The session has ended.
    Ended,
    /// What the peer says it has cannot be, or it never takes anything; the session ends with that.
    Violation(Violation),
}

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
    streams: BTreeMap<StreamId, Slots>,
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

/// How often those who wait were woken, readable without the lock: a future whose task was woken for something else
/// need not take it to find that it was not meant.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// Those who wait in a set.
    pub(super) sets: AtomicU64,
    /// Readers of streams.
    pub(super) reads: AtomicU64,
}

/// Which link may act on the session. Epochs only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkSlot {
    /// None yet; from this epoch on, the first that comes.
    Awaited(Epoch),
    /// This one.
    Bound(Epoch),
    /// None since this one; a later one may.
    Gone(Epoch),
}

/// A driver that has nothing to do.
struct Parked {
    waker: Waker,
    /// Its link takes a message. If not, the link wakes it, and new data would only do so in vain.
    room: bool,
    /// When it wakes up by itself.
    timeout: Option<Instant>,
}

/// Who waits for one stream.
#[derive(Default)]
struct Slots {
    read: Option<Waker>,
    write: Option<Waker>,
    answer: Option<Waker>,
    stopped: Option<Waker>,
}

/// For what a task waits on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Bytes, the end or an error.
    Read,
    /// Room or an error.
    Write,
    /// The answer to an open.
    Answer,
    /// The peer's word that it reads no more.
    Stopped,
}

/// An open that waits its turn. It is opened for its task, in order, so that nobody can slip in between.
struct QueuedOpen {
    target: TargetName,
    metadata: Metadata,
    waker: Waker,
    outcome: Option<Result<StreamId, OpenError>>,
}

/// Wakers of futures that wait for the same thing, by ticket, so that a dropped future leaves nothing behind.
#[derive(Default)]
pub(super) struct Waiters(BTreeMap<u64, Waker>);

/// What is done with wakers once the lock is released. Small, as each turn of the lock moves it: as a rule it is one
/// wake-up or none.
#[derive(Debug, Default)]
pub(super) struct After {
    /// Woken first.
    first: Option<Waker>,
    rest: Option<Box<Rest>>,
}

#[derive(Debug, Default)]
struct Rest {
    wake: Vec<Waker>,
    discard: Vec<Waker>,
}

impl After {
    /// Wakes, and drops what was replaced. Either may run code that takes the lock.
    #[inline]
    pub(super) fn run(self) {
        if let Some(first) = self.first {
            first.wake();
        }
        if let Some(rest) = self.rest {
            rest.wake.into_iter().for_each(Waker::wake);
        }
    }

    /// Has these woken, in order.
    fn wake(&mut self, wakers: impl IntoIterator<Item = Waker>) {
        for waker in wakers {
            if self.first.is_none() {
                self.first = Some(waker);
            } else {
                self.rest.get_or_insert_default().wake.push(waker);
            }
        }
    }

    /// Has these dropped.
    fn discard(&mut self, wakers: impl IntoIterator<Item = Waker>) {
        for waker in wakers {
            self.rest.get_or_insert_default().discard.push(waker);
        }
    }
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
            streams: BTreeMap::new(),
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

    /// Binds the link with `epoch`: from here on the driver of the one before is superseded. Gives how many counted
    /// messages of the peer this side has, in the same critical section, so that nothing is handled in between; and
    /// whether the peer had spoken on the link before.
    pub(super) fn bind(&mut self, now: Instant, epoch: Epoch, peer_has: u64) -> Result<(u64, bool), BindError> {
        if self.session.ended().is_some() {
            return Err(BindError::Ended);
        }
        let newer = match self.link {
            LinkSlot::Awaited(first) => epoch >= first,
            LinkSlot::Bound(last) | LinkSlot::Gone(last) => epoch > last,
        };
        if !newer {
            return Err(BindError::Stale);
        }
        if let LinkSlot::Bound(_) = self.link {
            self.session.link_down(now);
        }
        self.after.wake(self.driver.take().map(|parked| parked.waker));
        self.dead = false;
        self.link = LinkSlot::Gone(epoch);
        let heard = self.session.heard();
        self.session.link_up(now, peer_has).map_err(BindError::Violation)?;
        self.link = LinkSlot::Bound(epoch);
        self.up_since = Some(now);
        Ok((self.session.received(), heard))
    }

    /// The bound link is gone. A later one may be bound.
    pub(super) fn unbind(&mut self, now: Instant) {
        if let LinkSlot::Bound(epoch) = self.link {
            self.link = LinkSlot::Gone(epoch);
            self.session.link_down(now);
            self.up_since = None;
        }
        self.after.discard(self.driver.take().map(|parked| parked.waker));
    }

    /// Charges what the session holds, if it has no link.
    pub(super) fn recharge(&mut self) {
        let Some(charge) = &mut self.charge else { return };
        let paused = !self.session.is_up() && self.session.ended().is_none();
        let stats = paused.then(|| self.session.stats());
        charge.set(stats.map_or(0, |stats| stats.buffered_bytes + stats.unread_bytes));
    }

    /// Since when there is a link; `None`: there is none.
    pub(super) fn up_since(&self) -> Option<Instant> {
        self.up_since
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

    /// Has the driver woken when there is something to send and its link has `room`, when a deadline comes to lie
    /// before the present one, which this gives, and when the session ends or another link is bound.
    pub(super) fn park(&mut self, waker: &Waker, room: bool) -> Option<Instant> {
        let timeout = self.session.poll_timeout();
        match &mut self.driver {
            Some(parked) if parked.waker.will_wake(waker) => (parked.room, parked.timeout) = (room, timeout),
            driver => {
                let old = driver.replace(Parked { waker: waker.clone(), room, timeout });
                self.after.discard(old.map(|old| old.waker));
            }
        }
        timeout
    }

    /// Has `waker` woken when `stream` has what is waited for. Only the last one is.
    pub(super) fn wait(&mut self, stream: StreamId, wait: Wait, waker: &Waker) {
        let slots = self.streams.entry(stream).or_default();
        let slot = match wait {
            Wait::Read => &mut slots.read,
            Wait::Write => &mut slots.write,
            Wait::Answer => &mut slots.answer,
            Wait::Stopped => &mut slots.stopped,
        };
        if !slot.as_ref().is_some_and(|old| old.will_wake(waker)) {
            self.after.discard(slot.replace(waker.clone()));
        }
    }

    /// Nobody waits for `stream` any more: its handle is gone.
    pub(super) fn forget(&mut self, stream: StreamId) {
        if let Some(slots) = self.streams.remove(&stream) {
            self.after.discard(slots.into_wakers());
        }
    }

    /// Queues an open for when others are answered; its ticket, or the error if the queue is full.
    pub(super) fn queue_open(
        &mut self,
        target: TargetName,
        metadata: Metadata,
        waker: &Waker,
    ) -> Result<u64, OpenError> {
        if self.opens.len() >= MAX_QUEUED_OPENS {
            return Err(OpenError::TooManyOpens);
        }
        let ticket = self.ticket();
        self.opens.insert(ticket, QueuedOpen { target, metadata, waker: waker.clone(), outcome: None });
        Ok(ticket)
    }

    /// What became of a queued open. `None`: nothing yet, and `waker` is woken when it does.
    pub(super) fn queued_open(&mut self, ticket: u64, waker: &Waker) -> Option<Result<StreamId, OpenError>> {
        let open = self.opens.get_mut(&ticket)?;
        if open.outcome.is_none() {
            if !open.waker.will_wake(waker) {
                self.after.discard([mem::replace(&mut open.waker, waker.clone())]);
            }
            return None;
        }
        self.unqueue_open(ticket)
    }

    /// Takes a queued open out of the queue, with what became of it.
    pub(super) fn unqueue_open(&mut self, ticket: u64) -> Option<Result<StreamId, OpenError>> {
        let open = self.opens.remove(&ticket)?;
        self.after.discard([open.waker]);
        open.outcome
    }

    /// Has `waker` woken once for the set that `of` picks; `ticket` is filled on the first call.
    pub(super) fn wait_in(&mut self, of: fn(&mut Self) -> &mut Waiters, ticket: &mut Option<u64>, waker: &Waker) {
        let ticket = match *ticket {
            Some(ticket) => ticket,
            None => *ticket.insert(self.ticket()),
        };
        let old = of(self).0.insert(ticket, waker.clone());
        self.after.discard(old);
    }

    /// How often those who wait were woken.
    pub(super) fn rounds(&self) -> Arc<Rounds> {
        Arc::clone(&self.rounds)
    }

    /// Undoes [`wait_in`](Self::wait_in).
    pub(super) fn leave(&mut self, of: fn(&mut Self) -> &mut Waiters, ticket: u64) {
        let old = of(self).0.remove(&ticket);
        self.after.discard(old);
    }

    /// Drops a waker once the lock is released, since that may run code that takes it.
    pub(super) fn drop_later(&mut self, waker: Option<Waker>) {
        self.after.discard(waker);
    }

    /// Who waits for a stream of the peer's.
    pub(super) fn incoming(&mut self) -> &mut Waiters {
        &mut self.incoming
    }

    /// Who waits for the peer's DRAIN.
    pub(super) fn drains(&mut self) -> &mut Waiters {
        &mut self.drains
    }

    /// Who waits for the end of the session.
    #[cfg(test)]
    pub(super) fn ended(&mut self) -> &mut Waiters {
        &mut self.ended
    }

    /// Whether the link with `epoch` is the bound one.
    pub(super) fn is_bound(&self, epoch: Epoch) -> bool {
        self.link == LinkSlot::Bound(epoch)
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
                    after.wake(mem::take(&mut self.incoming.0).into_values());
                }
                Event::Answered(id) => after.wake(self.streams.get_mut(&id).and_then(|slots| slots.answer.take())),
                Event::Readable(id) => {
                    self.rounds.reads.fetch_add(1, Ordering::Release);
                    after.wake(self.streams.get_mut(&id).and_then(|slots| slots.read.take()));
                }
                Event::Writable(id) => after.wake(self.streams.get_mut(&id).and_then(|slots| slots.write.take())),
                Event::Stopped(id) => after.wake(self.streams.get_mut(&id).and_then(|slots| slots.stopped.take())),
                Event::OpensAvailable => self.open_queued(),
                Event::Draining { code, deadline, jitter, .. } => {
                    self.peer_drain = Some(PeerDrain { code, deadline, jitter });
                    self.rounds.sets.fetch_add(1, Ordering::Release);
                    after.wake(mem::take(&mut self.drains.0).into_values());
                    self.open_queued();
                }
                Event::LinkDead(_) => self.dead = true,
                Event::Ended => self.wake_all(),
            }
        }
    }

    /// Opens what is queued, oldest first. What finds too many unanswered, for its target or in all, stays.
    fn open_queued(&mut self) {
        for open in self.opens.values_mut().filter(|open| open.outcome.is_none()) {
            match self.session.open(&open.target, open.metadata.clone()) {
                Err(OpenError::TooManyOpens) => {}
                outcome => {
                    open.outcome = Some(outcome);
                    self.after.wake([open.waker.clone()]);
                }
            }
        }
    }

    fn wake_all(&mut self) {
        self.open_queued();
        self.rounds.sets.fetch_add(1, Ordering::Release);
        self.rounds.reads.fetch_add(1, Ordering::Release);
        let after = &mut self.after;
        after.wake(mem::take(&mut self.streams).into_values().flat_map(Slots::into_wakers));
        after.wake(mem::take(&mut self.incoming.0).into_values());
        after.wake(mem::take(&mut self.ended.0).into_values());
        after.wake(self.driver.take().map(|parked| parked.waker));
    }

    /// Has the driver woken if there is something for it to do.
    pub(super) fn unpark_if_due(&mut self) {
        let Some(parked) = &self.driver else { return };
        let earlier = || self.session.poll_timeout().is_some_and(|due| parked.timeout.is_none_or(|armed| due < armed));
        if (parked.room && self.session.wants_transmit()) || earlier() {
            self.unpark();
        }
    }

    /// The same after what sets no deadline.
    pub(super) fn unpark_to_send(&mut self) {
        if self.driver.as_ref().is_some_and(|parked| parked.room) && self.session.wants_transmit() {
            self.unpark();
        }
    }

    fn unpark(&mut self) {
        self.after.wake(self.driver.take().map(|parked| parked.waker));
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

impl Slots {
    fn into_wakers(self) -> impl Iterator<Item = Waker> {
        [self.read, self.write, self.answer, self.stopped].into_iter().flatten()
    }
}

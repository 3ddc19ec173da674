//! The table of a session's streams: open, accept, look up, reap; the limits of ids and counts.

use std::{
    collections::VecDeque,
    mem,
    time::{Duration, Instant},
};

use super::{
    config::SessionConfig,
    error::{OpenError, StreamError, Violation},
    event::EventSet,
    flow::{Lender, SendCredit},
    recv_half::RecvHalf,
    send_half::SendHalf,
    table::Table,
    unanswered::Unanswered,
};
use crate::{
    frame::{Bounds, CloseCode, Metadata, ResetCode, StreamId},
    key::TargetName,
};

/// How far the opening of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// OPEN waits for a message.
    Queued,
    /// OPEN was sent, or has arrived; no ACCEPT yet.
    Unanswered,
    Accepted,
    /// Reset, or ended with its session, before an answer.
    Refused,
}

impl Phase {
    fn is_unanswered(self) -> bool {
        matches!(self, Self::Queued | Self::Unanswered)
    }
}

/// Frames of a stream, other than DATA and FIN, that wait for a message.
#[derive(Debug, Default)]
pub(crate) struct Due {
    pub(crate) open: Option<Box<Metadata>>,
    pub(crate) accept: bool,
    pub(crate) credit: bool,
    pub(crate) stop: Option<ResetCode>,
    pub(crate) reset: Option<Box<(ResetCode, String)>>,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) phase: Phase,
    pub(crate) target: TargetName,
    pub(crate) send: SendHalf,
    pub(crate) recv: RecvHalf,
    pub(crate) due: Due,
    /// Whether it counts among the unanswered: until ACCEPT, or until the RESET that ends its opening has left, since
    /// the peer counts likewise.
    counted: bool,
    /// Whether somebody holds a handle to it, or will be given one.
    pub(crate) held: bool,
    /// Whether it stands in the scheduler's line for control frames, and in that for data.
    pub(crate) in_control: bool,
    pub(crate) in_data: bool,
    /// Its events that the owner has not taken.
    pub(crate) events: EventSet,
}

impl Stream {
    /// Whether it can be forgotten: nobody holds it, nothing is to be sent, nothing will arrive. (STOP is due only
    /// while something may.)
    pub(crate) fn is_over(&self) -> bool {
        !self.held && self.due.open.is_none() && self.due.reset.is_none() && self.send.is_done() && self.recv.is_done()
    }

    /// It counts among the unanswered no more.
    fn uncount(&mut self, id: StreamId, unanswered: &mut Unanswered) {
        if mem::take(&mut self.counted) {
            unanswered.remove(id, &self.target);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Streams {
    /// Sorted, so that the same inputs give the same outputs. Boxed, as others are moved up when one is removed.
    table: Table<Box<Stream>>,
    /// The highest id given out, or seen in an OPEN.
    last: u32,
    /// The highest id whose OPEN was laid into a message.
    laid: u32,
    unanswered: Unanswered,
    /// Streams that the peer opened and nobody took yet.
    incoming: VecDeque<(StreamId, Metadata)>,
    lender: Lender,
    base_credit: u32,
    limits: Limits,
}

/// What both sides together allow.
#[derive(Debug)]
struct Limits {
    streams: usize,
    /// What the opener may send before ACCEPT.
    early_credit: u32,
    /// How far ahead the peer will ever grant.
    max_credit: u64,
}

impl Streams {
    pub(crate) fn new(config: &SessionConfig, peer: &Bounds) -> Self {
        let guaranteed = (config.max_streams as usize).saturating_mul(config.base_credit as usize);
        Self {
            table: Table::default(),
            last: 0,
            laid: 0,
            unanswered: Unanswered::new(
                config.max_opens.min(peer.max_opens),
                config.max_opens_per_target.min(peer.max_opens_per_target),
            ),
            incoming: VecDeque::new(),
            lender: Lender::new(
                config.recv_budget.saturating_sub(guaranteed),
                u64::from(config.base_credit).saturating_add(config.lent_credit.into()),
                config.bounds().max_credit,
            ),
            base_credit: config.base_credit,
            limits: Limits {
                streams: config.max_streams.min(peer.max_streams) as usize,
                early_credit: config.base_credit.min(peer.early_credit),
                max_credit: peer.max_credit,
            },
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.table.get(id).map(|stream| &**stream)
    }

    pub(crate) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.table.get_mut(id).map(|stream| &mut **stream)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (StreamId, &mut Stream)> {
        self.table.iter_mut().map(|(id, stream)| (id, &mut **stream))
    }

    /// A new stream of this side's, whose OPEN is due. The loan behind its credit is made at once.
    pub(crate) fn open(&mut self, target: &TargetName, metadata: Metadata) -> Result<StreamId, OpenError> {
        if self.table.len() >= self.limits.streams {
            return Err(OpenError::TooManyStreams);
        }
        if !self.unanswered.has_room(target) {
            return Err(OpenError::TooManyOpens);
        }
        let id = self.last.checked_add(1).and_then(StreamId::new).ok_or(OpenError::Exhausted)?;
        self.last = id.number();
        let mut stream = self.stream(Phase::Queued, target.clone(), self.limits.early_credit);
        stream.recv.window().begin(&mut self.lender);
        stream.due.open = Some(Box::new(metadata));
        self.unanswered.add(target);
        self.table.insert(id, stream);
        Ok(id)
    }

    /// The peer opened a stream and may send `base_credit` at once.
    ///
    /// `Ok(false)`: over a limit, the stream is to be refused.
    pub(crate) fn on_open(
        &mut self,
        id: StreamId,
        credit: u64,
        target: TargetName,
        metadata: Metadata,
    ) -> Result<bool, Violation> {
        if id.number() <= self.last {
            return Err(Violation::new(CloseCode::FORBIDDEN, "stream id used before, or lower than one used"));
        }
        self.last = id.number();
        self.laid = self.last;
        if self.table.len() >= self.limits.streams || !self.unanswered.has_room(&target) {
            return Ok(false);
        }
        let mut stream = self.stream(Phase::Unanswered, target, 0);
        stream.send.on_credit(credit)?;
        self.unanswered.add(&stream.target);
        self.table.insert(id, stream);
        self.incoming.push_back((id, metadata));
        Ok(true)
    }

    fn stream(&self, phase: Phase, target: TargetName, send_credit: u32) -> Box<Stream> {
        Box::new(Stream {
            phase,
            target,
            send: SendHalf::new(SendCredit::new(u64::from(send_credit), self.limits.max_credit)),
            recv: RecvHalf::new(self.base_credit.into()),
            due: Due::default(),
            counted: true,
            held: true,
            in_control: false,
            in_data: false,
            events: EventSet::default(),
        })
    }

    /// The oldest stream that nobody took yet.
    pub(crate) fn take_incoming(&mut self) -> Option<(StreamId, TargetName, Metadata)> {
        while let Some((id, metadata)) = self.incoming.pop_front() {
            if let Some(stream) = self.table.get(id) {
                return Some((id, stream.target.clone(), metadata));
            }
        }
        None
    }

    /// Forgets that a stream waits to be taken, since it is reset. Tells whether it did.
    pub(crate) fn withdraw_incoming(&mut self, id: StreamId) -> bool {
        let before = self.incoming.len();
        self.incoming.retain(|(waiting, _)| *waiting != id);
        self.incoming.len() < before
    }

    /// Answers ACCEPT: the stream's window grows by a loan, and what the peer may send is told.
    pub(crate) fn accept(&mut self, id: StreamId) {
        let Some(stream) = self.table.get_mut(id) else { return };
        stream.phase = Phase::Accepted;
        stream.recv.window().begin(&mut self.lender);
        stream.due.accept = true;
        stream.uncount(id, &mut self.unanswered);
    }

    /// `n` bytes of a stream were read.
    pub(crate) fn on_read(&mut self, n: usize) {
        self.lender.drained(n);
    }

    /// What a stream's peer may send from here on, over a link with this round trip.
    pub(crate) fn renew(&mut self, id: StreamId, now: Instant, rtt: Option<Duration>) -> u64 {
        self.table.get_mut(id).map_or(0, |stream| stream.recv.window().renew(now, rtt, &mut self.lender))
    }

    /// The OPEN of a stream was laid into a message, to be answered in time.
    pub(crate) fn on_open_laid(&mut self, id: StreamId, answer_by: Instant) {
        self.laid = self.laid.max(id.number());
        self.unanswered.on_laid(id, answer_by);
    }

    /// The RESET of a stream was laid into a message.
    pub(crate) fn on_reset_laid(&mut self, id: StreamId) {
        if let Some(stream) = self.table.get_mut(id) {
            stream.uncount(id, &mut self.unanswered);
        }
    }

    /// When the answer to the oldest open is overdue.
    pub(crate) fn answer_due(&self) -> Option<Instant> {
        self.unanswered.deadline()
    }

    /// An open whose answer is overdue; taken once.
    pub(crate) fn take_overdue(&mut self, now: Instant) -> Option<StreamId> {
        self.unanswered.take_overdue(now)
    }

    /// All opens have their whole time again, since there was no link for them.
    pub(crate) fn restart_answers(&mut self, answer_by: Instant) {
        self.unanswered.restart(answer_by);
    }

    /// The peer accepted. `Ok(None)` when the stream is past.
    pub(crate) fn on_accept(&mut self, id: StreamId, credit: u64) -> Result<Option<&mut Stream>, Violation> {
        self.check_known(id)?;
        let early_credit = u64::from(self.limits.early_credit);
        let Some(stream) = self.table.get_mut(id) else { return Ok(None) };
        match stream.phase {
            Phase::Accepted => return Err(Violation::new(CloseCode::FORBIDDEN, "stream accepted twice")),
            Phase::Refused => return Ok(None), // given up by this side; the RESET is on its way
            Phase::Queued | Phase::Unanswered if credit < early_credit => {
                return Err(Violation::new(CloseCode::FORBIDDEN, "credit of ACCEPT below the early credit"));
            }
            Phase::Queued | Phase::Unanswered => stream.phase = Phase::Accepted,
        }
        stream.uncount(id, &mut self.unanswered);
        Ok(Some(stream))
    }

    /// The stream that a frame of the peer names; `None` when it is past.
    pub(crate) fn known(&mut self, id: StreamId) -> Result<Option<&mut Stream>, Violation> {
        self.check_known(id)?;
        Ok(self.get_mut(id))
    }

    fn check_known(&self, id: StreamId) -> Result<(), Violation> {
        if id.number() > self.laid {
            return Err(Violation::new(CloseCode::FORBIDDEN, "frame for a stream that never was"));
        }
        Ok(())
    }

    /// The stream of a frame that the agent may send only behind its ACCEPT; `None` when it is past. `opener`: this side
    /// is the one that opens.
    pub(crate) fn answered(&mut self, id: StreamId, opener: bool) -> Result<Option<&mut Stream>, Violation> {
        match self.known(id)? {
            Some(stream) if opener && stream.phase == Phase::Unanswered => {
                Err(Violation::new(CloseCode::FORBIDDEN, "frame of a stream before its ACCEPT"))
            }
            stream => Ok(stream),
        }
    }

    /// Ends both directions of a stream with this error. Gives how many queued bytes were dropped.
    pub(crate) fn fail(&mut self, id: StreamId, error: &StreamError) -> usize {
        let Some(stream) = self.table.get_mut(id) else { return 0 };
        let dropped = stream.send.fail(error.clone());
        stream.recv.fail(error.clone());
        stream.due.credit = false;
        stream.due.accept = false;
        stream.due.stop = None;
        if stream.phase.is_unanswered() {
            stream.phase = Phase::Refused;
        }
        if stream.due.reset.is_none() {
            stream.uncount(id, &mut self.unanswered);
        }
        dropped
    }

    /// Whether a stream is there and can be forgotten.
    pub(crate) fn is_over(&self, id: StreamId) -> bool {
        self.get(id).is_some_and(Stream::is_over)
    }

    /// Forgets a stream whatever its state, and gives it.
    pub(crate) fn remove(&mut self, id: StreamId) -> Option<Box<Stream>> {
        let mut stream = self.table.remove(id)?;
        stream.uncount(id, &mut self.unanswered);
        stream.recv.window().end(&mut self.lender);
        Some(stream)
    }
}

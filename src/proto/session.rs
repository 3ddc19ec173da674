//! The session: its parts, its life with and without a link, and what its owner may ask and do.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    config::SessionConfig,
    error::{OpenError, SessionEnd, StreamError, Violation},
    event::{DeadCause, Event},
    flood::FloodBudget,
    replay::Replay,
    schedule::Schedule,
    streams::{Due, Phase, Streams},
    timer::{Timer, Timers},
    views::{RecvView, SendView},
};
use crate::{
    frame::{Bounds, CloseCode, Frame, MAX_MESSAGE, Metadata, ResetCode, StreamId},
    key::TargetName,
};

/// Which side of a session this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a session has two sides")]
pub enum Role {
    /// Opens streams.
    Server,
    /// Accepts them.
    Agent,
}

/// A stream that the peer opened; whoever takes it owes an answer, by [`Session::accept`] or [`Session::reset`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Incoming {
    /// The stream.
    pub stream: StreamId,
    /// What it is to reach.
    pub target: TargetName,
    /// What else the opener tells.
    pub metadata: Metadata,
}

/// What became of an open.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "an open has these outcomes and no other")]
pub enum Opened {
    /// Not answered yet; [`Event::Answered`] follows.
    Waiting,
    /// The agent took it.
    Accepted,
    /// It was refused or reset, or its session ended.
    Failed(StreamError),
}

/// Counts of a session, since its birth where nothing else is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStats {
    /// Streams in the table now.
    pub streams: usize,
    /// Bytes of streams sent, replays not counted.
    pub sent_bytes: u64,
    /// Bytes of streams received, duplicates not counted.
    pub received_bytes: u64,
    /// The round trip that was measured last.
    pub rtt: Option<Duration>,
    /// Messages received again and ignored.
    pub duplicate_messages: u64,
    /// Frames for past streams, ignored.
    pub late_frames: u64,
    /// Unknown frames, skipped.
    pub unknown_frames: u64,
    /// Bytes of messages sent again.
    pub replayed_bytes: u64,
    /// Bytes received and not read now.
    pub unread_bytes: usize,
    /// Bytes queued in streams and kept for replay now, keeping included.
    pub buffered_bytes: usize,
}

/// Session frames that wait for a message of number 0.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) ping: Option<[u8; 8]>,
    pub(super) pong: Option<[u8; 8]>,
    pub(super) drain: bool,
    pub(super) close: Option<(CloseCode, String)>,
}

/// When what was received must be told.
#[derive(Debug, Default)]
pub(super) struct AckState {
    pub(super) due: bool,
    /// Bytes of counted messages since the last ack left.
    pub(super) bytes: usize,
}

/// Budgets against floods.
#[derive(Debug)]
pub(super) struct Floods {
    pub(super) pings: FloodBudget,
    pub(super) resets: FloodBudget,
    pub(super) unknown: FloodBudget,
}

/// The mux state between one agent and one server: streams in numbered messages, over one link after another.
///
/// The machine does no I/O, reads no clock and spawns nothing. See the [module](crate::proto) for who calls what.
#[derive(Debug)]
pub struct Session {
    pub(super) role: Role,
    pub(super) config: SessionConfig,
    /// The largest message that both sides take.
    pub(super) max_message: usize,
    pub(super) streams: Streams,
    pub(super) schedule: Schedule,
    pub(super) replay: Replay,
    pub(super) timers: Timers,
    pub(super) floods: Floods,
    pub(super) events: VecDeque<Event>,
    pub(super) stats: SessionStats,
    /// Counted messages of the peer that were handled.
    pub(super) received: u64,
    pub(super) up: bool,
    pub(super) pending: Pending,
    pub(super) ack: AckState,
    /// The PING that is under way, and when it left.
    pub(super) ping_sent: Option<([u8; 8], Instant)>,
    /// Bytes queued in all streams.
    pub(super) queued: usize,
    /// Tiny frames unread in all streams.
    pub(super) tiny: u32,
    /// A writer found the bound reached: all park until there is room worth waking them.
    pub(super) full: bool,
    /// An open found too many unanswered.
    opens_blocked: bool,
    /// What this side says in DRAIN, again on each link.
    pub(super) drain: Option<Frame>,
    peer_drains: bool,
    /// What to close with once all is sent and acked.
    pub(super) shutdown: Option<(CloseCode, String)>,
    pub(super) ended: Option<SessionEnd>,
    random: u64,
}

impl Session {
    /// A new session without a link. `peer` is what its HELLO or WELCOME announced; `seed` varies the times of PING.
    #[must_use]
    pub fn new(role: Role, config: SessionConfig, peer: Bounds, seed: u64) -> Self {
        const BURST: Duration = Duration::from_secs(5);
        const SECOND: Duration = Duration::from_secs(1);
        const MINUTE: Duration = Duration::from_secs(60);
        let max_message = MAX_MESSAGE.min(usize::try_from(peer.max_message).unwrap_or(MAX_MESSAGE));
        Self {
            role,
            max_message,
            streams: Streams::new(&config, &peer),
            schedule: Schedule::default(),
            replay: Replay::new(),
            timers: Timers::default(),
            floods: Floods {
                pings: FloodBudget::new("flood of pings", config.pings_per_second, SECOND, BURST),
                resets: FloodBudget::new("flood of resets", config.resets_per_second, SECOND, BURST),
                unknown: FloodBudget::new("flood of unknown frames", config.unknown_per_minute, MINUTE, MINUTE),
            },
            config,
            events: VecDeque::new(),
            stats: SessionStats::default(),
            received: 0,
            up: false,
            pending: Pending::default(),
            ack: AckState::default(),
            ping_sent: None,
            queued: 0,
            tiny: 0,
            full: false,
            opens_blocked: false,
            drain: None,
            peer_drains: false,
            shutdown: None,
            ended: None,
            random: seed,
        }
    }

    /// Binds a link, in the place of one that may still be bound, whose peer has handled `peer_has` counted messages of this side: what it lacks is sent again.
    ///
    /// # Errors
    /// A count that cannot be ends the session.
    pub fn link_up(&mut self, now: Instant, peer_has: u64) -> Result<(), Violation> {
        if self.ended.is_some() {
            return Ok(());
        }
        self.link_down(now);
        self.up = true;
        match self.replay.rewind(peer_has) {
            Ok(true) => self.on_room(),
            Ok(false) => {}
            Err(violation) => return Err(self.fail(violation)),
        }
        self.timers.set(Timer::Silent, now, self.config.dead_after);
        if !self.replay.is_empty() {
            self.timers.set(Timer::NoAck, now, self.config.dead_after);
        }
        self.pending.drain = self.drain.is_some();
        self.ping(now);
        Ok(())
    }

    /// The link is gone. Streams stay open and make no progress; what arrived can be read, writes fill their bound.
    pub fn link_down(&mut self, _now: Instant) {
        self.up = false;
        self.timers.stop_all();
        self.ping_sent = None;
        self.pending = Pending::default();
        self.ack = AckState::default();
    }

    /// How many counted messages of the peer were handled: what HELLO and WELCOME tell as `received`.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// A byte, of whatever, came in on the link.
    pub fn handle_activity(&mut self, now: Instant) {
        if self.up {
            self.timers.set(Timer::Silent, now, self.config.dead_after);
        }
    }

    /// The time that [`poll_timeout`](Self::poll_timeout) gave may have come. Surplus calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.take_expired(now) {
            match timer {
                Timer::Ack => self.ack.due = true,
                Timer::Ping => self.ping(now),
                Timer::Silent => self.events.push_back(Event::LinkDead(DeadCause::Silent)),
                Timer::NoAck => self.events.push_back(Event::LinkDead(DeadCause::NoAck)),
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next event. To be asked after each input until there is none; at most three wait for each stream.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Opens a stream to `target`. Its OPEN only queues while there is no link; up to the early credit can be written
    /// at once, the rest after [`Event::Answered`]. Only the server opens.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing was sent then.
    pub fn open(&mut self, target: &TargetName, metadata: Metadata) -> Result<StreamId, OpenError> {
        if let Some(end) = &self.ended {
            return Err(OpenError::Session(end.clone()));
        }
        if self.role == Role::Agent {
            return Err(OpenError::WrongSide);
        }
        if self.peer_drains || self.drain.is_some() || self.shutdown.is_some() {
            return Err(OpenError::Draining);
        }
        let opened = self.streams.open(target, metadata);
        match opened {
            Ok(id) => self.has_control(id),
            Err(OpenError::TooManyOpens) => self.opens_blocked = true,
            Err(_) => {}
        }
        opened
    }

    /// What became of an open.
    #[must_use]
    pub fn opened(&self, id: StreamId) -> Opened {
        let Some(stream) = self.streams.get(id) else { return Opened::Failed(self.gone()) };
        match stream.phase {
            Phase::Queued | Phase::Unanswered => Opened::Waiting,
            Phase::Accepted => Opened::Accepted,
            Phase::Refused => Opened::Failed(stream.send.error().cloned().unwrap_or_else(|| self.gone())),
        }
    }

    /// The oldest stream that the peer opened and nobody took yet. Whoever takes it owes an answer.
    pub fn incoming(&mut self) -> Option<Incoming> {
        let (stream, target, metadata) = self.streams.take_incoming()?;
        Some(Incoming { stream, target, metadata })
    }

    /// Takes a stream of [`incoming`](Self::incoming).
    ///
    /// # Errors
    /// The opener gave up meanwhile, or the session ended; the stream is forgotten then.
    pub fn accept(&mut self, id: StreamId) -> Result<(), StreamError> {
        if self.streams.accept(id) {
            self.has_control(id);
            return Ok(());
        }
        let error = self.streams.get(id).and_then(|stream| stream.send.error().cloned());
        self.release(id);
        Err(error.unwrap_or_else(|| self.gone()))
    }

    /// Ends both directions of a stream at once, and gives up its handle. An incoming stream is refused by it.
    pub fn reset(&mut self, id: StreamId, code: ResetCode, reason: &str) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        stream.held = false;
        let answered = stream.phase != Phase::Queued;
        let over = stream.send.is_done() && stream.recv.is_done();
        if answered && !over && self.ended.is_none() {
            stream.due.reset = Some(Box::new((code, reason.to_owned())));
        }
        self.fail_stream(id, &StreamError::Reset { code, reason: reason.into() });
        self.drop_unread(id);
        if answered {
            self.has_control(id);
            self.reap(id);
        } else {
            self.remove(id);
        }
    }

    /// Gives up a handle: what was written is delivered, then FIN; STOP goes out if the peer has not finished.
    pub fn detach(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let unsent = stream.phase == Phase::Queued && stream.send.queued() == 0;
        if unsent {
            return self.remove(id);
        }
        stream.held = false;
        // A failed half has nothing left to finish.
        let _ = stream.send.finish();
        if !stream.recv.is_done() {
            stream.due.stop = Some(ResetCode::CANCELLED);
        }
        self.drop_unread(id);
        self.has_control(id);
        self.reap(id);
    }

    /// A stream for writing; `None` when it is forgotten.
    pub fn send(&mut self, id: StreamId) -> Option<SendView<'_>> {
        self.streams.get(id).is_some().then_some(SendView { session: self, id })
    }

    /// A stream for reading; `None` when it is forgotten.
    pub fn recv(&mut self, id: StreamId) -> Option<RecvView<'_>> {
        self.streams.get(id).is_some().then_some(RecvView { session: self, id })
    }

    /// Whether the peer reads no more of a stream.
    #[must_use]
    pub fn is_stopped(&self, id: StreamId) -> bool {
        self.streams.get(id).is_none_or(|stream| stream.send.is_stopped())
    }

    /// Says DRAIN, now and after each new link: the peer is to open nothing new here, and to connect anew.
    pub fn drain(&mut self, code: CloseCode, deadline: Duration, jitter: Duration, reason: &str) {
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let (deadline_ms, jitter_ms) = (millis(deadline), millis(jitter));
        self.drain = Some(Frame::Drain { code, deadline_ms, jitter_ms, reason: reason.to_owned() });
        self.pending.drain = self.up;
    }

    /// Ends the session in order: nothing new is opened; when all that was written is sent and acked, CLOSE goes out
    /// and the session ends with [`SessionEnd::Shutdown`]. Streams that are open then fail.
    pub fn shutdown(&mut self, code: CloseCode, reason: &str) {
        if self.ended.is_none() {
            self.shutdown.get_or_insert_with(|| (code, reason.to_owned()));
        }
    }

    /// Ends the session now: its streams fail with `end`, and CLOSE is the next message if there is a link.
    pub fn close(&mut self, code: CloseCode, reason: &str, end: SessionEnd) {
        if self.ended.is_none() {
            self.pending.close = Some((code, reason.to_owned()));
            self.end(end);
        }
    }

    /// Ends the session now and says nothing: its streams fail with `end`. The first end stands.
    pub fn end(&mut self, end: SessionEnd) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(end.clone());
        let error = StreamError::Session(end);
        let ids: Vec<StreamId> = self.streams.iter_mut().map(|(id, _)| id).collect();
        for id in ids {
            if self.streams.withdraw_incoming(id)
                && let Some(stream) = self.streams.get_mut(id)
            {
                stream.held = false;
            }
            self.fail_stream(id, &error);
            if let Some(stream) = self.streams.get_mut(id) {
                stream.due = Due::default();
            }
            self.reap(id);
        }
        self.schedule.clear();
        self.replay.clear();
        self.timers.stop_all();
        self.pending = Pending { close: self.pending.close.take(), ..Pending::default() };
        self.ack = AckState::default();
        self.on_answer();
        self.events.push_back(Event::Ended);
    }

    /// Why the session ended; `None` while it lives.
    #[must_use]
    pub fn ended(&self) -> Option<&SessionEnd> {
        self.ended.as_ref()
    }

    /// Counts.
    #[must_use]
    pub fn stats(&self) -> SessionStats {
        SessionStats {
            streams: self.streams.len(),
            buffered_bytes: self.queued.saturating_add(self.replay.bytes()),
            ..self.stats
        }
    }

    /// The peer broke a rule: the session ends, CLOSE with the rule's code is the next message.
    pub(super) fn fail(&mut self, violation: Violation) -> Violation {
        self.close(violation.code(), violation.rule(), SessionEnd::Violation(violation));
        violation
    }

    /// What the bound leaves for queued bytes.
    pub(super) fn room(&self) -> usize {
        let used = self.queued.saturating_add(self.replay.bytes());
        self.config.send_bound.saturating_sub(self.config.send_reserve).saturating_sub(used)
    }

    /// The bound has room again: once it is worth it, every parked writer is woken, in no order that a writer could
    /// count on; who finds none parks again.
    pub(super) fn on_room(&mut self) {
        const WORTH_WAKING: usize = 64 * 1024;
        if !self.full || self.room() < WORTH_WAKING {
            return;
        }
        self.full = false;
        for (id, stream) in self.streams.iter_mut() {
            if stream.send.take_parked() {
                self.events.push_back(Event::Writable(id));
            }
        }
    }

    /// Fewer opens are unanswered.
    pub(super) fn on_answer(&mut self) {
        if std::mem::take(&mut self.opens_blocked) {
            self.events.push_back(Event::OpensAvailable);
        }
    }

    pub(super) fn on_drain(&mut self) {
        self.peer_drains = true;
    }

    /// A stream has control frames due, or its end.
    pub(super) fn has_control(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(id).filter(|_| self.ended.is_none()) {
            self.schedule.control(id, stream);
        }
    }

    /// Ends both directions of a stream with an error and wakes whoever waits on it.
    pub(super) fn fail_stream(&mut self, id: StreamId, error: &StreamError) {
        let Some(stream) = self.streams.get(id) else { return };
        let (unanswered, stopped) =
            (matches!(stream.phase, Phase::Queued | Phase::Unanswered), stream.send.is_stopped());
        let dropped = self.streams.fail(id, error);
        self.queued = self.queued.saturating_sub(dropped);
        self.on_room();
        if unanswered {
            self.on_answer();
        }
        self.wake(id);
        let Some(stream) = self.streams.get(id).filter(|stream| stream.held) else { return };
        if unanswered && self.role == Role::Server {
            self.events.push_back(Event::Answered(id));
        }
        if !stopped && stream.send.is_stopped() {
            self.events.push_back(Event::Stopped(id));
        }
    }

    /// Wakes the parked reader and writer of a stream.
    pub(super) fn wake(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        if stream.recv.take_parked() {
            self.events.push_back(Event::Readable(id));
        }
        if stream.send.take_parked() {
            self.events.push_back(Event::Writable(id));
        }
    }

    /// Drops what a stream has unread.
    pub(super) fn drop_unread(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        self.stats.unread_bytes = self.stats.unread_bytes.saturating_sub(stream.recv.unread());
        self.tiny = self.tiny.saturating_sub(stream.recv.discard());
    }

    /// Forgets a stream if it is over.
    pub(super) fn reap(&mut self, id: StreamId) {
        if self.streams.is_over(id) {
            self.remove(id);
        }
    }

    fn release(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.held = false;
        }
        self.drop_unread(id);
        self.reap(id);
    }

    fn remove(&mut self, id: StreamId) {
        self.drop_unread(id);
        self.streams.remove(id);
        self.on_answer();
    }

    /// What to say of a stream that is not in the table.
    fn gone(&self) -> StreamError {
        self.ended.clone().map_or(StreamError::Finished, StreamError::Session)
    }

    /// A PING leaves now, and the next one after its interval, varied by 20 % either way.
    fn ping(&mut self, now: Instant) {
        let random = self.next_random();
        self.pending.ping = Some(random.to_be_bytes());
        let per_mille = u32::try_from(random % 401).unwrap_or(0).saturating_add(800);
        let interval = self.config.ping_interval.saturating_mul(per_mille).checked_div(1000);
        self.timers.set(Timer::Ping, now, interval.unwrap_or(self.config.ping_interval));
    }

    /// SplitMix64: enough to vary a timer and to mark a PING.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

//! The life of a session: links come and go, deadlines pass, it drains and ends.

use std::time::{Duration, Instant};

use super::{
    error::{SessionEnd, StreamError, Violation},
    event::{DeadCause, Event},
    session::{AckState, Drain, LinkFacts, Pending, Role, Session, pings},
    streams::Due,
    timer::{Timer, later},
};
use crate::frame::{CloseCode, Frame, StreamId};

/// How many attaches in a row may find messages outstanding and none newly acked \[M-46\]. A peer that takes nothing
/// costs a replay each time.
const MAX_FRUITLESS: u32 = 10;

impl Session {
    /// Binds a link, in the place of one that may still be bound, whose peer has handled `peer_has` counted messages
    /// of this side: what it lacks is sent again.
    ///
    /// # Errors
    /// A count that cannot be ends the session; so does a server's eleventh link in a row on which messages are
    /// outstanding and none is newly acked.
    pub fn link_up(&mut self, now: Instant, peer_has: u64) -> Result<(), Violation> {
        if self.ended.is_some() {
            return Ok(());
        }
        self.link_down(now);
        self.up = true;
        self.link = LinkFacts::default();
        self.floods.pings = pings(&self.config); // each link begins with one
        match self.replay.rewind(peer_has) {
            Ok(true) => self.on_acked(),
            Ok(false) => self.fruitless = self.fruitless.saturating_add(u32::from(!self.replay.is_empty())),
            Err(violation) => return Err(self.fail_to_resume(violation)),
        }
        if self.role == Role::Server && self.fruitless > MAX_FRUITLESS {
            let rule = "attached again and again and acked nothing";
            return Err(self.fail_to_resume(Violation::new(CloseCode::FLOOD, rule)));
        }
        self.timers.set(Timer::Silent, now, self.config.dead_after);
        if !self.replay.is_empty() {
            self.timers.set(Timer::NoAck, now, self.config.dead_after);
        }
        self.streams.restart_answers(later(now, self.config.accept_timeout));
        self.resume_paced(usize::MAX);
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
        self.events.forget_link();
        self.replay.spares().give_back();
    }

    /// A byte, of whatever, came in on the link.
    pub fn handle_activity(&mut self, now: Instant) {
        if self.up && self.ended.is_none() {
            self.timers.set(Timer::Silent, now, self.config.dead_after);
        }
    }

    /// The time that [`poll_timeout`](Self::poll_timeout) gave may have come. Surplus calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.take_expired(now) {
            match timer {
                Timer::Ack => self.ack.due = true,
                Timer::Ping => {
                    self.ping(now);
                    self.replay.rest();
                }
                Timer::Silent => self.events.push(Event::LinkDead(DeadCause::Silent)),
                Timer::NoAck => self.events.push(Event::LinkDead(DeadCause::NoAck)),
                Timer::Pace => self.resume_paced(16),
            }
        }
        while self.up
            && let Some(id) = self.streams.take_overdue(now)
        {
            self.give_up(id);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let answer = self.streams.answer_due().filter(|_| self.up && self.ended.is_none());
        self.timers.next().into_iter().chain(answer).min()
    }

    /// RESETs that were put off stand in line again, so many of them.
    fn resume_paced(&mut self, most: usize) {
        for _ in 0..most {
            let Some(id) = self.schedule.take_paced() else { return };
            self.has_control(id);
        }
    }

    /// Says DRAIN, now and after each new link: the peer is to open nothing new here, and to connect anew. Once the
    /// peer has seen it and no stream is left, the session ends in order, as by [`shutdown`](Self::shutdown) with
    /// `code`. What still runs at the deadline is cut off by whoever keeps the session.
    pub fn drain(&mut self, code: CloseCode, deadline: Duration, jitter: Duration, reason: &str) {
        if self.ended.is_some() {
            return;
        }
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let (deadline_ms, jitter_ms) = (millis(deadline), millis(jitter));
        let frame = Frame::Drain { code, deadline_ms, jitter_ms, reason: reason.to_owned() };
        self.drain = Some(Drain { frame, code, reason: reason.to_owned(), ping: None, seen: false });
        if self.up {
            self.pending.drain = true;
            self.pending.ping = Some(self.next_random().to_be_bytes());
        }
        self.on_answer(); // who waits to open learns that nothing is opened here any more
    }

    /// With what the session is to be closed once all is sent and acked: asked for, or since it drains and nothing
    /// runs any more.
    pub(super) fn closes_with(&self) -> Option<(CloseCode, &str)> {
        let asked = self.shutdown.as_ref().map(|(code, reason)| (*code, reason.as_str()));
        let drained = self.drain.as_ref().filter(|drain| drain.seen && self.streams.len() == 0);
        asked.or_else(|| drained.map(|drain| (drain.code, drain.reason.as_str())))
    }

    /// Something is newly acked.
    pub(super) fn on_acked(&mut self) {
        self.link.progress = true;
        self.fruitless = 0;
        self.on_room();
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
        self.shutdown = None;
        self.drain = None;
        self.on_answer();
        self.events.push(Event::Ended);
    }

    /// The peer broke a rule: the session ends, CLOSE with the rule's code is the next message.
    pub(super) fn fail(&mut self, violation: Violation) -> Violation {
        self.close(violation.code(), violation.rule(), SessionEnd::Violation(violation));
        violation
    }

    /// The same of a peer that came back in a way that leaves nothing to go on with.
    fn fail_to_resume(&mut self, violation: Violation) -> Violation {
        self.close(violation.code(), violation.rule(), SessionEnd::Unresumable(violation));
        violation
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

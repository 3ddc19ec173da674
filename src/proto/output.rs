//! What leaves: which frames go into the next message, in which order.

use std::time::{Duration, Instant};

use super::{
    error::SessionEnd,
    event::Event,
    replay::Replay,
    session::{Role, Session},
    streams::Phase,
    timer::{Timer, later},
};
use crate::frame::{CloseCode, FRAME_HEAD, Frame, Layout, MESSAGE_HEAD, Message, MessageHead, StreamId};

/// Room for the longest control frame, an OPEN with the longest target and metadata; what every peer takes.
const MIN_ROOM: usize = 1024;

/// A DATA frame is not begun for less than this, unless no more is queued: its header would cost more than it gains.
const MIN_DATA: usize = 512;

/// How often RESETs that were put off go on: ten at a time, at the rate that is kept.
const PACE: Duration = Duration::from_millis(20);

impl Session {
    /// The next message for the link: cheap to clone, to be sent in this order. To be asked after each
    /// input until there is none.
    ///
    /// First session frames, then an ack that is due, if what is to be sent again would hold it up; then that, and new
    /// counted messages as the bound allows; last an ack alone.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Message> {
        if !self.up {
            return None;
        }
        let first = self.close_message().or_else(|| self.session_message(now));
        if first.is_none() && !self.ack.due && self.replay.is_due() {
            return self.replayed_message(); // its head bears an old ack
        }
        let message = first
            .or_else(|| self.ack_message().filter(|_| self.replay.is_due()))
            .or_else(|| self.counted_message(now))
            .or_else(|| self.shutdown_message())
            .or_else(|| self.ack_message())?;
        self.ack.due = false;
        self.ack.bytes = 0;
        self.timers.stop(Timer::Ack);
        Some(message)
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) may give a message now.
    #[must_use]
    pub fn wants_transmit(&self) -> bool {
        let pending = &self.pending;
        self.up
            && (self.ack.due
                || pending.ping.is_some()
                || pending.pong.is_some()
                || pending.drain
                || pending.close.is_some()
                || self.replay.is_due()
                || (self.schedule.has_control() && self.control_room() >= MIN_ROOM)
                || (!self.schedule.has_control() && self.schedule.has_data() && self.data_room() >= MIN_ROOM)
                || self.may_shut_down())
    }

    /// A message of number 0.
    fn begin(&self, room: usize) -> Layout {
        let mut message = Layout::with_capacity(MESSAGE_HEAD.saturating_add(room));
        MessageHead { number: 0, received: self.received }.encode(message.tail());
        message
    }

    fn close_message(&mut self) -> Option<Message> {
        let (code, reason) = self.pending.close.take()?;
        let mut message = self.begin(64);
        Frame::Close { code, reason }.encode(message.tail());
        Some(message.finish())
    }

    fn session_message(&mut self, now: Instant) -> Option<Message> {
        let pending = &self.pending;
        if pending.ping.is_none() && pending.pong.is_none() && !pending.drain {
            return None;
        }
        let (ping, pong) = (self.pending.ping.take(), self.pending.pong.take());
        if let Some(bytes) = ping {
            self.ping_sent = Some((bytes, now));
        }
        let due = std::mem::take(&mut self.pending.drain);
        let drain = self.drain.as_mut().and_then(|drain| {
            // On each link DRAIN is in the first of these messages, so that no PING leaves before it.
            drain.ping = ping.or(drain.ping);
            due.then(|| drain.frame.clone())
        });
        let mut frames = [drain, pong.map(Frame::Pong), ping.map(Frame::Ping)].into_iter().flatten().peekable();
        frames.peek()?;
        let mut message = self.begin(64);
        frames.for_each(|frame| frame.encode(message.tail()));
        Some(message.finish())
    }

    fn ack_message(&self) -> Option<Message> {
        self.ack.due.then(|| self.begin(0).finish())
    }

    fn replayed_message(&mut self) -> Option<Message> {
        let message = self.replay.next()?;
        self.stats.replayed_bytes = self.stats.replayed_bytes.saturating_add(message.len() as u64);
        Some(message)
    }

    /// A new counted message: control frames, then data in turn. It is kept until the peer has it.
    fn counted_message(&mut self, now: Instant) -> Option<Message> {
        let control = self.schedule.has_control().then(|| self.control_room()).filter(|room| *room >= MIN_ROOM);
        let data = self.schedule.has_data().then(|| self.data_room()).filter(|room| *room >= MIN_ROOM);
        let limit = control.into_iter().chain(data).max()?;
        let mut message = Layout::with_capacity(MESSAGE_HEAD.saturating_add(self.expected()).min(limit));
        MessageHead { number: self.replay.next_number(), received: self.received }.encode(message.tail());
        if let Some(limit) = control {
            self.lay_refusals(&mut message, limit);
            self.lay_control(now, &mut message, limit);
        }
        if let Some(limit) = data.filter(|_| !self.schedule.has_control()) {
            self.lay_data(&mut message, limit);
        }
        if message.len() <= MESSAGE_HEAD {
            return None;
        }
        if self.replay.is_empty() && !self.replay.is_off() {
            self.timers.set(Timer::NoAck, now, self.config.dead_after);
        }
        let message = message.finish();
        self.replay.keep(message.clone());
        Some(message)
    }

    /// About how much is laid out for the next message: heads, and payloads where they are too short to be shared.
    fn expected(&self) -> usize {
        let streams = self.schedule.len();
        let copied = self.queued.min(streams.saturating_mul(Layout::SHARED));
        let is_shared = Layout::shares(self.queued.checked_div(streams).unwrap_or(0));
        streams.saturating_mul(48).saturating_add(if is_shared { 0 } else { copied })
    }

    fn lay_refusals(&mut self, message: &mut Layout, limit: usize) {
        while let Some((stream, code)) = self.schedule.next_refusal() {
            if !lay(&Frame::Reset { stream, code, reason: String::new() }, message, limit) {
                return;
            }
            self.schedule.pop_refusal();
        }
    }

    fn lay_control(&mut self, now: Instant, message: &mut Layout, limit: usize) {
        while let Some(id) = self.schedule.next_control() {
            if !self.lay_control_of(now, id, message, limit) {
                return;
            }
            self.schedule.pop_control();
            if let Some(stream) = self.streams.get_mut(id) {
                stream.in_control = false;
            }
            self.reap(id);
        }
    }

    /// Lays all control frames of one stream, in the order that they make sense in. `false`: the message is full.
    fn lay_control_of(&mut self, now: Instant, id: StreamId, message: &mut Layout, limit: usize) -> bool {
        let Some(mut stream) = self.streams.get_mut(id) else { return true };
        if self.role == Role::Agent && stream.phase == Phase::Unanswered {
            return true; // ACCEPT goes before what is due, and calls for it
        }
        if let Some(metadata) = &stream.due.open {
            let credit = stream.recv.window().granted();
            let open =
                Frame::Open { stream: id, credit, target: stream.target.clone(), metadata: (**metadata).clone() };
            if !lay(&open, message, limit) {
                return false;
            }
            stream.due.open = None;
            if stream.phase == Phase::Queued {
                stream.phase = Phase::Unanswered;
            }
            self.streams.on_open_laid(id, later(now, self.config.accept_timeout));
            let Some(same) = self.streams.get_mut(id) else { return true };
            stream = same;
        }
        if stream.due.accept {
            let credit = stream.recv.window().granted();
            if !lay(&Frame::Accept { stream: id, credit }, message, limit) {
                return false;
            }
            stream.due.accept = false;
        }
        if stream.due.credit {
            let offset = self.streams.renew(id, now, self.link.least_rtt);
            if !lay(&Frame::Credit { stream: id, offset }, message, limit) {
                return false;
            }
            let Some(same) = self.streams.get_mut(id) else { return true };
            stream = same;
            stream.due.credit = false;
        }
        if let Some(code) = stream.due.stop {
            if !lay(&Frame::Stop { stream: id, code }, message, limit) {
                return false;
            }
            stream.due.stop = None;
        }
        if let Some(final_size) = stream.send.fin_due() {
            if !lay(&Frame::Fin { stream: id, final_size }, message, limit) {
                return false;
            }
            stream.send.on_fin_laid();
        }
        if let Some(reset) = &stream.due.reset {
            if self.role == Role::Server && self.floods.own_resets.spend(now).is_err() {
                self.schedule.pace(id);
                self.timers.set_if_idle(Timer::Pace, now, PACE);
                return true;
            }
            let (code, reason) = (**reset).clone();
            if !lay(&Frame::Reset { stream: id, code, reason }, message, limit) {
                return false;
            }
            stream.due.reset = None;
            self.streams.on_reset_laid(id);
            self.on_answer();
        }
        true
    }

    /// Lays queued bytes, one stream after the other, until the message is full.
    fn lay_data(&mut self, message: &mut Layout, limit: usize) {
        loop {
            let free = limit.saturating_sub(message.len()).saturating_sub(FRAME_HEAD);
            if free < MIN_DATA.min(self.queued) || free == 0 {
                return;
            }
            let Some((id, turn)) = self.schedule.take_data() else { return };
            let Some(stream) = self.streams.get_mut(id) else { continue };
            stream.in_data = false;
            let laid = stream.send.lay_data(id, turn.min(free), message);
            self.queued = self.queued.saturating_sub(laid);
            self.stats.sent_bytes = self.stats.sent_bytes.saturating_add(laid as u64);
            if !self.full && stream.send.is_low() && stream.send.take_parked() {
                self.events.push_of(&mut stream.events, Event::Writable(id));
            }
            if stream.send.queued() > 0 {
                self.schedule.data(id, stream);
                continue;
            }
            if let Some(final_size) = stream.send.fin_due() {
                if lay(&Frame::Fin { stream: id, final_size }, message, limit) {
                    stream.send.on_fin_laid();
                    self.reap(id);
                } else {
                    self.schedule.control(id, stream);
                }
            }
        }
    }

    /// How long a message of control frames may be: all of the bound is theirs, and with nothing kept one message may
    /// always be made.
    fn control_room(&self) -> usize {
        if self.replay.is_empty() {
            return self.max_message;
        }
        let used = Replay::cost(self.queued.saturating_add(self.replay.bytes()));
        self.config.send_bound.saturating_sub(used).min(self.max_message)
    }

    /// How long a message with data may be. What is queued is counted by the writers' bound already; laying it only
    /// moves it.
    fn data_room(&self) -> usize {
        if self.replay.is_empty() {
            return self.max_message;
        }
        let bound = self.config.send_bound.saturating_sub(self.config.send_reserve);
        bound.saturating_sub(Replay::cost(self.replay.bytes())).min(self.max_message)
    }

    fn may_shut_down(&self) -> bool {
        self.closes_with().is_some()
            && self.replay.is_empty()
            && !self.schedule.has_control()
            && !self.schedule.has_data()
            && !self.schedule.has_paced()
    }

    /// CLOSE, when the session is to be closed and the peer has all.
    fn shutdown_message(&mut self) -> Option<Message> {
        let (code, reason) = self.closes_with().filter(|_| self.may_shut_down())?;
        let reason = reason.to_owned();
        // The end of a session that gave its place up is told by the code, as by its peer.
        let end = if code == CloseCode::REPLACED { SessionEnd::Replaced } else { SessionEnd::Shutdown };
        self.close(code, &reason, end);
        self.close_message()
    }
}

/// Appends a frame if the message stays within its limit.
fn lay(frame: &Frame, message: &mut Layout, limit: usize) -> bool {
    let before = message.tail().len();
    frame.encode(message.tail());
    let fits = message.len() <= limit;
    if !fits {
        message.tail().truncate(before);
    }
    fits
}

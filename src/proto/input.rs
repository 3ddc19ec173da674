//! What arrives: a message, handled whole or not at all, one arm for each frame.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    error::{SessionEnd, StreamError, Violation},
    event::Event,
    session::{Role, Session},
    streams::Phase,
    timer::Timer,
};
use crate::{
    frame::{CloseCode, Frame, Frames, MessageHead, Metadata, ResetCode, StreamId, decode},
    key::TargetName,
};

impl Session {
    /// A whole message arrived on the link. After [`ended`](Self::ended) it is ignored.
    ///
    /// # Errors
    /// The peer broke a rule: the session has ended, and the CLOSE that says so is the next message.
    pub fn handle_message(&mut self, now: Instant, message: impl Into<Bytes>) -> Result<(), Violation> {
        if self.ended.is_some() || !self.up {
            return Ok(());
        }
        self.on_message(now, message.into()).map_err(|violation| self.fail(violation))
    }

    fn on_message(&mut self, now: Instant, message: Bytes) -> Result<(), Violation> {
        let len = message.len();
        let (head, frames) = decode(message).map_err(Violation::from)?;
        self.link.heard = true;
        self.on_received(now, head)?;
        if head.number == 0 {
            return self.on_frames(now, frames, len, false);
        }
        let next = self.received.saturating_add(1);
        if head.number > next {
            return Err(Violation::new(CloseCode::FORBIDDEN, "message number beyond the next"));
        }
        if !self.replay.is_off() {
            self.timers.set_if_idle(Timer::Ack, now, self.config.ack_delay);
        }
        if head.number < next {
            self.stats.duplicate_messages = self.stats.duplicate_messages.saturating_add(1);
            return Ok(());
        }
        self.on_frames(now, frames, len, true)?;
        self.received = next;
        self.link.progress = true;
        self.ack.bytes = self.ack.bytes.saturating_add(len);
        self.ack.due |= self.ack.bytes >= self.config.ack_bytes && !self.replay.is_off();
        Ok(())
    }

    /// The peer tells how much it has handled.
    fn on_received(&mut self, now: Instant, head: MessageHead) -> Result<(), Violation> {
        if self.replay.forget(head.received)? {
            if self.replay.is_empty() {
                self.timers.stop(Timer::NoAck);
            } else {
                self.timers.set(Timer::NoAck, now, self.config.dead_after);
            }
            self.on_acked();
        } else if self.replay.is_stale(head.received) {
            self.stats.stale_acks = self.stats.stale_acks.saturating_add(1);
        }
        Ok(())
    }

    fn on_frames(&mut self, now: Instant, frames: Frames, len: usize, counted: bool) -> Result<(), Violation> {
        let mut none = true;
        for frame in frames {
            let frame = frame.map_err(Violation::from)?;
            none = false;
            if frame.is_counted().is_some_and(|belongs| belongs != counted) {
                return Err(Violation::new(CloseCode::FORBIDDEN, "frame in a message of the wrong sort"));
            }
            self.on_frame(now, frame, len)?;
            if self.ended.is_some() {
                break; // CLOSE: nothing behind it matters
            }
        }
        if counted && none {
            return Err(Violation::new(CloseCode::FORBIDDEN, "counted message without a frame"));
        }
        Ok(())
    }

    fn on_frame(&mut self, now: Instant, frame: Frame, len: usize) -> Result<(), Violation> {
        match frame {
            Frame::Hello(_) | Frame::Welcome(_) => {
                Err(Violation::new(CloseCode::FORBIDDEN, "HELLO or WELCOME on a link that had its own"))
            }
            Frame::Ping(bytes) => self.on_ping(now, bytes),
            Frame::Pong(bytes) => self.on_pong(now, bytes),
            Frame::Drain { code, deadline_ms, jitter_ms, reason } => {
                self.peer_drains = true;
                let deadline = Duration::from_millis(deadline_ms.into());
                let jitter = Duration::from_millis(jitter_ms.into());
                self.events.push(Event::Draining { code, deadline, jitter, reason: reason.into() });
                Ok(())
            }
            Frame::Close { code, reason } => self.on_close(code, &reason),
            Frame::Open { stream, credit, target, metadata } => self.on_open(stream, credit, target, metadata),
            Frame::Accept { stream, credit } => self.on_accept(stream, credit),
            Frame::Data { stream, payload } => self.on_data(stream, payload, len),
            Frame::Credit { stream, offset } => self.on_credit(stream, offset),
            Frame::Fin { stream, final_size } => self.on_fin(stream, final_size),
            Frame::Reset { stream, code, reason } => self.on_reset(now, stream, code, &reason),
            Frame::Stop { stream, code } => self.on_stop(stream, code),
            Frame::Unknown { .. } => {
                self.stats.unknown_frames = self.stats.unknown_frames.saturating_add(1);
                self.floods.unknown.spend(now)
            }
        }
    }

    /// One PONG answers all PINGs since the last message left.
    fn on_ping(&mut self, now: Instant, bytes: [u8; 8]) -> Result<(), Violation> {
        self.floods.pings.spend(now)?;
        self.pending.pong = Some(bytes);
        Ok(())
    }

    fn on_pong(&mut self, now: Instant, bytes: [u8; 8]) -> Result<(), Violation> {
        if let Some((_, sent)) = self.ping_sent.take_if(|(ours, _)| *ours == bytes) {
            let rtt = now.saturating_duration_since(sent);
            self.stats.rtt = Some(rtt);
            self.link.least_rtt = Some(self.link.least_rtt.map_or(rtt, |least| least.min(rtt)));
            if let Some(drain) = &mut self.drain {
                drain.seen |= drain.ping == Some(bytes);
            }
        }
        Ok(())
    }

    fn on_close(&mut self, code: CloseCode, reason: &str) -> Result<(), Violation> {
        self.end(match code {
            CloseCode::REPLACED => SessionEnd::Replaced,
            _ => SessionEnd::ClosedByPeer { code, reason: reason.into() },
        });
        Ok(())
    }

    fn on_open(&mut self, id: StreamId, credit: u64, target: TargetName, metadata: Metadata) -> Result<(), Violation> {
        if self.role == Role::Server {
            return Err(Violation::new(CloseCode::FORBIDDEN, "OPEN from the agent"));
        }
        if self.streams.on_open(id, credit, target, metadata)? {
            self.events.push(Event::Opened);
            return Ok(());
        }
        self.stats.refused_streams = self.stats.refused_streams.saturating_add(1);
        if !self.schedule.refuse(id, ResetCode::TOO_MANY_STREAMS) {
            return Err(Violation::new(CloseCode::FLOOD, "flood of opens beyond the bounds"));
        }
        Ok(())
    }

    fn on_accept(&mut self, id: StreamId, credit: u64) -> Result<(), Violation> {
        if self.role == Role::Agent {
            return Err(Violation::new(CloseCode::FORBIDDEN, "ACCEPT from the server"));
        }
        let Some(stream) = self.streams.on_accept(id, credit)? else { return self.late() };
        let raised = stream.send.on_credit(credit)?;
        if stream.held {
            self.events.push_of(&mut stream.events, Event::Answered(id));
        }
        self.on_answer();
        if raised {
            self.wake_writer(id);
        }
        Ok(())
    }

    fn on_data(&mut self, id: StreamId, payload: Bytes, len: usize) -> Result<(), Violation> {
        let size = payload.len();
        let Some(stream) = self.streams.answered(id, self.role == Role::Server)? else { return self.late() };
        let before = stream.recv.unread();
        let tiny = stream.recv.on_data(payload, len)?;
        let kept = stream.recv.unread().saturating_sub(before);
        if stream.recv.take_parked() {
            self.events.push_of(&mut stream.events, Event::Readable(id));
        }
        self.stats.received_bytes = self.stats.received_bytes.saturating_add(size as u64);
        self.stats.unread_bytes = self.stats.unread_bytes.saturating_add(kept);
        self.tiny = self.tiny.saturating_add(tiny);
        if self.tiny > self.config.tiny_frames {
            return Err(Violation::new(CloseCode::FLOOD, "flood of tiny frames"));
        }
        Ok(())
    }

    fn on_credit(&mut self, id: StreamId, offset: u64) -> Result<(), Violation> {
        let Some(stream) = self.streams.answered(id, self.role == Role::Server)? else { return self.late() };
        if stream.send.on_credit(offset)? {
            self.wake_writer(id);
        } else {
            self.stats.stale_acks = self.stats.stale_acks.saturating_add(1);
        }
        Ok(())
    }

    fn on_fin(&mut self, id: StreamId, final_size: u64) -> Result<(), Violation> {
        let Some(stream) = self.streams.answered(id, self.role == Role::Server)? else { return self.late() };
        stream.recv.on_fin(final_size)?;
        stream.due.stop = None; // there is nothing left to stop
        if stream.recv.take_parked() {
            self.events.push_of(&mut stream.events, Event::Readable(id));
        }
        self.reap(id);
        Ok(())
    }

    fn on_reset(&mut self, now: Instant, id: StreamId, code: ResetCode, reason: &str) -> Result<(), Violation> {
        let of_ours = self.role == Role::Server && self.streams.known(id)?.is_some();
        if !of_ours {
            // Of the streams that this side opened, and still has, there are no more RESETs than its own opens.
            self.floods.resets.spend(now)?;
        }
        let Some(stream) = self.streams.known(id)? else { return self.late() };
        stream.due.reset = None; // both sides know now
        let code = if stream.phase == Phase::Accepted { behind_accept(code) } else { code };
        if self.streams.withdraw_incoming(id)
            && let Some(stream) = self.streams.get_mut(id)
        {
            stream.held = false;
        }
        self.fail_stream(id, &StreamError::Reset { code, reason: reason.into() });
        self.reap(id);
        Ok(())
    }

    fn on_stop(&mut self, id: StreamId, code: ResetCode) -> Result<(), Violation> {
        let Some(stream) = self.streams.answered(id, self.role == Role::Server)? else { return self.late() };
        let before = stream.send.is_stopped();
        let dropped = stream.send.on_stop(code);
        if !before && stream.send.is_stopped() && stream.held {
            self.events.push_of(&mut stream.events, Event::Stopped(id));
        }
        self.queued = self.queued.saturating_sub(dropped);
        self.has_control(id); // its FIN is due
        self.wake_writer(id);
        self.on_room();
        Ok(())
    }

    fn wake_writer(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(id)
            && stream.send.take_parked()
        {
            self.events.push_of(&mut stream.events, Event::Writable(id));
        }
    }

    /// A frame for a past stream: legal, since the peer may not know yet.
    fn late(&mut self) -> Result<(), Violation> {
        self.stats.late_frames = self.stats.late_frames.saturating_add(1);
        Ok(())
    }
}

/// A refusal says that nothing reached the target; of a stream that was accepted it cannot say so.
fn behind_accept(code: ResetCode) -> ResetCode {
    match code {
        ResetCode::TARGET_UNKNOWN
        | ResetCode::TARGET_DENIED
        | ResetCode::TARGET_REFUSED
        | ResetCode::TARGET_TIMEOUT
        | ResetCode::TOO_MANY_STREAMS => ResetCode::TARGET_RESET,
        code => code,
    }
}

//! What the holders of streams ask and do, and how they come to be woken.

use super::{
    error::{OpenError, SessionEnd, StreamError},
    event::Event,
    replay::Replay,
    session::{Incoming, Opened, Role, Session, SessionStats},
    streams::{Phase, Stream},
    views::{RecvView, SendView},
};
use crate::{
    frame::{FRAME_HEAD, MESSAGE_HEAD, Metadata, ResetCode, StreamId},
    key::TargetName,
};

impl Session {
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
        if self.is_draining() {
            return Err(OpenError::Draining);
        }
        let opened = self.streams.open(target, metadata);
        match opened {
            Ok(id) => self.has_control(id),
            Err(OpenError::TooManyOpens) => self.opens_blocked = true,
            Err(OpenError::TooManyStreams) => {
                self.stats.refused_streams = self.stats.refused_streams.saturating_add(1);
            }
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

    /// Takes a stream of [`incoming`](Self::incoming). Again is no fault.
    ///
    /// # Errors
    /// The opener gave up meanwhile, or the session ended; the stream is forgotten then.
    pub fn accept(&mut self, id: StreamId) -> Result<(), StreamError> {
        let Some(stream) = self.streams.get(id).filter(|_| self.role == Role::Agent) else { return Err(self.gone()) };
        match stream.phase {
            Phase::Queued | Phase::Unanswered => {
                self.streams.accept(id);
                self.has_control(id);
                Ok(())
            }
            Phase::Accepted => Ok(()),
            Phase::Refused => {
                let error = stream.send.error().cloned();
                self.release(id);
                Err(error.unwrap_or_else(|| self.gone()))
            }
        }
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
        if let Some(stream) = self.streams.get_mut(id) {
            drop_unread(stream, &mut self.stats, &mut self.tiny);
        }
        if answered {
            self.has_control(id);
            self.reap(id);
        } else {
            self.remove(id);
        }
    }

    /// Resets every stream that still runs, held or not: the peer sees `code`, here they fail with
    /// [`SessionEnd::Shutdown`]. Handles stay, and are to be given up.
    pub fn reset_all(&mut self, code: ResetCode, reason: &str) {
        if self.ended.is_some() {
            return;
        }
        let ids: Vec<StreamId> = self.streams.iter_mut().map(|(id, _)| id).collect();
        for id in ids {
            let untaken = self.streams.withdraw_incoming(id);
            let Some(stream) = self.streams.get_mut(id) else { continue };
            stream.held &= !untaken;
            let answered = stream.phase != Phase::Queued;
            let over = stream.send.is_done() && stream.recv.is_done();
            if answered && !over && stream.due.reset.is_none() {
                stream.due.reset = Some(Box::new((code, reason.to_owned())));
            }
            self.fail_stream(id, &StreamError::Session(SessionEnd::Shutdown));
            self.has_control(id);
            self.reap(id);
        }
    }

    /// The peer has not answered an open in time: its handle learns so, the peer is told.
    pub(super) fn give_up(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        stream.due.reset = Some(Box::new((ResetCode::CANCELLED, "not answered in time".to_owned())));
        self.fail_stream(id, &StreamError::Unanswered);
        self.has_control(id);
    }

    /// Gives up a handle: what was written is delivered, then FIN; STOP goes out if the peer has not finished. An
    /// incoming stream that was not accepted is refused. Again is no fault.
    pub fn detach(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        if self.role == Role::Agent && stream.phase == Phase::Unanswered {
            return self.reset(id, ResetCode::CANCELLED, "");
        }
        if !stream.held {
            return;
        }
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
        drop_unread(stream, &mut self.stats, &mut self.tiny);
        if self.ended.is_none() {
            self.schedule.control(id, stream);
        }
        if stream.is_over() {
            self.remove(id);
        }
    }

    /// A stream for writing; `None` when it is forgotten, or was opened by the peer and is not accepted.
    pub fn send(&mut self, id: StreamId) -> Option<SendView<'_>> {
        self.is_usable(id).then_some(SendView { session: self, id })
    }

    /// A stream for reading; `None` when it is forgotten, or was opened by the peer and is not accepted.
    pub fn recv(&mut self, id: StreamId) -> Option<RecvView<'_>> {
        self.is_usable(id).then_some(RecvView { session: self, id })
    }

    /// How a stream has ended: by an error, or in order, if the peer's end was read; `None` while the peer may have more
    /// to say.
    #[must_use]
    pub fn stream_end(&self, id: StreamId) -> Option<Result<(), StreamError>> {
        let Some(stream) = self.streams.get(id) else { return Some(Err(self.gone())) };
        match (stream.recv.has_finished(), stream.send.error()) {
            // What failed behind this side's own end has nothing to do with it any more.
            (true, Some(error)) if !stream.send.is_finished() => Some(Err(error.clone())),
            (true, _) => Some(Ok(())),
            (false, error) => error.cloned().map(Err),
        }
    }

    /// What a stream was opened for.
    #[must_use]
    pub fn target(&self, id: StreamId) -> Option<&TargetName> {
        self.streams.get(id).map(|stream| &stream.target)
    }

    /// Whether a writer of a stream waits for its peer: for credit, or for acks of what is kept. What merely is not
    /// sent yet waits for the link.
    #[must_use]
    pub fn is_starved(&self, id: StreamId) -> bool {
        self.full || self.streams.get(id).is_some_and(|stream| stream.send.is_starved())
    }

    /// Whether the peer reads no more of a stream.
    #[must_use]
    pub fn is_stopped(&self, id: StreamId) -> bool {
        self.streams.get(id).is_none_or(|stream| stream.send.is_stopped())
    }
}

impl Session {
    /// The bound has room again: once it is worth it, every parked writer is woken; who finds none parks again. Each
    /// time another one is the first, since the first may take all.
    pub(super) fn on_room(&mut self) {
        const WORTH_WAKING: usize = 64 * 1024;
        if !self.full || self.room() < WORTH_WAKING {
            return;
        }
        self.full = false;
        let mut parked: Vec<StreamId> =
            self.streams.iter_mut().filter_map(|(id, stream)| stream.send.take_parked().then_some(id)).collect();
        let next = parked.partition_point(|id| Some(*id) <= self.first_woken);
        parked.rotate_left(next);
        self.first_woken = parked.first().copied().or(self.first_woken);
        for id in parked {
            if let Some(stream) = self.streams.get_mut(id) {
                self.events.push_of(&mut stream.events, Event::Writable(id));
            }
        }
    }

    /// What the bound leaves for queued bytes. Heads and keeping of the messages that they will be laid into are
    /// counted with them: a peer that takes small messages only would eat the reserve up by these.
    pub(super) fn room(&self) -> usize {
        let payload = self.max_message.saturating_sub(MESSAGE_HEAD).saturating_sub(FRAME_HEAD);
        let messages = self.queued.checked_div(payload).unwrap_or(0).saturating_add(1);
        let heads = messages.saturating_mul(Replay::cost(MESSAGE_HEAD).saturating_add(FRAME_HEAD));
        let used = self.queued.saturating_add(heads).saturating_add(self.replay.bytes());
        self.config.send_bound.saturating_sub(self.config.send_reserve).saturating_sub(used)
    }

    /// Fewer opens are unanswered.
    pub(super) fn on_answer(&mut self) {
        if std::mem::take(&mut self.opens_blocked) {
            self.events.push(Event::OpensAvailable);
        }
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
        let Some(stream) = self.streams.get_mut(id).filter(|stream| stream.held) else { return };
        if unanswered && self.role == Role::Server {
            self.events.push_of(&mut stream.events, Event::Answered(id));
        }
        if !stopped && stream.send.is_stopped() {
            self.events.push_of(&mut stream.events, Event::Stopped(id));
        }
    }

    /// Wakes the parked reader and writer of a stream.
    pub(super) fn wake(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        if stream.recv.take_parked() {
            self.events.push_of(&mut stream.events, Event::Readable(id));
        }
        if stream.send.take_parked() {
            self.events.push_of(&mut stream.events, Event::Writable(id));
        }
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
            drop_unread(stream, &mut self.stats, &mut self.tiny);
        }
        self.reap(id);
    }

    fn remove(&mut self, id: StreamId) {
        if let Some(mut stream) = self.streams.remove(id) {
            drop_unread(&mut stream, &mut self.stats, &mut self.tiny);
            self.schedule.forget(id, &stream);
            self.events.forget_stream(id, &stream.events);
            self.on_answer();
        }
    }

    /// Whether a stream is there, and is not one of the peer's that waits for its answer: nothing of that may be sent.
    fn is_usable(&self, id: StreamId) -> bool {
        let of_peer = self.role == Role::Agent;
        self.streams.get(id).is_some_and(|stream| !of_peer || stream.phase != Phase::Unanswered)
    }

    /// What to say of a stream that is not in the table.
    fn gone(&self) -> StreamError {
        self.ended.clone().map_or(StreamError::Finished, StreamError::Session)
    }
}

/// Drops what a stream has unread.
fn drop_unread(stream: &mut Stream, stats: &mut SessionStats, tiny: &mut u32) {
    stats.unread_bytes = stats.unread_bytes.saturating_sub(stream.recv.unread());
    *tiny = tiny.saturating_sub(stream.recv.discard());
}

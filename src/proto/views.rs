//! Borrowed views of one stream: what its handle may do.

use super::{error::StreamError, recv_half::Read, send_half::Written, session::Session};
use crate::frame::StreamId;

/// A stream for writing.
#[derive(Debug)]
pub struct SendView<'a> {
    pub(super) session: &'a mut Session,
    pub(super) id: StreamId,
}

impl SendView<'_> {
    /// Takes as many of `bytes` as credit, queue and the tunnel's bound allow: `Ok(Some(n))`, with n of 1 or more
    /// unless `bytes` is empty. `Ok(None)`: no room, and [`Event::Writable`](crate::proto::Event::Writable) follows.
    ///
    /// # Errors
    /// The stream was finished, reset, or stopped by the peer and read to its end; or the session ended.
    pub fn write(&mut self, bytes: &[u8]) -> Result<Option<usize>, StreamError> {
        let session = &mut *self.session;
        let room = if session.full { 0 } else { session.room() };
        let Some(stream) = session.streams.get_mut(self.id) else { return Err(StreamError::Finished) };
        match stream.send.write(bytes, room, stream.recv.at_end(), session.replay.spares())? {
            Written::Queued(0) => Ok(Some(0)),
            Written::Queued(n) => {
                session.queued = session.queued.saturating_add(n);
                session.schedule.data(self.id, stream);
                Ok(Some(n))
            }
            Written::Swallowed(n) => Ok(Some(n)),
            Written::Blocked => {
                session.full |= room == 0;
                Ok(None)
            }
        }
    }

    /// Declares the end of this direction: FIN follows what was written. Again is no fault.
    ///
    /// # Errors
    /// The stream was reset, or the session ended.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        let session = &mut *self.session;
        let Some(stream) = session.streams.get_mut(self.id) else { return Err(StreamError::Finished) };
        stream.send.finish()?;
        if stream.send.fin_due().is_some() {
            session.schedule.control(self.id, stream);
        }
        Ok(())
    }
}

/// A stream for reading.
#[derive(Debug)]
pub struct RecvView<'a> {
    pub(super) session: &'a mut Session,
    pub(super) id: StreamId,
}

impl RecvView<'_> {
    /// Takes up to `max` bytes, as they arrived; the peer is given new credit as they go.
    ///
    /// # Errors
    /// Only behind all that arrived: the stream was reset, or the session ended.
    pub fn read(&mut self, max: usize) -> Result<Read, StreamError> {
        let session = &mut *self.session;
        let Some(stream) = session.streams.get_mut(self.id) else { return Err(StreamError::Finished) };
        let (outcome, effect) = stream.recv.read(max);
        session.tiny = session.tiny.saturating_sub(effect.tiny);
        if effect.credit_due {
            stream.due.credit = true;
            session.schedule.control(self.id, stream);
        }
        if let Ok(Read::Bytes(bytes)) = &outcome {
            session.streams.on_read(bytes.len());
            session.stats.unread_bytes = session.stats.unread_bytes.saturating_sub(bytes.len());
        }
        outcome
    }

    /// Whether bytes have arrived that were not read.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.session.streams.get(self.id).is_some_and(|stream| stream.recv.unread() > 0)
    }
}

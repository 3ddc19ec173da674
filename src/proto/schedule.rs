//! Whose turn it is: control frames first, in order; then data, round robin.

use std::collections::VecDeque;

use super::streams::Stream;
use crate::frame::{ResetCode, StreamId};

/// The most bytes of one stream in its turn, while others wait: with 128 KiB below the scheduler a small request
/// waits for at most eight turns of others.
pub(crate) const QUANTUM: usize = 16 * 1024;

/// Refusals that wait for a message; a peer that opens beyond its bounds makes them.
const MAX_REFUSALS: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Schedule {
    control: VecDeque<StreamId>,
    data: VecDeque<StreamId>,
    refusals: VecDeque<(StreamId, ResetCode)>,
    /// Streams whose RESET waits, so that the peer does not take many of them for a flood.
    paced: VecDeque<StreamId>,
}

impl Schedule {
    /// A stream has control frames due. Opens stand in the order of their ids, since they are made in it.
    pub(crate) fn control(&mut self, id: StreamId, stream: &mut Stream) {
        if !std::mem::replace(&mut stream.in_control, true) {
            self.control.push_back(id);
        }
    }

    /// A stream has queued bytes.
    pub(crate) fn data(&mut self, id: StreamId, stream: &mut Stream) {
        if !std::mem::replace(&mut stream.in_data, true) {
            self.data.push_back(id);
        }
    }

    /// An open is refused without a stream. `false`: too many refusals wait already.
    pub(crate) fn refuse(&mut self, id: StreamId, code: ResetCode) -> bool {
        let room = self.refusals.len() < MAX_REFUSALS;
        if room {
            self.refusals.push_back((id, code));
        }
        room
    }

    /// The RESET of a stream is put off.
    pub(crate) fn pace(&mut self, id: StreamId) {
        self.paced.push_back(id);
    }

    /// Takes a stream whose RESET was put off.
    pub(crate) fn take_paced(&mut self) -> Option<StreamId> {
        self.paced.pop_front()
    }

    pub(crate) fn has_paced(&self) -> bool {
        !self.paced.is_empty()
    }

    pub(crate) fn next_refusal(&self) -> Option<(StreamId, ResetCode)> {
        self.refusals.front().copied()
    }

    pub(crate) fn pop_refusal(&mut self) {
        self.refusals.pop_front();
    }

    pub(crate) fn next_control(&self) -> Option<StreamId> {
        self.control.front().copied()
    }

    pub(crate) fn pop_control(&mut self) {
        self.control.pop_front();
    }

    /// Takes the stream whose turn it is, and tells how much it may send in it: all that fits when it is alone.
    pub(crate) fn take_data(&mut self) -> Option<(StreamId, usize)> {
        let id = self.data.pop_front()?;
        Some((id, if self.data.is_empty() { usize::MAX } else { QUANTUM }))
    }

    pub(crate) fn has_control(&self) -> bool {
        !self.control.is_empty() || !self.refusals.is_empty()
    }

    pub(crate) fn has_data(&self) -> bool {
        !self.data.is_empty()
    }

    /// How many streams stand in line, for sizing a message.
    pub(crate) fn len(&self) -> usize {
        self.control.len().saturating_add(self.data.len()).saturating_add(self.refusals.len())
    }

    /// A stream is forgotten: it stands in no line any more.
    pub(crate) fn forget(&mut self, id: StreamId, stream: &Stream) {
        if stream.in_control {
            self.control.retain(|waiting| *waiting != id);
        }
        if stream.in_data {
            self.data.retain(|waiting| *waiting != id);
        }
        self.paced.retain(|waiting| *waiting != id);
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

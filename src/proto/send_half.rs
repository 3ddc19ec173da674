//! The writing half of a stream: queued bytes, and how it ends.
//!
//! ```text
//!        finish              FIN laid
//! Open ────────▶ Finishing ────────▶ Finished
//!   │ STOP           │ STOP: its queue is dropped
//!   ▼                ▼
//! Stopped ─────────▶ (FIN laid: done, writes are swallowed until the reader's end)
//!
//! any ── RESET, either way ──▶ Failed
//! ```

use bytes::{Buf, BytesMut};

use super::{
    error::{StreamError, Violation},
    flow::SendCredit,
    spares::Spares,
};
use crate::frame::{Layout, ResetCode, StreamId, data_head};

/// The most that one stream queues: a full message. More only waits behind the scheduler, out of the cache (measured:
/// with 256 KiB keeping costs a single stream 2 % more, and a small request beside it waits a quarter longer).
const QUEUE: usize = 64 * 1024;

/// A queue that was larger is given back to the allocator when it runs empty.
const IDLE_QUEUE: usize = 4 * 1024;

#[derive(Debug)]
enum State {
    Open,
    Finishing,
    Finished,
    Stopped(ResetCode),
    /// Boxed, as most streams never fail.
    Failed(Box<StreamError>),
}

/// What a write came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// So many bytes were taken and queued.
    Queued(usize),
    /// So many bytes were taken and dropped, since the peer reads no more.
    Swallowed(usize),
    /// No credit, or the queue is full.
    Blocked,
}

#[derive(Debug)]
pub(crate) struct SendHalf {
    state: State,
    credit: SendCredit,
    queue: BytesMut,
    /// The buffer of the queue is larger than one that stays.
    large: bool,
    /// How many bytes were laid into messages.
    laid: u64,
    fin_laid: bool,
    /// A writer found no room.
    parked: bool,
}

impl SendHalf {
    pub(crate) fn new(credit: SendCredit) -> Self {
        Self {
            state: State::Open,
            credit,
            queue: BytesMut::new(),
            large: false,
            laid: 0,
            fin_laid: false,
            parked: false,
        }
    }

    /// Queues as much of `bytes` as credit, queue and `room` (what the tunnel's bound leaves) allow.
    /// `reader_done`: this side's reader has reached the end, so that a stopped writer may learn of it.
    pub(crate) fn write(
        &mut self,
        bytes: &[u8],
        room: usize,
        reader_done: bool,
        spares: &mut Spares,
    ) -> Result<Written, StreamError> {
        match &self.state {
            State::Open => {
                let n = bytes.len().min(self.credit.available()).min(room).min(QUEUE.saturating_sub(self.queue.len()));
                if n == 0 && !bytes.is_empty() {
                    self.parked = true;
                    return Ok(Written::Blocked);
                }
                self.credit.spend(n);
                self.enqueue(bytes.get(..n).unwrap_or_default(), spares);
                Ok(Written::Queued(n))
            }
            State::Stopped(code) if reader_done => Err(StreamError::Stopped(*code)),
            State::Stopped(_) => Ok(Written::Swallowed(bytes.len())),
            State::Finishing | State::Finished => Err(StreamError::Finished),
            State::Failed(error) => Err(StreamError::clone(error)),
        }
    }

    /// Where there is no room a buffer is taken that fits, so that messages which share a part of it pin little more.
    fn enqueue(&mut self, bytes: &[u8], spares: &mut Spares) {
        let len = self.queue.len().saturating_add(bytes.len());
        if Layout::shares(bytes.len()) && len > self.queue.capacity() {
            let mut buffer = spares.take(len);
            buffer.extend_from_slice(&self.queue);
            self.queue = buffer;
        }
        self.queue.extend_from_slice(bytes);
        self.large |= self.queue.capacity() > IDLE_QUEUE;
    }

    /// Declares the end; again is no fault.
    pub(crate) fn finish(&mut self) -> Result<(), StreamError> {
        match &self.state {
            State::Open => self.state = State::Finishing,
            State::Finishing | State::Finished | State::Stopped(_) => {}
            State::Failed(error) => return Err(StreamError::clone(error)),
        }
        Ok(())
    }

    /// The peer reads no more. Gives how many queued bytes were dropped.
    pub(crate) fn on_stop(&mut self, code: ResetCode) -> usize {
        if matches!(self.state, State::Open | State::Finishing) {
            self.state = State::Stopped(code);
            return self.drop_queue();
        }
        0
    }

    /// Either side reset the stream, or its session ended. Gives how many queued bytes were dropped.
    pub(crate) fn fail(&mut self, error: StreamError) -> usize {
        if !matches!(self.state, State::Failed(_)) {
            self.state = State::Failed(Box::new(error));
        }
        self.drop_queue()
    }

    /// The peer's credit; tells whether there is more now.
    pub(crate) fn on_credit(&mut self, offset: u64) -> Result<bool, Violation> {
        self.credit.grant(offset)
    }

    /// Whether a parked writer is to be woken; asks once per parking.
    pub(crate) fn take_parked(&mut self) -> bool {
        std::mem::take(&mut self.parked)
    }

    /// Whether so little is queued that a parked writer, if it has credit, should fill it up before it runs empty.
    pub(crate) fn is_low(&self) -> bool {
        self.queue.len() <= QUEUE / 2 && self.credit.available() > 0
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Lays up to `max` queued bytes into a message, as one DATA frame. Gives how many.
    pub(crate) fn lay_data(&mut self, stream: StreamId, max: usize, message: &mut Layout) -> usize {
        let n = self.queue.len().min(max);
        let Some(chunk) = self.queue.get(..n).filter(|chunk| !chunk.is_empty()) else { return 0 };
        data_head(stream, n, message.tail());
        if Layout::shares(n) {
            message.share(self.queue.split_to(n).freeze());
        } else {
            message.tail().extend_from_slice(chunk);
            self.queue.advance(n);
        }
        self.laid = self.laid.saturating_add(n as u64);
        if self.queue.is_empty() && std::mem::take(&mut self.large) {
            self.queue = BytesMut::new();
        }
        n
    }

    /// The final size, when FIN is due: the end was declared or forced, and all before it is laid.
    pub(crate) fn fin_due(&self) -> Option<u64> {
        let ending = matches!(self.state, State::Finishing | State::Stopped(_));
        (ending && !self.fin_laid && self.queue.is_empty()).then_some(self.laid)
    }

    pub(crate) fn on_fin_laid(&mut self) {
        self.fin_laid = true;
        if matches!(self.state, State::Finishing) {
            self.state = State::Finished;
        }
    }

    /// Whether nothing more will be sent in this direction.
    pub(crate) fn is_done(&self) -> bool {
        self.fin_laid || matches!(self.state, State::Failed(_))
    }

    /// Whether FIN was laid.
    pub(crate) fn is_finished(&self) -> bool {
        self.fin_laid
    }

    /// Whether there is no credit.
    pub(crate) fn is_starved(&self) -> bool {
        self.credit.available() == 0
    }

    /// Why the stream failed, if it did.
    pub(crate) fn error(&self) -> Option<&StreamError> {
        match &self.state {
            State::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Whether the peer reads no more.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped(_) | State::Failed(_))
    }

    fn drop_queue(&mut self) -> usize {
        let dropped = self.queue.len();
        self.queue = BytesMut::new();
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(credit: u64) -> SendHalf {
        SendHalf::new(SendCredit::new(credit, 1 << 20))
    }

    fn id() -> StreamId {
        StreamId::new(1).unwrap()
    }

    #[test]
    fn takes_what_credit_and_room_allow_then_parks() {
        let mut half = half(10);
        assert_eq!(half.write(&[0; 4], 3, false, &mut Spares::new(0)), Ok(Written::Queued(3)));
        assert_eq!(half.write(&[0; 20], 100, false, &mut Spares::new(0)), Ok(Written::Queued(7)));
        assert_eq!(half.write(&[0; 1], 100, false, &mut Spares::new(0)), Ok(Written::Blocked));
        assert_eq!(half.on_credit(11), Ok(true));
        assert!(half.take_parked());
        assert!(!half.take_parked());
    }

    #[test]
    fn fin_waits_for_the_queue() {
        let mut half = half(10);
        half.write(b"abc", 10, false, &mut Spares::new(0)).unwrap();
        half.finish().unwrap();
        assert_eq!(half.fin_due(), None);
        let mut message = Layout::with_capacity(0);
        assert_eq!(half.lay_data(id(), 2, &mut message), 2);
        assert_eq!(half.lay_data(id(), 2, &mut message), 1);
        assert_eq!(half.fin_due(), Some(3));
        half.on_fin_laid();
        assert!(half.is_done() && half.fin_due().is_none());
        assert_eq!(half.write(b"d", 10, false, &mut Spares::new(0)), Err(StreamError::Finished));
        assert_eq!(half.finish(), Ok(()));
    }

    #[test]
    fn after_stop_writes_are_swallowed_until_the_reader_is_done_then_fail() {
        let mut half = half(10);
        half.write(b"abc", 10, false, &mut Spares::new(0)).unwrap();
        assert_eq!(half.on_stop(ResetCode::CANCELLED), 3);
        assert_eq!(half.fin_due(), Some(0));
        assert_eq!(half.write(&[0; 99], 0, false, &mut Spares::new(0)), Ok(Written::Swallowed(99)));
        assert_eq!(half.write(b"d", 10, true, &mut Spares::new(0)), Err(StreamError::Stopped(ResetCode::CANCELLED)));
        assert_eq!(half.finish(), Ok(()));
    }

    #[test]
    fn after_a_failure_the_first_error_stands() {
        let mut half = half(10);
        let reset = StreamError::Reset { code: ResetCode::INTERNAL, reason: "x".into() };
        half.fail(reset.clone());
        half.fail(StreamError::Finished);
        assert_eq!(half.write(b"d", 10, false, &mut Spares::new(0)), Err(reset.clone()));
        assert_eq!(half.finish(), Err(reset));
        assert!(half.is_done());
        assert_eq!(half.on_stop(ResetCode::CANCELLED), 0);
    }
}

//! The reading half of a stream: bytes that arrived, how it ends, and when to grant credit.
//!
//! ```text
//!        FIN at the received size
//! Open ──────────────────────────▶ Finished   read to its end, then End
//!   │ RESET, or the session's end
//!   ├──────────────────────────▶ Failed     read to its end, then the error
//!   │ handle dropped
//!   └──────────────────────────▶ Discarding ── FIN or RESET ──▶ Finished
//! ```

use std::{collections::VecDeque, mem};

use bytes::{Bytes, BytesMut};

use super::{
    error::{StreamError, Violation},
    flow::RecvWindow,
};
use crate::frame::CloseCode;

/// DATA with less than this is tiny, and drawn on a budget while it is unread.
const TINY: usize = 256;

/// A payload below this behind others, or below a fifth of the message that it pins, is copied and joined with its
/// neighbours. (A quarter would copy every quantum of a full message, which heads make a little less than a quarter of it.)
const COPIED: usize = 1024;

/// Copied bytes are joined up to this: one quantum of the scheduler.
const JOINED: usize = 16 * 1024;

#[derive(Debug)]
enum State {
    Open,
    Finished,
    /// Boxed, as most streams never fail.
    Failed(Box<StreamError>),
    Discarding,
}

/// Bytes in a row, and how many tiny frames they came in.
#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    tiny: u32,
}

/// What a read gave.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a read has these outcomes and no other")]
pub enum Read {
    /// At least one byte.
    Bytes(Bytes),
    /// Nothing now; [`Event::Readable`](crate::proto::Event::Readable) follows.
    Blocked,
    /// The end of the stream, at its final size.
    End,
}

/// What a read changed beside giving bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadEffect {
    /// Credit should be granted.
    pub(crate) credit_due: bool,
    /// So many tiny frames are unread no more.
    pub(crate) tiny: u32,
}

#[derive(Debug)]
pub(crate) struct RecvHalf {
    state: State,
    window: RecvWindow,
    chunks: VecDeque<Chunk>,
    /// Copied bytes behind all chunks.
    tail: BytesMut,
    tail_tiny: u32,
    unread: usize,
    /// A reader found nothing.
    parked: bool,
}

impl RecvHalf {
    pub(crate) fn new(window: u64) -> Self {
        Self {
            state: State::Open,
            window: RecvWindow::new(window),
            chunks: VecDeque::new(),
            tail: BytesMut::new(),
            tail_tiny: 0,
            unread: 0,
            parked: false,
        }
    }

    /// DATA arrived, in a message of `pinned` bytes. Gives how many tiny frames more are unread.
    pub(crate) fn on_data(&mut self, payload: Bytes, pinned: usize) -> Result<u32, Violation> {
        if matches!(self.state, State::Finished) {
            return Err(Violation::new(CloseCode::FORBIDDEN, "data after the end of a stream"));
        }
        self.window.on_data(payload.len())?;
        if !matches!(self.state, State::Open) {
            return Ok(0);
        }
        let tiny = u32::from(payload.len() < TINY);
        self.unread = self.unread.saturating_add(payload.len());
        // The first is never one of many.
        let short = payload.len() < COPIED && self.unread > payload.len();
        if short || payload.len() < pinned / 5 {
            if self.tail.len().saturating_add(payload.len()) > JOINED {
                self.push_tail();
            }
            if self.tail.is_empty() {
                // As large as it is, which needs nothing more to be given to the reader.
                self.tail = BytesMut::from(&*payload);
            } else {
                self.tail.extend_from_slice(&payload);
            }
            self.tail_tiny = self.tail_tiny.saturating_add(tiny);
        } else {
            self.push_tail();
            self.chunks.push_back(Chunk { bytes: payload, tiny });
        }
        Ok(tiny)
    }

    /// FIN arrived.
    pub(crate) fn on_fin(&mut self, final_size: u64) -> Result<(), Violation> {
        if final_size != self.window.received() {
            return Err(Violation::new(CloseCode::FORBIDDEN, "final size does not match the data"));
        }
        if matches!(self.state, State::Open | State::Discarding) {
            self.state = State::Finished;
        }
        Ok(())
    }

    /// The stream was reset, or its session ended: what arrived is read first, and an end that was told stands.
    pub(crate) fn fail(&mut self, error: StreamError) {
        if matches!(self.state, State::Open | State::Discarding) {
            self.state = State::Failed(Box::new(error));
        }
    }

    /// Nobody reads any more. Gives how many tiny frames are dropped unread.
    pub(crate) fn discard(&mut self) -> u32 {
        if matches!(self.state, State::Open) {
            self.state = State::Discarding;
        }
        self.push_tail();
        self.unread = 0;
        self.parked = false;
        mem::take(&mut self.chunks).iter().fold(0, |sum, chunk| sum.saturating_add(chunk.tiny))
    }

    pub(crate) fn read(&mut self, max: usize) -> (Result<Read, StreamError>, ReadEffect) {
        let mut effect = ReadEffect::default();
        if self.chunks.is_empty() && self.tail.len() > max {
            self.push_tail();
        }
        let bytes = if let Some(front) = self.chunks.front_mut() {
            let bytes = front.bytes.split_to(max.min(front.bytes.len()));
            if front.bytes.is_empty() {
                effect.tiny = front.tiny;
                self.chunks.pop_front();
            }
            bytes
        } else if !self.tail.is_empty() {
            let Chunk { bytes, tiny } = self.take_tail();
            effect.tiny = tiny;
            bytes
        } else {
            let outcome = match &self.state {
                State::Finished => Ok(Read::End),
                State::Failed(error) => Err(StreamError::clone(error)),
                State::Open | State::Discarding => {
                    self.parked = true;
                    Ok(Read::Blocked)
                }
            };
            return (outcome, effect);
        };
        self.unread = self.unread.saturating_sub(bytes.len());
        effect.credit_due = self.window.consume(bytes.len()) && matches!(self.state, State::Open);
        (Ok(Read::Bytes(bytes)), effect)
    }

    /// Whether the reader has been given the end or an error, or would be at its next read.
    pub(crate) fn at_end(&self) -> bool {
        self.unread == 0 && !matches!(self.state, State::Open)
    }

    /// Whether all that the peer said until its end has arrived and was read.
    pub(crate) fn has_finished(&self) -> bool {
        self.unread == 0 && matches!(self.state, State::Finished)
    }

    /// Whether nothing more will arrive.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Finished | State::Failed(_))
    }

    /// Whether a parked reader is to be woken; asks once per parking.
    pub(crate) fn take_parked(&mut self) -> bool {
        mem::take(&mut self.parked)
    }

    pub(crate) fn unread(&self) -> usize {
        self.unread
    }

    pub(crate) fn window(&mut self) -> &mut RecvWindow {
        &mut self.window
    }

    fn push_tail(&mut self) {
        if !self.tail.is_empty() {
            let chunk = self.take_tail();
            self.chunks.push_back(chunk);
        }
    }

    /// `freeze` of the whole: a slice of a buffer that grew further would pin what comes after it.
    fn take_tail(&mut self) -> Chunk {
        Chunk { bytes: mem::take(&mut self.tail).freeze(), tiny: mem::take(&mut self.tail_tiny) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::ResetCode;

    fn reset() -> StreamError {
        StreamError::Reset { code: ResetCode::TARGET_RESET, reason: "x".into() }
    }

    fn read(half: &mut RecvHalf) -> Result<Read, StreamError> {
        half.read(1 << 20).0
    }

    #[test]
    fn what_arrived_is_read_before_the_error_of_a_reset() {
        let mut half = RecvHalf::new(100);
        half.on_data(Bytes::from_static(b"abc"), 100).unwrap();
        half.fail(reset());
        assert_eq!(read(&mut half), Ok(Read::Bytes(Bytes::from_static(b"abc"))));
        assert_eq!(read(&mut half), Err(reset()));
    }

    #[test]
    fn an_end_that_was_told_stands_against_a_reset() {
        let mut half = RecvHalf::new(100);
        half.on_data(Bytes::from_static(b"abc"), 100).unwrap();
        half.on_fin(3).unwrap();
        half.fail(reset());
        assert!(matches!(read(&mut half), Ok(Read::Bytes(_))));
        assert_eq!(read(&mut half), Ok(Read::End));
    }

    #[test]
    fn a_final_size_that_does_not_match_and_data_behind_it_are_violations() {
        let mut half = RecvHalf::new(100);
        half.on_data(Bytes::from_static(b"abc"), 100).unwrap();
        assert_eq!(half.on_fin(4).unwrap_err().code(), CloseCode::FORBIDDEN);
        half.on_fin(3).unwrap();
        assert_eq!(half.on_data(Bytes::from_static(b"d"), 100).unwrap_err().code(), CloseCode::FORBIDDEN);
        assert!(half.on_fin(2).is_err());
    }

    #[test]
    fn tiny_frames_are_joined_and_counted_until_read() {
        let mut half = RecvHalf::new(1 << 20);
        for _ in 0..1000 {
            assert_eq!(half.on_data(Bytes::from_static(b"x"), 25), Ok(1));
        }
        let (bytes, effect) = half.read(1 << 20);
        assert_eq!(bytes, Ok(Read::Bytes(Bytes::from(vec![b'x'; 1000]))));
        assert_eq!(effect.tiny, 1000);
    }

    #[test]
    fn large_payloads_are_not_copied_and_order_is_kept() {
        let mut half = RecvHalf::new(1 << 20);
        let large = Bytes::from(vec![7; 4096]);
        half.on_data(Bytes::from_static(b"a"), 25).unwrap();
        half.on_data(large.clone(), 4120).unwrap();
        half.on_data(Bytes::from_static(b"b"), 25).unwrap();
        assert_eq!(read(&mut half), Ok(Read::Bytes(Bytes::from_static(b"a"))));
        let Ok(Read::Bytes(got)) = read(&mut half) else { panic!("bytes expected") };
        assert_eq!(got.as_ptr(), large.as_ptr());
        assert_eq!(read(&mut half), Ok(Read::Bytes(Bytes::from_static(b"b"))));
        assert_eq!(read(&mut half), Ok(Read::Blocked));
        assert!(half.take_parked() && !half.take_parked());
    }

    #[test]
    fn a_payload_that_pins_much_more_than_itself_is_copied() {
        let mut half = RecvHalf::new(1 << 20);
        let message = Bytes::from(vec![7; 64 * 1024]);
        let fifth = message.len() / 5;
        half.on_data(message.slice(..fifth - 1), message.len()).unwrap();
        half.on_data(message.slice(..fifth), message.len()).unwrap();
        let [copied, kept] = [(), ()].map(|()| match read(&mut half) {
            Ok(Read::Bytes(bytes)) => bytes.as_ptr(),
            other => panic!("{other:?}"),
        });
        assert!(!message.as_ptr_range().contains(&copied) && message.as_ptr_range().contains(&kept));
    }

    #[test]
    fn copies_behind_the_first_are_joined_up_to_16_kib() {
        let mut half = RecvHalf::new(1 << 20);
        for _ in 0..100 {
            half.on_data(Bytes::from_static(&[7; 1000]), 1024).unwrap();
        }
        for expected in [1000, 16_000, 16_000] {
            let Ok(Read::Bytes(bytes)) = read(&mut half) else { panic!("bytes expected") };
            assert_eq!(bytes.len(), expected);
        }
    }

    #[test]
    fn a_discarding_half_still_holds_the_peer_to_its_credit() {
        let mut half = RecvHalf::new(4);
        half.discard();
        assert_eq!(half.on_data(Bytes::from_static(b"abcd"), 100), Ok(0));
        assert_eq!(half.on_data(Bytes::from_static(b"e"), 100).unwrap_err().code(), CloseCode::CREDIT);
    }
}

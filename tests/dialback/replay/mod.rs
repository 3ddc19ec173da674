//! Transcripts of the deployed peers, and how each of their two sides is played to ours.

pub(crate) mod tape;
pub(crate) mod to_agent;
pub(crate) mod to_server;

use std::time::Duration;

use tokio::{
    io::DuplexStream,
    time::{Instant, sleep_until},
};

use crate::classic::{
    Peer,
    wire::{Frame, PING, PONG},
};

/// The token of all transcripts.
pub(crate) const TOKEN: &str = "tok123";

/// Whether what comes has to come at its recorded time. In paused time only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timing {
    Any,
    Recorded,
}

/// When records are due: counted from the first frame that the server sends.
#[derive(Debug)]
pub(crate) struct Clock {
    timing: Timing,
    start: Option<(Instant, f64)>,
}

impl Clock {
    pub(crate) fn new(timing: Timing) -> Self {
        Self { timing, start: None }
    }

    fn due(&mut self, at: f64) -> Instant {
        let (start, first) = *self.start.get_or_insert_with(|| (Instant::now(), at));
        start + Duration::from_secs_f64(at - first)
    }

    /// Waits until something is to be sent.
    pub(crate) async fn wait(&mut self, at: f64) {
        let due = self.due(at);
        if self.timing == Timing::Recorded {
            sleep_until(due).await;
        }
    }

    /// What came just now has this recorded time. The recorder itself was some milliseconds late.
    pub(crate) fn came(&mut self, at: f64) {
        let due = self.due(at);
        let now = Instant::now();
        let off = now.max(due) - now.min(due);
        assert!(self.timing == Timing::Any || off < Duration::from_millis(100), "{off:?} off its time, {at} s");
    }
}

/// The next frame, which has to be of this kind. Of a ping and a pong of the same millisecond either may come first.
async fn next_of(peer: &mut Peer<DuplexStream>, early: &mut Vec<Frame>, opcode: u8) -> Frame {
    if let Some(at) = early.iter().position(|frame| frame.opcode == opcode) {
        return early.remove(at);
    }
    let frame = peer.frame().await.expect("a frame, and not the end");
    if frame.opcode == opcode || ![frame.opcode, opcode].iter().all(|opcode| [PING, PONG].contains(opcode)) {
        return frame;
    }
    early.push(frame);
    peer.frame().await.expect("a frame, and not the end")
}

//! The session: its parts, and what may be asked of it.

use std::time::{Duration, Instant};

use super::{
    config::SessionConfig,
    error::{SessionEnd, StreamError},
    event::{Event, Events},
    flood::FloodBudget,
    replay::Replay,
    schedule::Schedule,
    streams::Streams,
    timer::Timers,
};
use crate::{
    frame::{Bounds, CloseCode, Frame, MAX_MESSAGE, Metadata, StreamId},
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
    /// Acks lower than one before, and credits that raised nothing, ignored.
    pub stale_acks: u64,
    /// Opens refused, since as many streams are open or unanswered as may be.
    pub refused_streams: u64,
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

/// A DRAIN of this side's.
#[derive(Debug)]
pub(super) struct Drain {
    pub(super) frame: Frame,
    pub(super) code: CloseCode,
    pub(super) reason: String,
    /// The PING that left behind it: its PONG shows that the peer has seen DRAIN, and opens nothing any more.
    pub(super) ping: Option<[u8; 8]>,
    pub(super) seen: bool,
}

/// What the present link has shown, or the last one if there is none.
#[derive(Debug, Default)]
pub(super) struct LinkFacts {
    /// The peer has said something on it.
    pub(super) heard: bool,
    /// A counted message, or the ack of one, got through on it.
    pub(super) progress: bool,
    /// The shortest round trip: what the way takes when it is idle, as when the first PING leaves.
    pub(super) least_rtt: Option<Duration>,
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
    /// What this side keeps its own RESETs to: half of what it takes from a peer.
    pub(super) own_resets: FloodBudget,
    pub(super) unknown: FloodBudget,
}

/// How many seconds' worth of a budget may come at once.
const BURST: Duration = Duration::from_secs(5);

/// The budget of PINGs on one link.
pub(super) fn pings(config: &SessionConfig) -> FloodBudget {
    FloodBudget::new("flood of pings", config.pings_per_second, Duration::from_secs(1), BURST)
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
    pub(super) events: Events,
    pub(super) stats: SessionStats,
    /// Counted messages of the peer that were handled.
    pub(super) received: u64,
    pub(super) up: bool,
    pub(super) link: LinkFacts,
    /// Attaches in a row with messages outstanding and none newly acked.
    pub(super) fruitless: u32,
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
    /// The writer that was woken first when there was room last.
    pub(super) first_woken: Option<StreamId>,
    /// An open found too many unanswered.
    pub(super) opens_blocked: bool,
    /// What this side says in DRAIN, again on each link.
    pub(super) drain: Option<Drain>,
    pub(super) peer_drains: bool,
    /// What to close with once all is sent and acked.
    pub(super) shutdown: Option<(CloseCode, String)>,
    pub(super) ended: Option<SessionEnd>,
    pub(super) random: u64,
}

impl Session {
    /// A new session without a link. `peer` is what its HELLO or WELCOME announced, and
    /// [`check_bounds`](crate::proto::check_bounds) has judged; `seed` varies the times of PING.
    #[must_use]
    pub fn new(role: Role, config: SessionConfig, peer: Bounds, seed: u64) -> Self {
        const SECOND: Duration = Duration::from_secs(1);
        const MINUTE: Duration = Duration::from_secs(60);
        let max_message = MAX_MESSAGE.min(usize::try_from(peer.max_message).unwrap_or(MAX_MESSAGE));
        Self {
            role,
            max_message,
            streams: Streams::new(&config, &peer),
            schedule: Schedule::default(),
            replay: Replay::new(config.send_bound),
            timers: Timers::default(),
            floods: Floods {
                pings: pings(&config),
                resets: FloodBudget::new("flood of resets", config.resets_per_second, SECOND, BURST),
                own_resets: FloodBudget::new("own resets", (config.resets_per_second / 2).max(1), SECOND, BURST),
                unknown: FloodBudget::new("flood of unknown frames", config.unknown_per_minute, MINUTE, MINUTE),
            },
            config,
            events: Events::default(),
            stats: SessionStats::default(),
            received: 0,
            up: false,
            link: LinkFacts::default(),
            fruitless: 0,
            pending: Pending::default(),
            ack: AckState::default(),
            ping_sent: None,
            queued: 0,
            tiny: 0,
            full: false,
            first_woken: None,
            opens_blocked: false,
            drain: None,
            peer_drains: false,
            shutdown: None,
            ended: None,
            random: seed,
        }
    }

    /// The same session, which ends with its first link: what was sent is not kept, and what was received is not acked.
    /// For both sides of a session with a `max_hold` of zero \[M-82\]; it saves the memory, and the time of it.
    #[must_use]
    pub fn without_resume(mut self) -> Self {
        self.replay.turn_off();
        self
    }

    /// Whether what was sent is kept until it is acked.
    #[cfg(any(feature = "server", feature = "agent"))]
    pub(crate) fn keeps(&self) -> bool {
        !self.replay.is_off()
    }

    /// How many counted messages of the peer were handled: what HELLO and WELCOME tell as `received`.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The next event. To be asked after each input until there is none; each kind waits once, and once for each stream.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop()?;
        if let Some(id) = event.stream()
            && let Some(stream) = self.streams.get_mut(id)
        {
            stream.events.remove(&event);
        }
        Some(event)
    }

    /// Whether [`poll_event`](Self::poll_event) has any.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Why the session ended; `None` while it lives.
    #[must_use]
    pub fn ended(&self) -> Option<&SessionEnd> {
        self.ended.as_ref()
    }

    /// Whether a link is bound.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Whether the peer has said anything on the present link, or on the last one if there is none: a grace ends with
    /// that, and not with HELLO.
    #[must_use]
    pub fn heard(&self) -> bool {
        self.link.heard
    }

    /// Whether a counted message, or the ack of one, got through on the present link, or on the last one if there is
    /// none.
    #[must_use]
    pub fn progress(&self) -> bool {
        self.link.progress
    }

    /// Whether nothing new is opened here: one of the sides drains, or the session shuts down or has ended.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.peer_drains || self.drain.is_some() || self.shutdown.is_some() || self.ended.is_some()
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
}

//! Two sessions, a clock and a breakable link, driven by a list of operations and held against an oracle.
//!
//! Shared by the tests and by the fuzz target of the same operations: [`run`] turns any bytes into operations.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::LazyLock,
    time::{Duration, Instant},
};

use bytes::Bytes;
use revdial::{
    TargetName,
    frame::{Frame, Metadata, ResetCode, StreamId, decode},
    proto::{Event, OpenError, Read, Role, Session, SessionConfig, StreamError},
};

/// One side of the pair, and of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Server,
    Agent,
}

use Side::{Agent, Server};

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Server => Agent,
            Agent => Server,
        }
    }
}

/// What a handle may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wait {
    Read,
    Write,
}

/// What the oracle knows of one direction of a stream, by the side that writes.
#[derive(Debug, Default, Clone, Copy)]
struct Direction {
    written: u64,
    read: u64,
    /// The writer declared its end, by finishing or by dropping its handle.
    finished: bool,
    /// The reader saw the end.
    ended: bool,
    /// The reader dropped its handle, or either side reset: what was written may be lost.
    lossy: bool,
}

/// Two sessions and what lies between them.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) server: Session,
    pub(crate) agent: Session,
    /// Messages under way, by the side that they go to.
    wires: BTreeMap<Side, VecDeque<Bytes>>,
    pub(crate) up: bool,
    /// What the agent had at the last new link, and how many there were in a row since it had more.
    fruitless: (u64, u32),
    config: SessionConfig,
    /// Streams in the order of their opening, and whether each side still has its handle.
    pub(crate) streams: Vec<StreamId>,
    handles: BTreeSet<(StreamId, Side)>,
    /// Who found nothing to read or no room to write, and was not woken since.
    parked: BTreeSet<(StreamId, Side, Wait)>,
    /// An open found too many unanswered, and nobody was told since that there are fewer.
    open_parked: bool,
    directions: BTreeMap<(StreamId, Side), Direction>,
}

/// Bounds so small that a few operations reach them.
pub(crate) fn tight() -> SessionConfig {
    SessionConfig {
        max_streams: 6,
        max_opens: 4,
        max_opens_per_target: 3,
        send_bound: 140 * 1024,
        send_reserve: 8 * 1024,
        recv_budget: 512 * 1024,
        base_credit: 4 * 1024,
        lent_credit: 60 * 1024,
        ..SessionConfig::default()
    }
}

impl Pair {
    pub(crate) fn new(config: SessionConfig) -> Self {
        config.validate().expect("a config that the tests made");
        let now = Instant::now();
        let bounds = config.bounds();
        let mut pair = Self {
            now,
            server: Session::new(Role::Server, config.clone(), bounds, 1),
            agent: Session::new(Role::Agent, config.clone(), bounds, 2),
            wires: BTreeMap::from([(Server, VecDeque::new()), (Agent, VecDeque::new())]),
            up: false,
            fruitless: (0, 0),
            config,
            streams: Vec::new(),
            handles: BTreeSet::new(),
            parked: BTreeSet::new(),
            open_parked: false,
            directions: BTreeMap::new(),
        };
        pair.resume();
        pair
    }

    pub(crate) fn side(&mut self, side: Side) -> &mut Session {
        match side {
            Server => &mut self.server,
            Agent => &mut self.agent,
        }
    }

    pub(crate) fn try_open(&mut self, target: u8) -> Result<StreamId, OpenError> {
        let target: TargetName = ["", "a", "b"][usize::from(target) % 3].parse().expect("a target name");
        let opened = self.server.open(&target, Metadata::default());
        self.open_parked |= opened == Err(OpenError::TooManyOpens);
        let id = opened?;
        self.streams.push(id);
        self.handles.insert((id, Server));
        Ok(id)
    }

    /// The agent takes all streams that wait.
    pub(crate) fn accept(&mut self) {
        while let Some(incoming) = self.agent.incoming() {
            if self.agent.accept(incoming.stream).is_ok() {
                self.handles.insert((incoming.stream, Agent));
            }
        }
    }

    /// Moves all that wants to move, until nothing does.
    pub(crate) fn pump(&mut self) {
        while self.deliver(Agent, usize::MAX) + self.deliver(Server, usize::MAX) > 0 {}
    }

    /// Gives up to `most` messages to a side; tells how many there were.
    pub(crate) fn deliver(&mut self, to: Side, most: usize) -> usize {
        self.transmit(to.other());
        let mut delivered = 0;
        while delivered < most
            && let Some(message) = self.wires.get_mut(&to).and_then(VecDeque::pop_front)
        {
            let now = self.now;
            self.side(to).handle_activity(now);
            self.side(to).handle_message(now, message).expect("correct peers break no rule");
            delivered += 1;
        }
        self.check_bounds();
        self.take_events();
        delivered
    }

    /// Whoever an event names is woken; a link that is found dead is cut.
    fn take_events(&mut self) {
        for side in [Server, Agent] {
            while let Some(event) = self.side(side).poll_event() {
                match event {
                    Event::Readable(id) => drop(self.parked.remove(&(id, side, Wait::Read))),
                    Event::Writable(id) => drop(self.parked.remove(&(id, side, Wait::Write))),
                    Event::OpensAvailable => self.open_parked = false,
                    Event::Answered(id) if matches!(self.server.opened(id), revdial::proto::Opened::Failed(_)) => {
                        // Not answered in time: what was written early may be lost.
                        self.directions.entry((id, Server)).or_default().lossy = true;
                        self.directions.entry((id, Agent)).or_default().lossy = true;
                    }
                    Event::LinkDead(_) => self.cut(),
                    _ => {}
                }
            }
        }
    }

    /// Puts all that a side has to say onto the wire.
    pub(crate) fn transmit(&mut self, from: Side) {
        let now = self.now;
        while let Some(message) = self.side(from).poll_transmit(now).map(Bytes::from) {
            self.wires.get_mut(&from.other()).expect("two wires").push_back(message);
        }
        assert!(!self.side(from).wants_transmit(), "wants to send and has nothing");
    }

    /// The messages under way to a side, taken away.
    pub(crate) fn take_wire(&mut self, to: Side) -> Vec<Bytes> {
        self.wires.get_mut(&to).expect("two wires").drain(..).collect()
    }

    /// The link breaks: what is under way is lost, and both sides notice.
    pub(crate) fn cut(&mut self) {
        self.wires.values_mut().for_each(VecDeque::clear);
        let now = self.now;
        self.server.link_down(now);
        self.agent.link_down(now);
        self.up = false;
    }

    /// A new link, in the place of one that may still be there.
    pub(crate) fn resume(&mut self) {
        self.wires.values_mut().for_each(VecDeque::clear);
        let now = self.now;
        let (server_has, agent_has) = (self.server.received(), self.agent.received());
        self.server.link_up(now, agent_has).expect("counts that can be");
        self.agent.link_up(now, server_has).expect("counts that can be");
        self.up = true;
        self.fruitless = (agent_has, if self.fruitless.0 == agent_has { self.fruitless.1 + 1 } else { 0 });
        if self.fruitless.1 == 9 {
            // Two more on which nothing is acked would end the session.
            self.pump();
            self.fruitless.1 = 0;
        }
    }

    /// Time passes; a link that is found dead is cut.
    pub(crate) fn advance(&mut self, by: Duration) {
        self.now += by;
        let now = self.now;
        self.server.handle_timeout(now);
        self.agent.handle_timeout(now);
        self.take_events();
    }

    /// Writes up to `n` bytes of the stream's pattern; tells how many were taken.
    pub(crate) fn write(&mut self, id: StreamId, side: Side, n: usize) -> Result<usize, StreamError> {
        if !self.handles.contains(&(id, side)) {
            return Ok(0);
        }
        let written = self.directions.entry((id, side)).or_default().written;
        let bytes = &pattern(id, side, written)[..n.min(PERIOD)];
        let Some(mut view) = self.side(side).send(id) else { return Ok(0) };
        let taken = view.write(bytes)?;
        if taken.is_none() {
            self.parked.insert((id, side, Wait::Write));
        }
        let taken = taken.unwrap_or(0);
        self.directions.entry((id, side)).or_default().written += taken as u64;
        Ok(taken)
    }

    /// Reads up to `n` bytes that `side` receives, and holds them against what was written.
    pub(crate) fn read(&mut self, id: StreamId, side: Side, n: usize) -> Result<Option<usize>, StreamError> {
        if !self.handles.contains(&(id, side)) {
            return Ok(None);
        }
        let Some(mut view) = self.side(side).recv(id) else { return Ok(None) };
        let outcome = view.read(n.max(1));
        // The server gave its open up after ten seconds without an answer: what it wrote early is lost.
        let given_up =
            matches!(&outcome, Err(StreamError::Reset { reason, .. }) if &**reason == "not answered in time");
        if given_up {
            self.directions.entry((id, side.other())).or_default().lossy = true;
        }
        let from = side.other();
        let direction = self.directions.entry((id, from)).or_default();
        match outcome? {
            Read::Bytes(bytes) => {
                for bytes in bytes.chunks(PERIOD) {
                    let same = pattern(id, from, direction.read).starts_with(bytes);
                    assert!(same, "{id:?} from {from:?} differs behind {}", direction.read);
                    direction.read += bytes.len() as u64;
                }
                assert!(direction.read <= direction.written, "read more than was written");
                Ok(Some(bytes.len()))
            }
            Read::Blocked => {
                self.parked.insert((id, side, Wait::Read));
                Ok(None)
            }
            Read::End => {
                assert!(direction.finished || direction.lossy, "an end that nobody declared");
                assert!(direction.lossy || direction.read == direction.written, "an end before the final size");
                direction.ended = true;
                Ok(Some(0))
            }
        }
    }

    pub(crate) fn finish(&mut self, id: StreamId, side: Side) {
        if self.handles.contains(&(id, side))
            && let Some(mut view) = self.side(side).send(id)
            && view.finish().is_ok()
        {
            self.directions.entry((id, side)).or_default().finished = true;
            self.parked.remove(&(id, side, Wait::Write)); // who finishes waits for no room
        }
    }

    pub(crate) fn reset(&mut self, id: StreamId, side: Side) {
        if self.handles.remove(&(id, side)) {
            self.side(side).reset(id, ResetCode::INTERNAL, "because");
            self.directions.entry((id, Server)).or_default().lossy = true;
            self.directions.entry((id, Agent)).or_default().lossy = true;
        }
    }

    pub(crate) fn detach(&mut self, id: StreamId, side: Side) {
        if self.handles.remove(&(id, side)) {
            self.side(side).detach(id);
            self.directions.entry((id, side)).or_default().finished = true;
            self.directions.entry((id, side.other())).or_default().lossy = true;
        }
    }

    /// I4: what is kept and what is unread stay within their bounds; and no message came twice (the fence held).
    fn check_bounds(&self) {
        for session in [&self.server, &self.agent] {
            let stats = session.stats();
            assert!(stats.buffered_bytes <= self.config.send_bound + 66 * 1024, "{stats:?}");
            assert!(stats.unread_bytes <= self.config.recv_budget, "{stats:?}");
            assert!(stats.streams <= self.config.max_streams as usize + 1, "{stats:?}");
            assert_eq!(stats.duplicate_messages, 0, "{stats:?}");
            assert_eq!(session.ended(), None);
        }
    }

    /// I7: when the faults stop, every stream makes progress, all that was written is read, every declared end is
    /// seen, and nobody sleeps who could go on.
    pub(crate) fn heal(&mut self) {
        if !self.up {
            self.resume();
        }
        self.settle();
        self.check_sleepers();
        for round in 0..8 {
            // More than a window in all: credit must come back for it.
            for id in self.streams.clone() {
                for side in [Server, Agent] {
                    let stuck = self.handles.contains(&(id, side)) && self.write(id, side, 16 * 1024) == Ok(0);
                    assert!(!stuck, "{id:?} of {side:?} is stuck in round {round}");
                }
                self.settle();
            }
        }
        for ((id, from), direction) in &self.directions {
            if direction.lossy || !self.handles.contains(&(*id, from.other())) {
                continue;
            }
            assert_eq!(direction.read, direction.written, "{id:?} from {from:?} lost bytes");
            assert!(!direction.finished || direction.ended, "{id:?} from {from:?} lost its end");
        }
    }

    /// Moves and reads all that there is.
    fn settle(&mut self) {
        loop {
            self.accept();
            let mut moved = self.deliver(Agent, usize::MAX) + self.deliver(Server, usize::MAX);
            for id in self.streams.clone() {
                for side in [Server, Agent] {
                    while let Ok(Some(n)) = self.read(id, side, 1 << 20)
                        && n > 0
                    {
                        moved += n;
                    }
                }
            }
            if moved == 0 {
                break;
            }
        }
    }

    /// Whoever parked and was not woken would still find nothing.
    fn check_sleepers(&mut self) {
        for (id, side, wait) in self.parked.clone() {
            if !self.handles.contains(&(id, side)) {
                continue;
            }
            let wakeless = match wait {
                Wait::Read => matches!(self.read(id, side, 1), Ok(None)),
                Wait::Write => matches!(self.write(id, side, 1), Ok(0)),
            };
            assert!(wakeless, "{id:?} of {side:?} sleeps through its {wait:?}");
        }
        if self.open_parked {
            assert_eq!(self.try_open(0), Err(OpenError::TooManyOpens), "an opener sleeps");
        }
    }

    /// I9: when all handles are gone, nothing is left, and all that was lent has come back.
    pub(crate) fn close_all(&mut self) {
        for id in self.streams.clone() {
            self.detach(id, Server);
            self.detach(id, Agent);
        }
        self.pump();
        while let Some(incoming) = self.agent.incoming() {
            self.agent.reset(incoming.stream, ResetCode::CANCELLED, "");
        }
        self.pump();
        self.advance(Duration::from_millis(41)); // the last acks leave
        self.pump();
        for session in [&self.server, &self.agent] {
            let stats = session.stats();
            assert_eq!((stats.streams, stats.buffered_bytes, stats.unread_bytes), (0, 0, 0), "{session:#?}");
        }
        let lent = |config: &SessionConfig| {
            let free = config.recv_budget - (config.max_streams * config.base_credit) as usize;
            u64::from(config.base_credit) + (config.lent_credit as usize).min(free / 8) as u64
        };
        self.try_open(0).expect("room for a stream");
        self.transmit(Server);
        let open = self.take_wire(Agent).into_iter().flat_map(frames).find_map(|frame| match frame {
            Frame::Open { credit, .. } => Some(credit),
            _ => None,
        });
        assert_eq!(open, Some(lent(&self.config)), "a loan did not come back");
    }
}

/// The frames of a message that one of ours made.
pub(crate) fn frames(message: Bytes) -> Vec<Frame> {
    decode(message).expect("a message of ours").1.map(|frame| frame.expect("a frame of ours")).collect()
}

/// After how many bytes the pattern repeats itself: a prime, so that no buffer's size is a multiple of it.
pub(crate) const PERIOD: usize = 65_521;

/// Bytes from an offset of a stream's direction on, a period of them: they differ between streams, directions and
/// neighbours. Cut from a table, since most of the time of a run would go into making them.
pub(crate) fn pattern(id: StreamId, side: Side, at: u64) -> &'static [u8] {
    static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let byte = |at: usize| ((at % PERIOD) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        (0..2 * PERIOD).map(|at| byte(at) as u8).collect()
    });
    let salt = u64::from(id.number()) * 2 + u64::from(side == Agent);
    let start = (at + salt * 7919) as usize % PERIOD;
    &TABLE[start..start + PERIOD]
}

/// Runs the operations that `data` stands for on a fresh pair with tight bounds, and heals and closes it.
pub(crate) fn run(data: &[u8]) {
    let mut pair = Pair::new(tight());
    let mut bytes = data.iter().copied();
    let mut next = || bytes.next();
    while let (Some(op), Some(a), Some(b)) = (next(), next(), next()) {
        let side = if a & 1 == 0 { Server } else { Agent };
        let stream = pair.streams.get(usize::from(a >> 1) % pair.streams.len().max(1)).copied();
        let size = 1 + usize::from(b) * usize::from(b);
        match (op % 16, stream) {
            (0 | 1, _) => drop(pair.try_open(b)),
            (2, _) => pair.accept(),
            (3..=5, Some(id)) => drop(pair.write(id, side, size)),
            (6 | 7, Some(id)) => drop(pair.read(id, side, size)),
            (8, Some(id)) => pair.finish(id, side),
            (9, Some(id)) if b < 64 => pair.reset(id, side),
            (9 | 10, Some(id)) if b < 128 => pair.detach(id, side),
            (11 | 12, _) => drop(pair.deliver(side, usize::from(b % 4))),
            (13, _) => {
                // What is under way may still arrive, on either side, before the cut is noticed.
                pair.deliver(Agent, usize::from(a % 3));
                pair.deliver(Server, usize::from(b % 3));
                pair.cut();
            }
            (14, _) => pair.resume(),
            (15, _) => pair.advance(Duration::from_millis(u64::from(b) * 20)),
            _ => {}
        }
    }
    pair.heal();
    pair.close_all();
}

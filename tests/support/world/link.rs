//! What is under way between an agent and the server? Messages of one link, each direction at its own pace.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use revdial::frame::CloseCode;

use super::{ledger::Serial, random::Random};

pub(crate) type LinkId = u64;

/// How many bytes of messages a link takes before it makes its sender wait.
const ROOM: usize = 128 * 1024;

#[derive(Debug)]
pub(crate) enum Item {
    /// The agent asks for a link,
    Upgrade,
    /// and the server answers with 101,
    Answer,
    /// or with 503.
    Unavailable,
    Message(Bytes),
    /// The close frame of the WebSocket.
    Closed(CloseCode),
    /// The end of the TCP connection.
    Eof,
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Wire {
    queue: VecDeque<(Instant, Item)>,
    bytes: usize,
    pub(crate) latency: Duration,
    stalled: Option<Instant>,
    /// What is sent now goes nowhere.
    broken: bool,
}

impl Wire {
    fn new(latency: Duration) -> Self {
        Self { queue: VecDeque::new(), bytes: 0, latency, stalled: None, broken: false }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.bytes < ROOM
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(crate) fn put(&mut self, now: Instant, item: Item) {
        if !self.broken {
            self.push(now + self.latency, item);
        }
    }

    /// Nothing overtakes.
    fn push(&mut self, at: Instant, item: Item) {
        let at = self.queue.back().map_or(at, |(last, _)| at.max(*last));
        self.bytes += item.len();
        self.queue.push_back((at, item));
    }

    /// When the next item arrives.
    pub(crate) fn due(&self) -> Option<Instant> {
        let (at, _) = self.queue.front()?;
        Some(self.stalled.map_or(*at, |stalled| stalled.max(*at)))
    }

    pub(crate) fn take(&mut self) -> Option<Item> {
        let (_, item) = self.queue.pop_front()?;
        self.bytes -= item.len();
        Some(item)
    }

    pub(crate) fn stall(&mut self, until: Instant) {
        self.stalled = self.stalled.max(Some(until));
    }

    /// Breaks behind the first items of those under way. The receiver learns of it at `notice`, if ever.
    pub(crate) fn break_behind(&mut self, kept: usize, notice: Option<Instant>) {
        if self.broken {
            return;
        }
        self.queue.truncate(kept);
        self.bytes = self.queue.iter().map(|(_, item)| item.len()).sum();
        if let Some(at) = notice {
            self.push(at, Item::Eof);
        }
        self.broken = true;
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Nobody is there any more to receive.
    fn abandon(&mut self) {
        self.queue.clear();
        self.bytes = 0;
        self.broken = true;
    }

    fn heal(&mut self) {
        self.stalled = None;
        self.latency = self.latency.min(Duration::from_millis(50));
    }
}

impl Item {
    fn len(&self) -> usize {
        if let Self::Message(message) = self { message.len() } else { 0 }
    }
}

/// How far the server's end of a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerEnd {
    /// The upgrade has not arrived.
    Asked,
    /// HELLO is to come.
    Answered {
        hello_by: Instant,
    },
    Bound(Serial),
    Closed,
}

#[derive(Debug)]
pub(crate) struct Link {
    /// Which agent dialled it.
    pub(crate) agent: usize,
    pub(crate) key: u8,
    pub(crate) principal: u8,
    /// Its place among the links that the server has answered.
    pub(crate) number: Option<u64>,
    pub(crate) to_server: Wire,
    pub(crate) to_agent: Wire,
    pub(crate) server: ServerEnd,
    pub(crate) agent_open: bool,
}

impl Link {
    pub(crate) fn new(agent: usize, key: u8, principal: u8, latency: Duration) -> Self {
        let (to_server, to_agent) = (Wire::new(latency), Wire::new(latency));
        Self { agent, key, principal, number: None, to_server, to_agent, server: ServerEnd::Asked, agent_open: true }
    }

    /// Breaks in both directions, somewhere in what is under way.
    pub(crate) fn cut(&mut self, random: &mut Random, [server, agent]: [Option<Instant>; 2]) {
        let kept = [self.to_server.len(), self.to_agent.len()].map(|len| random.below(len + 1));
        self.to_server.break_behind(kept[0], server);
        self.to_agent.break_behind(kept[1], agent);
    }

    /// The agent's side goes: with a code, or without a word.
    pub(crate) fn leave(&mut self, now: Instant, code: Option<CloseCode>) {
        if std::mem::take(&mut self.agent_open) {
            self.to_agent.abandon();
            self.to_server.put(now, code.map_or(Item::Eof, Item::Closed));
        }
    }

    /// The server's side goes likewise.
    pub(crate) fn close(&mut self, now: Instant, code: Option<CloseCode>) {
        if std::mem::replace(&mut self.server, ServerEnd::Closed) != ServerEnd::Closed {
            self.to_server.broken = true; // what is under way still arrives, at nobody
            self.to_agent.put(now, code.map_or(Item::Eof, Item::Closed));
        }
    }

    /// Whether nothing will ever come of it.
    pub(crate) fn is_over(&self) -> bool {
        let unheard = self.server == ServerEnd::Asked && self.to_server.len() == 0;
        !self.agent_open && (self.server == ServerEnd::Closed || unheard)
    }

    pub(crate) fn heal(&mut self) {
        self.to_server.heal();
        self.to_agent.heal();
    }
}

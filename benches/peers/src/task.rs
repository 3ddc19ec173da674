//! What the conductor tells the sides, and what they answer: a line of JSON each, over their standard streams.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The direction of bulk data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Way {
    /// From the server to the agent.
    Up,
    /// From the agent to the server: the direction in which WebSockets are masked.
    Down,
}

impl Way {
    pub(crate) const BOTH: [Self; 2] = [Self::Up, Self::Down];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// The first line of a side: where it can be dialled, if it can.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) address: Option<SocketAddr>,
}

/// What a side is told. [`Tunnels`](Self::Tunnels) is for both, all else for the server.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Have so many tunnels in all. An agent opens them, a server waits for them; where servers dial, it is to `agent`.
    Tunnels { count: usize, agent: Option<SocketAddr> },
    /// One byte there and back on an open stream, so many times.
    Trips { n: u64 },
    /// A new stream, one byte there and back, and dropped, by so many tasks at once. `confirmed`: nothing is written
    /// before the agent has said that it took the stream, where the carrier knows that.
    Dials { n: u64, at_once: u64, confirmed: bool },
    /// GETs over so many connections at once, which are kept alive.
    Requests { n: u64, connections: u64 },
    /// So many bytes over so many open streams at once, until the reader has them.
    Bulk { bytes: u64, streams: u64, way: Way },
    /// So many bytes over an open stream, three times without a pause. What the second time takes is its one latency: by
    /// then windows have grown, and what is read ahead at its begin is so at its end.
    Flow { bytes: u64, way: Way },
    /// GETs one after the other for so long, beside bulk data in the same tunnel if there is a way for it.
    Beside { way: Option<Way>, millis: u64 },
    /// Hold so many streams of the first tunnel; each has carried a byte there and back.
    HoldStreams { count: usize },
    /// Hold a stream of each of so many tunnels, likewise: every tenth, if there are ten times as many.
    HoldTunnels { count: usize, of: usize },
    /// One byte there and back on the held streams in turn.
    Turns { n: u64 },
    /// Drop what is held.
    Drop,
}

/// What a task took. Latencies are of its single pieces, where it has such.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Taken {
    pub(crate) seconds: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

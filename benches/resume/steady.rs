//! What being resumable costs while nothing is cut: the same work through a gateway that holds lost sessions and
//! through one that does not, in interleaved rounds.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http_body_util::BodyExt;
use revdial::connman::{ConnectionManager, NoGrace};
use tokio::runtime::Handle;

use super::{cpu::cpu_time, sides::Side};
use crate::{
    gateway::{Pipe, Way, transfer},
    table::Table,
};

/// How much is measured.
struct Scale {
    rounds: usize,
    bulk: u64,
    requests: u64,
}

const MIB: u64 = 1024 * 1024;

impl Scale {
    /// Short pieces in many rounds: what else the machine does then falls on both sides of a ratio, or on few rounds.
    const FULL: Self = Self { rounds: 201, bulk: 32 * MIB, requests: 1000 };

    /// Enough to see that it works.
    const SMOKE: Self = Self { rounds: 1, bulk: MIB, requests: 128 };
}

/// A piece of work.
#[derive(Debug, Clone, Copy)]
enum Work {
    Bulk { way: Way, pipes: usize },
    Requests { connections: u64 },
}

const WORKS: [Work; 6] = [
    Work::Bulk { way: Way::Up, pipes: 1 },
    Work::Bulk { way: Way::Down, pipes: 1 },
    Work::Bulk { way: Way::Up, pipes: 8 },
    Work::Bulk { way: Way::Down, pipes: 8 },
    Work::Requests { connections: 1 },
    Work::Requests { connections: 64 },
];

/// A gateway, and open streams through it.
struct Subject {
    side: Side,
    pipes: Vec<Box<dyn Pipe>>,
}

/// Measures, and prints the table.
pub(crate) async fn print(far: &Handle, smoke: bool) {
    let scale = if smoke { Scale::SMOKE } else { Scale::FULL };
    let mut resumable = Subject::start(far, ConnectionManager::new()).await;
    let mut not = Subject::start(far, ConnectionManager::builder().grace(NoGrace).build()).await;
    for work in WORKS {
        resumable.measure(work, &scale).await;
        not.measure(work, &scale).await;
    }
    let mut table = Table::default();
    for round in 0..scale.rounds {
        for work in WORKS {
            // The first of two has what the machine did before; each is first in turn.
            let (with, without) = if round % 2 == 0 {
                let with = resumable.measure(work, &scale).await;
                (with, not.measure(work, &scale).await)
            } else {
                let without = not.measure(work, &scale).await;
                (resumable.measure(work, &scale).await, without)
            };
            table.add(format!("{}: rate", work.name()), without.time.div_duration_f64(with.time));
            if let (Some(with), Some(without)) = (with.cpu, without.cpu) {
                table.add(format!("{}: CPU time", work.name()), with.div_duration_f64(without));
            }
        }
    }
    table.print(&format!("Resumable ÷ not, {} interleaved rounds", scale.rounds));
}

/// What a piece of work took.
struct Taken {
    time: Duration,
    /// Of all threads of the process, where the system tells.
    cpu: Option<Duration>,
}

impl Subject {
    async fn start(far: &Handle, connman: ConnectionManager) -> Self {
        let side = Side::direct(far, connman).await;
        let mut pipes = Vec::new();
        for _ in 0..8 {
            pipes.push(side.dial().await);
        }
        Self { side, pipes }
    }

    async fn measure(&mut self, work: Work, scale: &Scale) -> Taken {
        let (cpu, start) = (cpu_time().await, Instant::now());
        match work {
            Work::Bulk { way, pipes } => self.bulk(way, pipes, scale.bulk).await,
            Work::Requests { connections } => self.requests(connections, scale.requests).await,
        }
        let time = start.elapsed();
        let cpu = cpu_time().await.zip(cpu).map(|(after, before)| after.saturating_sub(before));
        Taken { time, cpu: cpu.filter(|cpu| !cpu.is_zero()) }
    }

    async fn bulk(&mut self, way: Way, pipes: usize, bytes: u64) {
        let each = bytes / pipes as u64;
        join_all(self.pipes.iter_mut().take(pipes).map(|pipe| transfer(pipe, way, each))).await;
    }

    /// `n` GETs over so many connections at once, which are kept alive.
    async fn requests(&self, connections: u64, n: u64) {
        let uri = self.side.uri();
        join_all((0..connections).map(|_| async {
            for _ in 0..n / connections {
                let response = self.side.client.get(uri.clone()).await.expect("an answer");
                let body = response.into_body().collect().await.expect("a body").to_bytes();
                assert_eq!(body.len(), 100);
            }
        }))
        .await;
    }
}

impl Work {
    fn name(self) -> String {
        match self {
            Self::Bulk { way, pipes } => format!("bulk {}, streams: {pipes}", way.name()),
            Self::Requests { connections } => format!("GET of 100 bytes, connections: {connections}"),
        }
    }
}

//! Whether all that a test began is gone at its end: tasks, streams, waiters, draining sessions, kept bytes.

use std::time::Duration;

use futures_util::FutureExt;
use revdial::connman::Stats;
use tokio::{io::AsyncWriteExt, runtime::Handle, time::sleep};

use crate::{
    net::relay::Fault,
    support::{Running, World},
};

/// How long farewells, timers that end graces, and the last acks may take.
const SETTLES_WITHIN: u32 = 75;

/// What there is before a test does anything: a connected agent without a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Baseline {
    tasks: usize,
    stats: Stats,
    open: u64,
}

impl World {
    fn look(&self) -> Baseline {
        let mut stats = self.connman.stats();
        (stats.sent_bytes, stats.received_bytes) = (0, 0);
        let tasks = Handle::current().metrics().num_alive_tasks();
        Baseline { tasks, stats, open: self.counted.sum("revdial_streams_open") }
    }

    /// To be taken once an agent is connected, before the test begins.
    pub(crate) async fn baseline(&self) -> Baseline {
        sleep(Duration::from_secs(1)).await;
        self.look()
    }

    /// Everything is as it was, soon.
    pub(crate) async fn settled(&self, before: &Baseline) {
        for _ in 0..SETTLES_WITHIN {
            if self.look() == *before {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(self.look(), *before, "something is left");
        assert_eq!(self.counted.sum("revdial_duplicate_messages_total"), 0, "the fence leaks");
    }

    /// Every agent is stopped, the server, too, and nothing is left at all.
    pub(crate) async fn over(self, agents: impl IntoIterator<Item = Running>) {
        for mut agent in agents {
            agent.shutdown.shutdown(Duration::ZERO);
            let _ = agent.end().await;
        }
        self.connman.shutdown();
        assert_eq!(self.connman.stats(), Stats::default());
        self.net.fault(Fault::Cut);
        for _ in 0..SETTLES_WITHIN {
            if Handle::current().metrics().num_alive_tasks() == 0 {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0, "a task is left");
        assert_eq!(self.counted.sum("revdial_streams_open"), 0);
    }

    /// How many bytes streams take whose session has no link: what the bound leaves beside those kept.
    pub(crate) async fn room(&self, agent: &mut Running) -> usize {
        let mut streams = Vec::new();
        // Each takes 64 KiB at most, its queue, and late ones little more than 16 KiB, since not much credit is left.
        for _ in 0..400 {
            streams.push(self.pair(agent).await);
        }
        sleep(Duration::from_secs(1)).await;
        self.pause().await;
        let (mut room, mut last) = (0, 0);
        for (here, _) in &mut streams {
            last = 0;
            while let Some(written) = AsyncWriteExt::write(here, &[0; 16 * 1024]).now_or_never() {
                last += written.unwrap();
            }
            room += last;
        }
        assert_eq!(last, 0, "it is the bound that ends it");
        self.net.down(false);
        drop(streams);
        agent.connected().await;
        room
    }
}

//! Whether all streams come through whole, whatever links do and in whatever order: each seed is another run.

use std::time::Duration;

use futures_util::future::join_all;
use revdial::{
    agent::Backoff,
    connman::{ConnectionManager, FixedGrace},
};
use tokio::{
    io::split,
    time::{sleep, timeout},
};

use crate::{
    net::relay::{Fault, Limit, Plan},
    support::{World, builder, quick},
    traffic::carry,
};

const STREAMS: usize = 4;

/// Numbers that a seed gives: SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn fault(&mut self) -> Fault {
        match self.below(8) {
            0 => Fault::Close(1001),
            1 => Fault::Close(1012),
            2 => Fault::Silent,
            3 => Fault::SilentUp,
            4 => Fault::SilentDown,
            5 => Fault::AgentGone,
            6 => Fault::ServerGone,
            _ => Fault::Cut,
        }
    }

    /// Where a link is cut, so that all needs many: seldom before anything got through on it.
    fn limit(&mut self) -> Option<Limit> {
        Some(match self.below(20) {
            0 => Limit::Frames(self.below(4) as usize),
            1 => Limit::Bytes(self.below(2_000) as usize),
            _ => Limit::Bytes(self.below(400_000) as usize),
        })
    }
}

#[tokio::test(start_paused = true)]
async fn streams_come_through_whole_whatever_links_do() {
    for seed in 0..SEEDS {
        let mut random = Random(seed);
        let world = World::of(ConnectionManager::builder().grace(FixedGrace::secs(60)), quick());
        let pace = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut agent = world.agent_of(builder().session(quick()).backoff(pace)).await;
        let before = world.baseline().await;
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            let (here, there) = world.pair(&mut agent).await;
            streams.push((split(here), split(there)));
        }
        let plans: Vec<_> = (0..300).map(|_| Plan { up: random.limit(), down: random.limit() }).collect();
        world.net.plan(plans);
        world.net.cut();
        let transfers = streams.iter_mut().map(|((here_read, here_write), (there_read, there_write))| async move {
            tokio::join!(carry(here_write, there_read, None::<fn()>), carry(there_write, here_read, None::<fn()>))
        });
        let faults = async {
            for _ in 0..40 {
                // Between none and some more than it takes to find out.
                let most = 1 << random.below(12);
                sleep(Duration::from_millis(random.below(most))).await;
                tokio::task::yield_now().await;
                world.net.fault(random.fault());
                if random.below(4) == 0 {
                    sleep(Duration::from_millis(random.below(500))).await;
                    // What was held back comes late.
                    world.net.fault(Fault::None);
                }
            }
        };
        let all = async { tokio::join!(join_all(transfers), faults) };
        timeout(Duration::from_secs(3600), all).await.unwrap_or_else(|_| panic!("seed {seed} is stuck"));
        drop(streams);
        world.net.unplan();
        world.net.fault(Fault::Cut);
        sleep(Duration::from_secs(10)).await;
        agent.connected().await;
        assert!(world.net.dials().len() > 20, "seed {seed}: {}", world.net.dials().len());
        assert_eq!(world.counted.sum("revdial_duplicate_messages_total"), 0, "seed {seed}");
        for result in ["mismatch", "unknown", "rate", "identity"] {
            let name = format!("revdial_session_resumes_total{{{result}}}");
            assert_eq!(world.counted.sum(&name), 0, "seed {seed}: {result}");
        }
        world.settled(&before).await;
        world.over([agent]).await;
    }
}

/// A run takes a second or two without optimisation.
const SEEDS: u64 = 8;

//! How long a cut holds a stream up: from the cut to the first byte written after it, and to the echo of a byte.

use std::time::{Duration, Instant};

use revdial::connman::ConnectionManager;
use tokio::{
    io::{AsyncReadExt, BufReader},
    runtime::Handle,
    time::sleep,
};

use super::{relay::Relay, sides::Side, times::Times};
use crate::{
    commands::{CHUNK, Command, time},
    gateway::{Pipe, ask, echo},
};

/// Between two cuts: twenty a second. An agent dials at once 25 times a second in the long run, and waits beyond that.
pub(crate) const SPACING: Duration = Duration::from_millis(50);

/// What a stream carries while it is cut.
struct Flow {
    name: &'static str,
    /// How many bytes are written at a time.
    block: u64,
    /// How many milliseconds pass between two of them.
    pause: u64,
}

/// The pause is a millisecond at least and two at most, and is a part of what is measured.
const PACED: Flow = Flow { name: "cut to the next byte, 8 bytes every 1 to 2 ms", block: 8, pause: 1 };
const BULK: Flow = Flow { name: "cut to the next byte, bulk", block: 4096, pause: 0 };

/// Cuts, and prints how long each took.
pub(crate) async fn print(far: &Handle, smoke: bool) {
    let cuts = if smoke { 3 } else { 300 };
    let (side, relay) = Side::relayed(far, ConnectionManager::new()).await;
    let mut times = Times::new("From the cut, ms");
    let mut pipe = side.dial().await;
    for _ in 0..cuts {
        sleep(SPACING).await;
        let uncut = Instant::now();
        echo(&mut pipe).await;
        times.add("no cut: round trip of 1 byte", uncut.elapsed());
        let cut = relay.cut().await;
        echo(&mut pipe).await;
        times.add("cut to the echo of 1 byte", cut.elapsed());
    }
    for flow in [PACED, BULK] {
        let mut clock = Clock::start(side.dial().await, &flow).await;
        for _ in 0..cuts {
            times.add(flow.name, clock.until_after_cut(&relay).await);
        }
    }
    times.print();
}

/// A stream on which the far side tells the time.
struct Clock {
    pipe: BufReader<Box<dyn Pipe>>,
    block: Vec<u8>,
}

impl Clock {
    async fn start(mut pipe: Box<dyn Pipe>, flow: &Flow) -> Self {
        ask(&mut pipe, Command::Clock, (flow.block << 32) | flow.pause).await;
        let block = vec![0; usize::try_from(flow.block).expect("it fits into memory")];
        Self { pipe: BufReader::with_capacity(CHUNK, pipe), block }
    }

    /// Reads for a while, has the connection cut, and reads on to what was written after that.
    async fn until_after_cut(&mut self, relay: &Relay) -> Duration {
        let begun = Instant::now();
        while begun.elapsed() < SPACING {
            self.read().await;
        }
        let cut = relay.cut().await;
        while self.read().await <= time(cut) {}
        cut.elapsed()
    }

    async fn read(&mut self) -> u64 {
        self.pipe.read_exact(&mut self.block).await.expect("an open stream");
        u64::from_be_bytes(self.block[..8].try_into().expect("8 bytes"))
    }
}

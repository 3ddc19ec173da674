//! End to end over loopback TCP: a server with the layer and an agent with a listener, in one process on two threads,
//! beside a raw WebSocket and plain TCP between the same threads.
//!
//! After criterion's own output come ratios, measured in interleaved rounds, which is what there is to compare: the
//! times of one carrier alone say more about the machine. Pin the process to one core for latency and bulk
//! (`taskset -c 0 cargo bench --bench tunnel`); leave it free for 64 connections. A filter leaves the ratios out, the
//! filter `ratios` all else.

#[path = "support/commands.rs"]
mod commands;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/table.rs"]
mod table;
mod tunnel {
    pub(crate) mod far;
    pub(crate) mod near;
    pub(crate) mod ratios;
    pub(crate) mod work;
}

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use tokio::runtime::Runtime;

use self::{
    gateway::Way,
    tunnel::{
        near::{Carrier, Near},
        ratios,
        work::Work,
    },
};

const BULK: u64 = 16 * 1024 * 1024;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    // As criterion tells a smoke run: asked for, or `cargo test` and not `cargo bench`.
    let smoke = has("--test") || !has("--bench");
    let filtered = arguments.iter().any(|argument| !argument.starts_with('-') && argument != "ratios");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let near = runtime.block_on(Near::connect());
    let criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut bench = Bench { criterion, runtime, near: Some(near) };
    bench.round_trip();
    bench.dial();
    bench.bulk();
    bench.http();
    bench.criterion.final_summary();
    if !filtered && !has("--list") {
        in_a_task(
            &bench.runtime,
            &mut bench.near,
            |mut near| async move { (ratios::print(&mut near, smoke).await, near) },
        );
    }
}

/// Criterion, and what it measures.
struct Bench {
    criterion: Criterion,
    runtime: Runtime,
    /// Always there between two pieces of work.
    near: Option<Near>,
}

impl Bench {
    fn round_trip(&mut self) {
        let works = [Carrier::Tunnel, Carrier::Tcp, Carrier::WebSocket]
            .map(|carrier| (carrier.name().to_owned(), Work::RoundTrips(carrier)));
        self.group("round trip of 1 byte", None, works);
    }

    fn dial(&mut self) {
        let works = [Carrier::Tunnel, Carrier::EarlyTunnel, Carrier::Tcp]
            .map(|carrier| (carrier.name().to_owned(), Work::Dials(carrier)));
        self.group("dial, 1 byte there and back, close", None, works);
    }

    fn bulk(&mut self) {
        for way in [Way::Up, Way::Down] {
            let works = [
                (Carrier::Tunnel, 1),
                (Carrier::Tunnel, 8),
                (Carrier::Tcp, 1),
                (Carrier::Tcp, 8),
                (Carrier::WebSocket, 1),
            ]
            .map(|(carrier, pipes)| {
                (format!("{}, {pipes} streams", carrier.name()), Work::Bulk { carrier, pipes, way, bytes: BULK })
            });
            self.group(&format!("bulk {}", way.name()), Some(Throughput::Bytes(BULK)), works);
        }
    }

    fn http(&mut self) {
        for connections in [1, 64] {
            let works = [Carrier::Tunnel, Carrier::Tcp]
                .map(|carrier| (carrier.name().to_owned(), Work::Requests { carrier, connections }));
            let name = format!("GET of 100 bytes, {connections} connections");
            self.group(&name, Some(Throughput::Elements(1)), works);
        }
    }

    fn group(&mut self, name: &str, throughput: Option<Throughput>, works: impl IntoIterator<Item = (String, Work)>) {
        let Self { criterion, runtime, near } = self;
        let mut group = criterion.benchmark_group(name);
        if let Some(throughput) = throughput {
            group.throughput(throughput);
        }
        for (name, work) in works {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|n| {
                    in_a_task(runtime, near, |mut near| async move {
                        let start = Instant::now();
                        work.run(&mut near, n).await;
                        (start.elapsed(), near)
                    })
                });
            });
        }
        group.finish();
    }
}

/// Runs `work` as a task, as a program would: the runtime's main future costs a system call more each time that it is
/// woken by another task, as those of tunnels are and those of sockets are not.
fn in_a_task<F, R>(runtime: &Runtime, near: &mut Option<Near>, work: impl FnOnce(Near) -> F) -> R
where
    F: Future<Output = (R, Near)> + Send + 'static,
    R: Send + 'static,
{
    let task = runtime.spawn(work(near.take().expect("nobody else has it")));
    let (result, back) = runtime.block_on(task).expect("the work is done");
    *near = Some(back);
    result
}

//! What the machine costs by itself: two sessions that exchange messages without I/O, locks or tasks.
//!
//! Their clock stands still, so that acks leave by bytes or with other messages, as they do under load.

#[path = "support/pair.rs"]
mod pair;

use criterion::{BatchSize, Criterion, Throughput};
use revdial::proto::SessionConfig;

use self::pair::{Life, Pair};

const BULK: usize = 64 * 1024 * 1024;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    bulk(&mut criterion);
    ping_pong(&mut criterion);
    open_and_close(&mut criterion);
    criterion.final_summary();
}

fn bulk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session bulk 64 MiB");
    group.throughput(Throughput::Bytes(BULK as u64)).sample_size(10);
    for streams in [1, 8] {
        group.bench_function(format!("{streams} streams"), |bencher| {
            bencher.iter_batched_ref(
                || with_streams(streams),
                |pair| pair.send_all(BULK / streams),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn ping_pong(criterion: &mut Criterion) {
    let mut pair = with_streams(1);
    criterion.bench_function("session round trip of 1 byte", |bencher| bencher.iter(|| pair.round_trip()));
}

fn open_and_close(criterion: &mut Criterion) {
    let mut pair = with_streams(0);
    criterion.bench_function("session open, accept, close", |bencher| {
        bencher.iter(|| {
            let id = pair.open();
            pair.server.detach(id);
            pair.agent.detach(id);
            pair.pump();
            assert_eq!((pair.server.stats().streams, pair.agent.stats().streams), (0, 0));
        });
    });
}

fn with_streams(streams: usize) -> Pair {
    Pair::new(&SessionConfig::default(), [Life::Resumable; 2], streams)
}

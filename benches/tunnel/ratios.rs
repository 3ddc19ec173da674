//! The table of ratios: each figure of ours against another of the same round, rounds interleaved.

use std::time::{Duration, Instant};

use super::{
    near::{Carrier, Near},
    work,
};
use crate::{
    gateway::Way,
    table::{Table, at},
};

/// How much is measured.
struct Scale {
    rounds: usize,
    trips: u64,
    dials: u64,
    requests: u64,
    bulk: u64,
    /// How long the latencies of small requests are taken, for each figure.
    latencies: Duration,
}

const MIB: u64 = 1024 * 1024;

impl Scale {
    /// Short pieces in many rounds: what else the machine does then falls on both sides of a ratio, or on few rounds.
    const FULL: Self = Self {
        rounds: 15,
        trips: 1500,
        dials: 700,
        requests: 1500,
        bulk: 64 * MIB,
        latencies: Duration::from_millis(150),
    };

    /// Enough to see that it works.
    const SMOKE: Self =
        Self { rounds: 1, trips: 10, dials: 10, requests: 128, bulk: MIB, latencies: Duration::from_millis(20) };
}

/// Measures, and prints the table.
pub(crate) async fn print(near: &mut Near, smoke: bool) {
    let scale = if smoke { Scale::SMOKE } else { Scale::FULL };
    let mut table = Table::default();
    for _ in 0..scale.rounds {
        small(near, &scale, &mut table).await;
        bulk(near, &scale, &mut table).await;
        http(near, &scale, &mut table).await;
        dialback(near, &scale, &mut table).await;
        beside_stuck(near, &scale, &mut table).await;
        beside_bulk(near, &scale, &mut table).await;
    }
    table.print(&format!("Ratios of {} interleaved rounds", scale.rounds));
}

async fn small(near: &mut Near, scale: &Scale, table: &mut Table) {
    let tunnel = seconds(work::round_trips(near, Carrier::Tunnel, scale.trips)).await / scale.trips as f64;
    let tcp = seconds(work::round_trips(near, Carrier::Tcp, scale.trips)).await / scale.trips as f64;
    let websocket = seconds(work::round_trips(near, Carrier::WebSocket, scale.trips)).await / scale.trips as f64;
    table.add("round trip: time ÷ TCP", tunnel / tcp);
    table.add("round trip: time ÷ WebSocket", tunnel / websocket);
    let dial = async |carrier| seconds(work::dials(near, carrier, scale.dials)).await / scale.dials as f64;
    let (confirmed, early, tcp) =
        (dial(Carrier::Tunnel).await, dial(Carrier::EarlyTunnel).await, dial(Carrier::Tcp).await);
    table.add("dial, early data: time ÷ own round trip", early / tunnel);
    table.add("dial, confirmed: time ÷ own round trip", confirmed / tunnel);
    table.add("dial, early data: time ÷ TCP", early / tcp);
    table.add("dial, confirmed: time ÷ TCP", confirmed / tcp);
}

async fn bulk(near: &mut Near, scale: &Scale, table: &mut Table) {
    for way in [Way::Up, Way::Down] {
        let mut bulk = async |carrier, pipes| seconds(work::bulk(near, carrier, pipes, way, scale.bulk)).await;
        let tunnel = bulk(Carrier::Tunnel, 1).await;
        let websocket = bulk(Carrier::WebSocket, 1).await;
        let tcp = bulk(Carrier::Tcp, 1).await;
        let tunnel_of_8 = bulk(Carrier::Tunnel, 8).await;
        let tcp_of_8 = bulk(Carrier::Tcp, 8).await;
        let name = way.name();
        table.add(format!("bulk {name}, 1 stream: rate ÷ WebSocket"), websocket / tunnel);
        table.add(format!("bulk {name}, 8 streams: rate ÷ WebSocket"), websocket / tunnel_of_8);
        table.add(format!("bulk {name}, 1 stream: rate ÷ TCP"), tcp / tunnel);
        table.add(format!("bulk {name}, 8 streams: rate ÷ 8 TCP"), tcp_of_8 / tunnel_of_8);
    }
}

async fn http(near: &Near, scale: &Scale, table: &mut Table) {
    for (connections, name) in [(1, "GET, 1 connection: time ÷ TCP"), (64, "GET, 64 connections: time ÷ TCP")] {
        let tunnel = seconds(work::requests(near, Carrier::Tunnel, connections, scale.requests)).await;
        let tcp = seconds(work::requests(near, Carrier::Tcp, connections, scale.requests)).await;
        table.add(name, tunnel / tcp);
    }
}

/// The dial-back protocol beside ours and beside TCP.
async fn dialback(near: &mut Near, scale: &Scale, table: &mut Table) {
    for tasks in [1, 64] {
        let dials = async |carrier| seconds(work::dials_at_once(near, carrier, tasks, scale.dials)).await;
        let (classic, tunnel, tcp) =
            (dials(Carrier::Dialback).await, dials(Carrier::Tunnel).await, dials(Carrier::Tcp).await);
        table.add(format!("dial-back dials, {tasks} at once: rate ÷ TCP"), tcp / classic);
        table.add(format!("dials, {tasks} at once: rate ÷ dial-back"), classic / tunnel);
    }
    for connections in [1, 64] {
        let get = async |carrier| seconds(work::requests(near, carrier, connections, scale.requests)).await;
        let (classic, tunnel, tcp) =
            (get(Carrier::Dialback).await, get(Carrier::Tunnel).await, get(Carrier::Tcp).await);
        table.add(format!("dial-back GET, connections: {connections}: rate ÷ TCP"), tcp / classic);
        table.add(format!("dial-back GET, connections: {connections}: rate ÷ tunnel"), tunnel / classic);
    }
    for way in [Way::Up, Way::Down] {
        let classic = seconds(work::bulk(near, Carrier::Dialback, 1, way, scale.bulk)).await;
        let websocket = seconds(work::bulk(near, Carrier::WebSocket, 1, way, scale.bulk)).await;
        table.add(format!("dial-back bulk {}: rate ÷ WebSocket", way.name()), websocket / classic);
    }
}

/// What streams that nobody reads do to another's throughput and round trip, against the mean of before and after.
async fn beside_stuck(near: &mut Near, scale: &Scale, table: &mut Table) {
    for way in [Way::Up, Way::Down] {
        let before = bulk_and_trips(near, scale, way).await;
        let stuck = work::stuck(near).await;
        let beside = bulk_and_trips(near, scale, way).await;
        drop(stuck);
        let after = bulk_and_trips(near, scale, way).await;
        let (bulk, trips) = ((before.0 + after.0) / 2.0, (before.1 + after.1) / 2.0);
        table.add(format!("bulk {} beside 2 stuck streams: rate ÷ alone", way.name()), bulk / beside.0);
        table.add("round trip beside 2 stuck streams: time ÷ alone", beside.1 / trips);
    }
}

async fn bulk_and_trips(near: &mut Near, scale: &Scale, way: Way) -> (f64, f64) {
    // Filling the stuck streams takes a pause, after which TCP finds its pace anew.
    work::bulk(near, Carrier::Tunnel, 1, way, scale.bulk / 2).await;
    let bulk = seconds(work::bulk(near, Carrier::Tunnel, 1, way, scale.bulk)).await;
    (bulk, seconds(work::round_trips(near, Carrier::Tunnel, scale.trips)).await)
}

/// What bulk data in the same tunnel does to a small request; and what it does where each has a TCP connection, which
/// is the share that the machine has in it.
async fn beside_bulk(near: &Near, scale: &Scale, table: &mut Table) {
    for carrier in [Carrier::Tunnel, Carrier::Tcp] {
        let alone = work::latencies(near, carrier, scale.latencies).await;
        for way in [Way::Up, Way::Down] {
            let beside = work::latencies_beside_bulk(near, carrier, way, scale.latencies).await;
            for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
                let ratio = at(&beside, part).as_secs_f64() / at(&alone, part).as_secs_f64();
                table.add(format!("GET beside bulk {}, {}: {name} ÷ alone", way.name(), carrier.name()), ratio);
            }
        }
    }
}

async fn seconds(work: impl Future<Output = ()>) -> f64 {
    let start = Instant::now();
    work.await;
    start.elapsed().as_secs_f64()
}

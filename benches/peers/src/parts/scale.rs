//! How much is measured.

use std::time::Duration;

use super::MIB;
use crate::args::Args;

#[derive(Debug, Clone)]
pub(crate) struct Scale {
    pub(crate) rounds: usize,
    /// Rounds of so many round trips, dials or GETs, one at a time: pieces so short that whatever else the machine does falls
    /// on the ones that are compared alike, or on few.
    pub(crate) small_rounds: usize,
    pub(crate) small: u64,
    /// Rounds of what takes some tenths of a second: what one of them comes to varies more than gates leave room for.
    pub(crate) short_rounds: usize,
    /// Rounds of bulk data, which vary more yet.
    pub(crate) bulk_rounds: usize,
    pub(crate) trips: u64,
    pub(crate) dials: u64,
    pub(crate) requests: u64,
    pub(crate) bulk: u64,
    /// How long GETs beside bulk are taken.
    pub(crate) beside_millis: u64,
    /// How long a bulk transfer over a long link takes, at least.
    pub(crate) transfer: Duration,
    /// Milliseconds that a relay adds to a round trip.
    pub(crate) delays: &'static [u64],
    pub(crate) cuts: usize,
    /// Round trips and dials whose system calls are counted.
    pub(crate) traced: u64,
    /// How long tunnels are watched while they are idle: each pings meanwhile, if it does at all.
    pub(crate) idle: Duration,
    pub(crate) tunnels: &'static [usize],
    pub(crate) streams: &'static [usize],
}

impl Scale {
    /// Short pieces: what else the machine does then falls on both sides of a ratio, or on few rounds.
    const NORMAL: Self = Self {
        rounds: 5,
        small_rounds: 60,
        small: 800,
        short_rounds: 15,
        bulk_rounds: 30,
        trips: 4000,
        dials: 2000,
        requests: 4000,
        bulk: 192 * MIB,
        beside_millis: 250,
        transfer: Duration::from_millis(300),
        delays: &[1, 20, 60, 150],
        cuts: 20,
        traced: 1000,
        idle: Duration::from_secs(20),
        tunnels: &[1, 10, 100, 1000, 10_000],
        streams: &[1, 10, 100, 1000],
    };

    /// Enough to see that it works.
    const QUICK: Self = Self {
        rounds: 1,
        small_rounds: 1,
        small: 50,
        short_rounds: 1,
        bulk_rounds: 1,
        trips: 50,
        dials: 64,
        requests: 128,
        bulk: 8 * MIB,
        beside_millis: 20,
        transfer: Duration::from_millis(50),
        delays: &[20],
        cuts: 2,
        traced: 64,
        idle: Duration::from_millis(200),
        tunnels: &[1, 10],
        streams: &[1, 10],
    };

    pub(crate) fn of(args: &Args) -> Self {
        let scale = if args.quick { Self::QUICK } else { Self::NORMAL };
        let each = |rounds| args.rounds.map_or(rounds, |asked| asked * rounds / scale.rounds);
        Self {
            rounds: each(scale.rounds),
            small_rounds: each(scale.small_rounds),
            short_rounds: each(scale.short_rounds),
            bulk_rounds: each(scale.bulk_rounds),
            ..scale
        }
    }
}

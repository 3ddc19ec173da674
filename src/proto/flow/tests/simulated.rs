//! A stream over a long way, in simulated time: does its window become as large as it should, and soon?

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::super::{Lender, NEAR, RecvWindow, STEP};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

const FIRST: u64 = 512 * KIB;
const MOST: u64 = 8 * MIB;

/// What arrives at once.
const MESSAGE: u64 = 64 * KIB;

/// A peer that always has something to send, a way, and a reader that takes all at once.
struct Stream {
    rtt: Duration,
    /// What each byte takes on the way before the next one can leave.
    byte: Duration,
    lender: Lender,
    window: RecvWindow,
    now: Instant,
    /// When the way takes the next message.
    idle_at: Instant,
    limit: u64,
    sent: u64,
    read: u64,
    credits: u64,
    /// What is on the way to the reader, and credit on the way back.
    there: VecDeque<(Instant, u64)>,
    back: VecDeque<(Instant, u64)>,
}

impl Stream {
    /// `rate`: bytes that the way takes in a microsecond.
    fn new(rtt: Duration, rate: u64) -> Self {
        let mut lender = Lender::new(16 << 20, FIRST, MOST);
        let mut window = RecvWindow::new(16 * KIB);
        let (now, limit) = (Instant::now(), window.begin(&mut lender));
        Self {
            rtt,
            byte: Duration::from_micros(1) / u32::try_from(rate).unwrap(),
            lender,
            window,
            now,
            idle_at: now,
            limit,
            sent: 0,
            read: 0,
            credits: 0,
            there: VecDeque::new(),
            back: VecDeque::new(),
        }
    }

    fn run(&mut self, round_trips: u32) {
        let end = self.now + self.rtt * round_trips;
        while self.now < end {
            while self.sent < self.limit && self.idle_at <= self.now {
                let n = MESSAGE.min(self.limit - self.sent);
                self.sent += n;
                self.idle_at = self.now + self.byte * u32::try_from(n).unwrap();
                self.there.push_back((self.idle_at + self.rtt / 2, n));
            }
            let arrivals = [self.there.front(), self.back.front()].into_iter().flatten().map(|(at, _)| *at);
            let leaves = (self.sent < self.limit).then_some(self.idle_at);
            self.now = arrivals.chain(leaves).min().expect("credit is on its way").max(self.now);
            while let Some(n) = due(&mut self.there, self.now) {
                self.take(n);
            }
            while let Some(offset) = due(&mut self.back, self.now) {
                self.limit = offset;
            }
        }
    }

    fn take(&mut self, n: u64) {
        self.window.on_data(n as usize).unwrap();
        self.read += n;
        self.lender.drained(n as usize);
        if self.window.consume(n as usize) {
            let offset = self.window.renew(self.now, Some(self.rtt), &mut self.lender);
            self.credits += 1;
            self.back.push_back((self.now + self.rtt / 2, offset));
        }
        assert!(self.window.size <= MOST);
    }

    /// What is read in a round trip, seen over so many.
    fn flow(&mut self, round_trips: u32) -> u64 {
        let before = self.read;
        self.run(round_trips);
        (self.read - before) / u64::from(round_trips)
    }
}

fn due(way: &mut VecDeque<(Instant, u64)>, now: Instant) -> Option<u64> {
    way.front().filter(|(at, _)| *at <= now)?;
    way.pop_front().map(|(_, n)| n)
}

const WAYS: [u64; 4] = [1, 20, 60, 150];

/// Bytes in a microsecond, or MB/s.
const RATES: [u64; 5] = [10, 50, 100, 500, 1000];

fn each() -> impl Iterator<Item = (Duration, u64)> {
    WAYS.into_iter().flat_map(|ms| RATES.map(|rate| (Duration::from_millis(ms), rate)))
}

#[test]
fn what_flows_is_what_the_way_takes_or_the_largest_window_holds() {
    for (rtt, rate) in each() {
        let mut stream = Stream::new(rtt, rate);
        stream.run(12);
        let most = MOST.min(rate * rtt.as_micros() as u64);
        let flow = stream.flow(40);
        assert!(flow >= most / 100 * 95, "{flow} of {most} bytes over {rtt:?} at {rate} MB/s");
    }
}

#[test]
fn a_window_that_is_used_up_is_sixteen_times_as_large_after_six_round_trips() {
    for ms in WAYS {
        let mut stream = Stream::new(Duration::from_millis(ms), 10_000);
        assert_eq!(stream.window.size, FIRST);
        stream.run(6);
        assert_eq!(stream.window.size, MOST, "over {ms} ms");
    }
}

#[test]
fn a_window_holds_what_is_read_in_two_round_trips_and_at_most_a_first_one_more_while_it_grows() {
    for (rtt, rate) in each() {
        let mut stream = Stream::new(rtt, rate);
        let twice = 2 * rate * rtt.as_micros() as u64;
        for _ in 0..40 {
            stream.run(1);
            let size = stream.window.size;
            assert!(size <= twice + FIRST, "{size} bytes over {rtt:?} at {rate} MB/s");
        }
        let wanted = twice.clamp(FIRST, MOST);
        let off = stream.window.size.abs_diff(wanted);
        assert!(off <= wanted / 20, "{off} beside {wanted} bytes over {rtt:?} at {rate} MB/s");
    }
}

#[test]
fn after_a_lull_a_window_is_its_first_size_again() {
    let mut stream = Stream::new(Duration::from_millis(20), 1000);
    stream.run(20);
    assert_eq!(stream.window.size, MOST);
    let free = stream.lender.free();
    let on_the_way = stream.window.granted - stream.window.consumed;
    stream.now += Duration::from_secs(60);
    stream.window.on_data((stream.window.granted - stream.window.received) as usize).unwrap();
    stream.window.consume((on_the_way - FIRST / 2) as usize);
    stream.window.renew(stream.now, Some(stream.rtt), &mut stream.lender);
    assert_eq!((stream.window.size, stream.lender.free()), (FIRST, free + MOST - FIRST));
}

#[test]
fn credit_leaves_as_seldom_as_over_a_short_way_once_a_window_has_grown() {
    for ms in WAYS {
        let mut stream = Stream::new(Duration::from_millis(ms), 10_000);
        stream.run(12);
        let before = (stream.read, stream.credits);
        stream.run(20);
        let each = (stream.read - before.0) / (stream.credits - before.1);
        assert!((STEP..STEP + MESSAGE).contains(&each), "{each} bytes over {ms} ms");
    }
}

#[test]
fn over_a_short_way_a_first_window_is_renewed_at_its_half() {
    let mut stream = Stream::new(NEAR, 10_000);
    stream.run(50);
    assert_eq!((stream.window.size, stream.read / stream.credits), (FIRST, FIRST / 2));
}

//! What one side allows itself and its peer: windows, budgets, intervals.

use std::{fmt, time::Duration};

use crate::frame::{Bounds, MAX_MESSAGE};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// One quantum of the scheduler.
const BASE_CREDIT: usize = 16 * KIB;
const LENT_CREDIT: usize = 496 * KIB;

/// The bounds and intervals of a session. All are on, and all are checked once, by [`SessionConfig::validate`].
///
/// ```
/// use std::time::Duration;
/// use revdial::proto::SessionConfig;
///
/// let config = SessionConfig { dead_after: Duration::from_secs(2), ping_interval: Duration::from_millis(500), ..SessionConfig::default() };
/// assert!(config.validate().is_ok());
/// assert!(SessionConfig { max_streams: 0, ..SessionConfig::default() }.validate().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "written with struct update syntax; a new field is a minor change then")]
pub struct SessionConfig {
    /// Streams open at once. Default 1,024.
    pub max_streams: u32,
    /// Opens unanswered at once. Default 256.
    pub max_opens: u32,
    /// Opens unanswered at once for one target. Default 64.
    pub max_opens_per_target: u32,
    /// Bytes queued in streams and kept for replay, together. At the bound writers wait. Default 8 MiB, which
    /// fills 1 Gbit/s at 64 ms of round trip.
    pub send_bound: usize,
    /// The part of `send_bound` that only OPEN and frames without user data may use. Default 256 KiB, one OPEN
    /// with its keeping for each of 1,024 streams.
    pub send_reserve: usize,
    /// Bytes that arrived and are not read yet, over all streams. Default 32 MiB, 16 KiB for each of 1,024
    /// streams twice.
    pub recv_budget: usize,
    /// The credit that every stream is guaranteed, and that the opener may use before ACCEPT. Default 16 KiB, one
    /// quantum of the scheduler.
    pub base_credit: u32,
    /// What a stream is lent above its base credit at first, at most. Default 496 KiB, 512 KiB in all (measured: 256
    /// KiB cost a single stream 5 to 10 % of its throughput in wake-ups, 1 MiB gives no more). Over round trips of up to
    /// 0.5 ms busy streams share one whole window, with an eighth of it for each at the least. Over longer ones a window
    /// grows to what is read in two round trips, at most to a quarter of `recv_budget`.
    pub lent_credit: u32,
    /// How long the link may be silent before a PING is sent. Default 15 s, varied by 20 % either way so that a
    /// fleet does not ping in step.
    pub ping_interval: Duration,
    /// How long without a byte, or without a new ack while messages are outstanding, a link is held for alive.
    /// Default 45 s, three pings.
    pub dead_after: Duration,
    /// How long the agent may take to answer an OPEN, while there is a link. Default 10 s, twice what it gives its
    /// own connect.
    pub accept_timeout: Duration,
    /// The longest time that an ack waits for a message to travel with. Default 40 ms.
    pub ack_delay: Duration,
    /// The most bytes received before an ack leaves alone. Default 512 KiB, a first window: CREDIT, which leaves at
    /// half of it, bears the ack, and a message for the ack alone wakes the peer's writer for nothing (measured: 4 % of
    /// the throughput of one stream with 64 KiB).
    pub ack_bytes: usize,
    /// DATA frames of less than 256 bytes that may lie unread, over all streams; beyond, the peer floods. Default
    /// 2 Mi: four windows of 512 KiB full of single bytes. Memory is bounded by the windows, not by this.
    pub tiny_frames: u32,
    /// PINGs a second that are answered; a burst of five seconds' worth is allowed. Default 20.
    pub pings_per_second: u32,
    /// RESETs a second of streams that the peer opened or that are past, likewise; this side sends half as many, and
    /// puts the rest off. Default 1,000.
    pub resets_per_second: u32,
    /// Unknown frames a minute, likewise. Default 1,000.
    pub unknown_per_minute: u32,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            max_streams: 1024,
            max_opens: 256,
            max_opens_per_target: 64,
            send_bound: 8 * MIB,
            send_reserve: 256 * KIB,
            recv_budget: 32 * MIB,
            base_credit: BASE_CREDIT as u32,
            lent_credit: LENT_CREDIT as u32,
            ping_interval: Duration::from_secs(15),
            dead_after: Duration::from_secs(45),
            accept_timeout: Duration::from_secs(10),
            ack_delay: Duration::from_millis(40),
            ack_bytes: 512 * KIB,
            tiny_frames: 2 * 1024 * 1024,
            pings_per_second: 20,
            resets_per_second: 1000,
            unknown_per_minute: 1000,
        }
    }
}

impl SessionConfig {
    /// Checks that the settings can work together.
    ///
    /// # Errors
    /// [`InvalidConfig`] names the first setting that cannot be.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let checks = [
            ("max_streams", self.max_streams >= 1),
            ("max_opens", self.max_opens >= 1),
            ("max_opens_per_target", self.max_opens_per_target >= 1),
            ("base_credit", self.base_credit >= 1024),
            ("send_reserve", self.send_reserve >= 4 * KIB),
            ("send_bound", self.send_bound >= self.send_reserve.saturating_add(2 * MAX_MESSAGE)),
            ("recv_budget", (self.max_streams as usize).saturating_mul(self.base_credit as usize) <= self.recv_budget),
            ("ping_interval", !self.ping_interval.is_zero()),
            ("dead_after", self.dead_after > self.ping_interval),
            ("accept_timeout", !self.accept_timeout.is_zero()),
            ("ack_delay", self.ack_delay < self.dead_after),
            ("ack_bytes", self.ack_bytes >= 1),
            ("tiny_frames", self.tiny_frames >= 1),
            ("pings_per_second", self.pings_per_second >= 1),
            ("resets_per_second", self.resets_per_second >= 1),
            ("unknown_per_minute", self.unknown_per_minute >= 1),
        ];
        checks.into_iter().find(|(_, holds)| !holds).map_or(Ok(()), |(setting, _)| Err(InvalidConfig { setting }))
    }

    /// What this side tells its peer in HELLO or WELCOME.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds {
            max_streams: self.max_streams,
            max_opens: self.max_opens,
            max_opens_per_target: self.max_opens_per_target,
            max_message: MAX_MESSAGE as u32,
            // At most a quarter for one stream, but what a stream is given at first in any case.
            max_credit: u64::from(self.base_credit)
                .saturating_add(u64::from(self.lent_credit))
                .max((self.recv_budget / 4) as u64),
            early_credit: self.base_credit,
        }
    }
}

/// A setting of [`SessionConfig`] that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidConfig {
    setting: &'static str,
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the setting {} is out of range", self.setting)
    }
}

impl std::error::Error for InvalidConfig {}

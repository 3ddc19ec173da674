//! What is measured of a carrier, and how tables name it.

use crate::task::Way;

/// Over what a carrier is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Over {
    Tunnels,
    Streams,
}

impl Over {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tunnels => "tunnels",
            Self::Streams => "streams",
        }
    }
}

/// In the order of the tables. Times are in seconds, rates per second or bytes per second, memory in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Quantity {
    Trip,
    Dial,
    DialConfirmed,
    Get,
    /// The p99 of a GET in a tunnel that carries nothing else, or bulk this way.
    BesideNothing,
    Beside(Way),
    DialsAtOnce,
    Gets,
    GetsP99,
    /// CPU time of both sides.
    CpuPer100kGets,
    Bulk(Way, u64),
    CpuPerGib(Way),
    DelayedTrip(u64),
    DelayedDial(u64),
    DelayedDialConfirmed(u64),
    DelayedBulk(Way, u64),
    Resume,
    NoCut,
    PerTunnel,
    PerStream,
    Resident(Over, usize),
    ScaledP50(Over, usize),
    ScaledP99(Over, usize),
    /// GETs over so many connections.
    ScaledGets(usize),
    /// CPU time of both sides in a second, with so many tunnels.
    Idle(usize),
    /// System calls of both sides.
    CallsPerTrip,
    CallsPerDial,
    /// Over 64 connections.
    CallsPerGet,
}

/// What figures are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Micros,
    Millis,
    PerSecond,
    MibPerSecond,
    CpuSeconds,
    CpuMillisPerSecond,
    Kib,
    Calls,
}

impl Unit {
    /// The unit's name, and how many base units it has.
    pub(crate) const fn scale(self) -> (&'static str, f64) {
        match self {
            Self::Micros => ("µs", 1e-6),
            Self::Millis => ("ms", 1e-3),
            Self::PerSecond => ("per s", 1.0),
            Self::MibPerSecond => ("MiB/s", 1024.0 * 1024.0),
            Self::CpuSeconds => ("CPU s", 1.0),
            Self::CpuMillisPerSecond => ("CPU ms/s", 1e-3),
            Self::Kib => ("KiB", 1.0),
            Self::Calls => ("calls", 1.0),
        }
    }
}

impl Quantity {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Trip => "round trip, 1 byte".into(),
            Self::Dial => "dial, data behind the open".into(),
            Self::DialConfirmed => "dial, data after the agent's word".into(),
            Self::Get => "GET, 1 connection".into(),
            Self::BesideNothing => "GET p99, alone".into(),
            Self::Beside(way) => format!("GET p99, beside bulk {}", way.name()),
            Self::DialsAtOnce => "dials, 64 at once".into(),
            Self::Gets => "GETs, 64 connections".into(),
            Self::GetsP99 => "GET p99, 64 connections".into(),
            Self::CpuPer100kGets => "CPU per 100k GETs, 64 connections".into(),
            Self::Bulk(way, streams) => format!("bulk {}, streams: {streams}", way.name()),
            Self::CpuPerGib(way) => format!("CPU per GiB {}, 1 stream", way.name()),
            Self::DelayedTrip(ms) => format!("round trip at {ms} ms"),
            Self::DelayedDial(ms) => format!("dial at {ms} ms, data behind the open"),
            Self::DelayedDialConfirmed(ms) => format!("dial at {ms} ms, data after the agent's word"),
            Self::DelayedBulk(way, ms) => format!("bulk {} at {ms} ms, 1 stream", way.name()),
            Self::Resume => "from a cut (RST) to the next echo".into(),
            Self::NoCut => "the same path without a cut".into(),
            Self::PerTunnel => "server memory per idle tunnel".into(),
            Self::PerStream => "server memory per idle open stream".into(),
            Self::Resident(over, count) => format!("server memory, {}: {count}", over.name()),
            Self::ScaledP50(over, count) => format!("round trip p50, {}: {count}", over.name()),
            Self::ScaledP99(over, count) => format!("round trip p99, {}: {count}", over.name()),
            Self::ScaledGets(count) => format!("GETs, connections: {count}"),
            Self::Idle(count) => format!("CPU of both sides while idle, tunnels: {count}"),
            Self::CallsPerTrip => "system calls per round trip".into(),
            Self::CallsPerDial => "system calls per dial".into(),
            Self::CallsPerGet => "system calls per GET, 64 connections".into(),
        }
    }

    pub(crate) fn unit(self) -> Unit {
        match self {
            Self::DialsAtOnce | Self::Gets | Self::ScaledGets(_) => Unit::PerSecond,
            Self::Idle(_) => Unit::CpuMillisPerSecond,
            Self::CpuPer100kGets | Self::CpuPerGib(_) => Unit::CpuSeconds,
            Self::Bulk(..) | Self::DelayedBulk(..) => Unit::MibPerSecond,
            Self::DelayedTrip(_)
            | Self::DelayedDial(_)
            | Self::DelayedDialConfirmed(_)
            | Self::Resume
            | Self::NoCut => Unit::Millis,
            Self::PerTunnel | Self::PerStream | Self::Resident(..) => Unit::Kib,
            Self::CallsPerTrip | Self::CallsPerDial | Self::CallsPerGet => Unit::Calls,
            _ => Unit::Micros,
        }
    }
}

//! All credit arithmetic: what may be sent, what was granted, what is lent of the tunnel's budget.
//!
//! Bytes that wait in windows leave the cache before they are read, and so do the messages that the sender keeps for
//! them. Over a short way, which small windows fill as well, busy streams therefore share one first window (measured
//! with eight of them on one core: 1.5 times the throughput of half of one each). Over a long way a window holds what
//! its reader takes in two round trips, or the way would stand idle.
//!
//! Each credit wakes a writer. Over a short way it is due at half a window, the most that can be read before the peer
//! stalls. Over a long one what was read and not yet granted is missing for a whole round trip, so that it is to be
//! little of a large window; and a quarter of a small one, as with a half the window that each round trip uses up
//! could be read as one that is large enough.

use std::time::{Duration, Instant};

use super::error::Violation;
use crate::frame::CloseCode;

/// What this side may send on one stream: an absolute offset that never shrinks.
#[derive(Debug)]
pub(crate) struct SendCredit {
    /// The peer's last word.
    limit: u64,
    /// How much was taken for writing.
    used: u64,
    /// How far above `used` the peer said it would ever grant.
    max_ahead: u64,
}

impl SendCredit {
    pub(crate) fn new(limit: u64, max_ahead: u64) -> Self {
        Self { limit, used: 0, max_ahead }
    }

    pub(crate) fn available(&self) -> usize {
        usize::try_from(self.limit.saturating_sub(self.used)).unwrap_or(usize::MAX)
    }

    /// Takes credit for `n` bytes, which `available` has allowed.
    pub(crate) fn spend(&mut self, n: usize) {
        debug_assert!(n <= self.available(), "spent more credit than there is");
        self.used = self.used.saturating_add(n as u64);
    }

    /// The peer grants up to `offset`. Tells whether that is more than before; a lower offset is ignored.
    pub(crate) fn grant(&mut self, offset: u64) -> Result<bool, Violation> {
        if offset > self.used.saturating_add(self.max_ahead) {
            return Err(Violation::new(CloseCode::FORBIDDEN, "credit above the announced maximum"));
        }
        let raised = offset > self.limit;
        self.limit = self.limit.max(offset);
        Ok(raised)
    }
}

/// What the peer may send on one stream.
#[derive(Debug)]
pub(crate) struct RecvWindow {
    /// The size of the window without a loan.
    base: u64,
    /// What it was lent above that.
    loan: u64,
    /// The size of the window: how far ahead of what was read the peer may be. Less than base and loan while what was
    /// granted before is still out.
    size: u64,
    /// The offset last granted.
    granted: u64,
    received: u64,
    consumed: u64,
    /// How much is to be read of a window before it is renewed.
    due: u64,
    mark: Mark,
    /// For how many renewals more small requests are reckoned with beside this stream.
    company: u8,
}

/// Where things stood when reading was last measured.
#[derive(Debug, Default, Clone, Copy)]
struct Mark {
    at: Option<Instant>,
    /// What was read of the stream.
    consumed: u64,
    /// What was read of all.
    drained: u64,
}

impl RecvWindow {
    pub(crate) fn new(base: u64) -> Self {
        Self {
            base,
            loan: 0,
            size: base,
            granted: base,
            received: 0,
            consumed: 0,
            due: base / 2,
            mark: Mark::default(),
            company: 0,
        }
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// The offset that was granted last.
    pub(crate) fn granted(&self) -> u64 {
        self.granted
    }

    /// `n` bytes arrived.
    pub(crate) fn on_data(&mut self, n: usize) -> Result<(), Violation> {
        let received = self.received.checked_add(n as u64).filter(|&end| end <= self.granted);
        self.received = received.ok_or(Violation::new(CloseCode::CREDIT, "data beyond the credit"))?;
        Ok(())
    }

    /// `n` bytes were read. Tells whether so much was that new credit should be granted.
    pub(crate) fn consume(&mut self, n: usize) -> bool {
        self.consumed = self.consumed.saturating_add(n as u64).min(self.received);
        self.consumed.saturating_add(self.size).saturating_sub(self.granted) >= self.due
    }

    /// Grants the first whole window, with a loan, and gives the offset.
    pub(crate) fn begin(&mut self, lender: &mut Lender) -> u64 {
        self.mark.drained = lender.drained;
        self.resize(lender.first, lender);
        self.due = self.size / 2;
        self.granted
    }

    /// Grants a whole window from what was read, and gives the offset. `rtt`: the link's round trip when it is idle.
    pub(crate) fn renew(&mut self, now: Instant, rtt: Option<Duration>, lender: &mut Lender) -> u64 {
        let own = self.consumed.saturating_sub(self.mark.consumed);
        if own == 0 {
            return self.granted;
        }
        let far = rtt.filter(|rtt| *rtt > NEAR);
        let wanted = match far {
            Some(rtt) => self.needed(own, now, rtt, lender).max(lender.first),
            None => {
                let all = lender.drained.saturating_sub(self.mark.drained);
                self.mark(now, lender);
                self.company = if is_company(own, all) { COMPANY } else { self.company.saturating_sub(1) };
                let most = if self.company > 0 { lender.first / 8 } else { lender.first };
                if rtt.is_some() { lender.share(own, all).min(most) } else { lender.first }
            }
        };
        self.resize(wanted.min(lender.most), lender);
        self.due = if far.is_some() { (self.size / 4).min(STEP.max(self.size / 32)) } else { self.size / 2 };
        self.granted
    }

    /// Gives the loan back.
    pub(crate) fn end(&mut self, lender: &mut Lender) {
        lender.give_back(std::mem::take(&mut self.loan));
    }

    /// What is read in two round trips over a long way, so that a window that is used up in each doubles. Measured over
    /// a round trip or more.
    fn needed(&mut self, own: u64, now: Instant, rtt: Duration, lender: &Lender) -> u64 {
        let twice = own.saturating_mul(2);
        match self.mark.at.map(|at| now.saturating_duration_since(at)) {
            Some(elapsed) if elapsed >= rtt => {
                self.mark(now, lender);
                scale(twice, rtt, elapsed)
            }
            // What comes in bursts shows its rate over whole round trips only; till then it is this at the least.
            Some(_) => self.size.max(twice),
            // Nobody knows since when the first window flows: as fast as can be, so that it doubles at once.
            None => {
                self.mark.at = Some(now);
                twice
            }
        }
    }

    fn mark(&mut self, now: Instant, lender: &Lender) {
        self.mark = Mark { at: Some(now), consumed: self.consumed, drained: lender.drained };
    }

    fn resize(&mut self, wanted: u64, lender: &mut Lender) {
        let wanted = wanted.saturating_sub(self.base);
        self.loan = self.loan.saturating_add(lender.lend(wanted.saturating_sub(self.loan)));
        self.size = self.base.saturating_add(wanted.min(self.loan));
        self.granted = self.granted.max(self.consumed.saturating_add(self.size));
        // What was granted before is owed, however small the window is now.
        let owed = self.granted.saturating_sub(self.consumed).saturating_sub(self.base);
        lender.give_back(self.loan.saturating_sub(owed));
        self.loan = self.loan.min(owed);
    }
}

/// Whether others read a little beside one that read `own` of `all` bytes.
fn is_company(own: u64, all: u64) -> bool {
    (1..=own / 8).contains(&all.saturating_sub(own))
}

/// `n` times `a`, divided by `b`; 0 where there is nothing to divide by.
fn scale(n: u64, a: Duration, b: Duration) -> u64 {
    let scaled = u128::from(n).saturating_mul(a.as_nanos()).checked_div(b.as_nanos()).unwrap_or(0);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// Up to this round trip a first window fills 8 Gbit/s.
const NEAR: Duration = Duration::from_micros(500);

/// So many renewals after a small request beside it a stream in bulk keeps an eighth of a window, for the next request to
/// wait behind: at full speed some milliseconds. (Measured: the p99 of a GET beside it is 2.7 times that of one alone, 4
/// times with a quarter and 7 times with a whole window.)
const COMPANY: u8 = 64;

/// Over a long way credit is due once this was read, as often as over a short one by default; of windows above 8 MiB, a
/// 32nd.
const STEP: u64 = 256 * 1024;

/// Lends a tunnel's budget for unread data, beyond what every stream is guaranteed.
#[derive(Debug)]
pub(crate) struct Lender {
    free: u64,
    /// A stream's first window.
    first: u64,
    /// The largest window.
    most: u64,
    /// How much was read of all streams.
    drained: u64,
}

impl Lender {
    /// `free`: the budget less every stream's guarantee; `first`: a stream's first window; `most`: the largest.
    pub(crate) fn new(free: usize, first: u64, most: u64) -> Self {
        Self { free: free as u64, first, most, drained: 0 }
    }

    /// `n` bytes of any stream were read.
    pub(crate) fn drained(&mut self, n: usize) {
        self.drained = self.drained.saturating_add(n as u64);
    }

    /// The window of a stream that was read `own` of `all` bytes: so much of a first window, but no less than an eighth
    /// of it, one full message by default.
    fn share(&self, own: u64, all: u64) -> u64 {
        let share = u128::from(self.first).saturating_mul(own.into()).checked_div(all.into());
        let share = share.and_then(|share| u64::try_from(share).ok()).unwrap_or(u64::MAX);
        share.clamp(self.first / 8, self.first)
    }

    /// Lends what is wanted, at most an eighth of what is free, so that later streams find some too.
    fn lend(&mut self, wanted: u64) -> u64 {
        let loan = wanted.min(self.free / 8);
        self.free = self.free.saturating_sub(loan);
        loan
    }

    fn give_back(&mut self, loan: u64) {
        self.free = self.free.saturating_add(loan);
    }

    #[cfg(test)]
    pub(crate) fn free(&self) -> u64 {
        self.free
    }
}

#[cfg(test)]
mod tests;

//! All credit arithmetic: what may be sent, what was granted, what is lent of the tunnel's budget.

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
    /// The size of the window: how far ahead of what was read the peer may be.
    size: u64,
    /// The offset last granted.
    granted: u64,
    received: u64,
    consumed: u64,
}

impl RecvWindow {
    pub(crate) fn new(size: u64) -> Self {
        Self { size, granted: size, received: 0, consumed: 0 }
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

    /// `n` bytes were read. Tells whether so much was that new credit should be granted: half the window, so that
    /// the peer hears of it before it stalls, and not more often than twice a window.
    pub(crate) fn consume(&mut self, n: usize) -> bool {
        self.consumed = self.consumed.saturating_add(n as u64).min(self.received);
        self.consumed.saturating_add(self.size).saturating_sub(self.granted) >= self.size / 2
    }

    /// Grants a whole window from what was read, and gives the offset.
    pub(crate) fn renew(&mut self) -> u64 {
        self.granted = self.granted.max(self.consumed.saturating_add(self.size));
        self.granted
    }

    /// Makes the window larger by `n` bytes; granted with the next `renew`.
    pub(crate) fn grow(&mut self, n: u64) {
        self.size = self.size.saturating_add(n);
    }
}

/// Lends a tunnel's budget for unread data, beyond what every stream is guaranteed.
#[derive(Debug)]
pub(crate) struct Lender {
    free: usize,
    most: usize,
}

impl Lender {
    /// `free`: the budget less every stream's guarantee; `most`: the most for one stream.
    pub(crate) fn new(free: usize, most: usize) -> Self {
        Self { free, most }
    }

    /// Lends at most an eighth of what is free, so that later streams find some too.
    pub(crate) fn lend(&mut self) -> u32 {
        let loan = u32::try_from(self.most.min(self.free / 8)).unwrap_or(u32::MAX);
        self.free = self.free.saturating_sub(loan as usize);
        loan
    }

    pub(crate) fn give_back(&mut self, loan: u32) {
        self.free = self.free.saturating_add(loan as usize);
    }

    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_beyond_max_is_a_violation_naming_the_field() {
        let mut credit = SendCredit::new(10, 100);
        assert_eq!(credit.grant(100), Ok(true));
        let violation = credit.grant(101).unwrap_err();
        assert_eq!(violation.code(), CloseCode::FORBIDDEN);
        assert!(violation.rule().contains("credit"));
        credit.spend(100);
        assert_eq!(credit.grant(200), Ok(true));
        assert!(credit.grant(u64::MAX).is_err());
    }

    #[test]
    fn lower_credit_is_ignored() {
        let mut credit = SendCredit::new(50, 100);
        assert_eq!(credit.grant(20), Ok(false));
        assert_eq!(credit.available(), 50);
    }

    #[test]
    fn data_up_to_the_credit_is_taken_and_one_byte_more_is_not() {
        let mut window = RecvWindow::new(8);
        assert_eq!(window.on_data(8), Ok(()));
        assert_eq!(window.on_data(1).unwrap_err().code(), CloseCode::CREDIT);
    }

    #[test]
    fn credit_is_due_at_half_a_window() {
        let mut window = RecvWindow::new(8);
        window.on_data(8).unwrap();
        assert!(!window.consume(3));
        assert!(window.consume(1));
        assert_eq!(window.renew(), 12);
        assert!(!window.consume(1));
    }

    #[test]
    fn an_eighth_of_what_is_free_is_lent() {
        let mut lender = Lender::new(800, 240);
        assert_eq!((lender.lend(), lender.lend()), (100, 87));
        lender.give_back(100);
        assert_eq!(lender.free(), 713);
    }
}

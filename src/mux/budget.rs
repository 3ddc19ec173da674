//! What sessions without a link hold in memory, over all sessions of one keeper.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Bytes that sessions without a link have queued, kept and unread, together. Sessions charge it; whoever keeps them
/// looks at it, and ends some when it is too much.
#[derive(Debug, Default)]
pub(crate) struct Budget(AtomicUsize);

/// The share of one session. Given back when dropped.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// The sum, as it is at about this moment.
    #[cfg(feature = "server")]
    pub(crate) fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Charge {
    #[cfg(feature = "server")]
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// The session holds so many bytes now.
    pub(super) fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.budget.0.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else if bytes < self.bytes {
            self.budget.0.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_are_given_back() {
        let budget = Arc::new(Budget::default());
        let (mut one, mut other) = (Charge::new(Arc::clone(&budget)), Charge::new(Arc::clone(&budget)));
        one.set(100);
        other.set(10);
        one.set(30);
        assert_eq!(budget.used(), 40);
        drop(one);
        assert_eq!(budget.used(), 10);
        other.set(0);
        assert_eq!(budget.used(), 0);
    }
}

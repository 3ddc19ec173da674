//! What is done with wakers once the lock is released.

use std::task::Waker;

/// What is done with wakers once the lock is released. Small, as each turn of the lock moves it: as a rule it is one
/// wake-up or none.
#[derive(Debug, Default)]
pub(in crate::mux) struct After {
    /// Woken first.
    first: Option<Waker>,
    rest: Option<Box<Rest>>,
}

#[derive(Debug, Default)]
struct Rest {
    wake: Vec<Waker>,
    discard: Vec<Waker>,
}

impl After {
    /// Wakes, and drops what was replaced. Either may run code that takes the lock.
    #[inline]
    pub(in crate::mux) fn run(self) {
        if let Some(first) = self.first {
            first.wake();
        }
        if let Some(rest) = self.rest {
            rest.wake.into_iter().for_each(Waker::wake);
        }
    }

    /// Whether anybody is to be woken.
    pub(super) fn wakes(&self) -> bool {
        self.first.is_some()
    }

    /// Has these woken, in order.
    #[inline]
    pub(super) fn wake(&mut self, wakers: impl IntoIterator<Item = Waker>) {
        for waker in wakers {
            if self.first.is_none() {
                self.first = Some(waker);
            } else {
                self.rest.get_or_insert_default().wake.push(waker);
            }
        }
    }

    /// Has these dropped.
    #[inline]
    pub(super) fn discard(&mut self, wakers: impl IntoIterator<Item = Waker>) {
        for waker in wakers {
            self.rest.get_or_insert_default().discard.push(waker);
        }
    }
}

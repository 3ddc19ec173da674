//! The right of one link to act on its session, from its binding until it is superseded or given back.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::time::Instant as TokioInstant;

use super::{
    shared::{Shared, Superseded},
    state::State,
};
use crate::{key::Epoch, metrics::StreamBytes};

/// The right to act on the session as long as the link is bound; given back when dropped.
#[derive(Debug)]
#[must_use = "dropping it tells the session that the link is down"]
pub(crate) struct Bound {
    shared: Arc<Shared>,
    epoch: Epoch,
    has: u64,
    heard_before: bool,
}

impl Bound {
    /// For the link that has just been bound under `epoch`.
    pub(super) fn new(shared: Arc<Shared>, epoch: Epoch, (has, heard_before): (u64, bool)) -> Self {
        Self { shared, epoch, has, heard_before }
    }

    /// How many counted messages of the peer this side had when the link was bound: what WELCOME tells.
    pub(crate) fn has(&self) -> u64 {
        self.has
    }

    /// Whether the peer had spoken on the link before.
    pub(crate) fn heard_before(&self) -> bool {
        self.heard_before
    }

    /// Makes the span of the session if it has none yet: here, under no lock.
    pub(super) fn begin_span(&self) {
        self.shared.span();
    }

    /// Whether a stream of the peer's was taken or accepted since this was asked last.
    pub(super) fn take_begun(&self) -> bool {
        self.shared.take_begun()
    }

    /// How often there was news for readers of streams, each time for one that had found none before.
    pub(super) fn readers_woken(&self) -> u64 {
        self.shared.rounds().reads.load(Ordering::Relaxed)
    }

    /// Runs `f` under the lock if the link is still the bound one.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> Result<R, Superseded> {
        self.shared.with_link(self.epoch, f)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let last = self.with(|state| {
            state.unbind(now());
            state.unreported()
        });
        if let Ok(news) = last {
            news.record(now(), &mut StreamBytes::default());
        }
    }
}

/// The clock of the drivers, which tests can pause.
pub(super) fn now() -> Instant {
    TokioInstant::now().into_std()
}

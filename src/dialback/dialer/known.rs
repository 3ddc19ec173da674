//! The tunnels of all agents, as pick-ups name them, and the streams that have outlived theirs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::{DialbackTunnel, Shared};
use crate::{
    dialback::{pending::Id, tie::Ties},
    error::ErrorKind,
    key::AgentKey,
};

/// So many owners of streams that outlived their tunnels are not worth a look at them.
const MIN_SWEEP: usize = 64;

/// The tunnels of all agents.
#[derive(Debug, Default)]
pub(crate) struct Dialers(Mutex<Known>);

#[derive(Debug, Default)]
pub(super) struct Known {
    /// By what names them in pick-ups.
    pub(super) tunnels: HashMap<Id, Weak<Shared>>,
    /// Streams of tunnels that have ended without them, by the key and the principal that they were opened under.
    pub(super) orphans: HashMap<(AgentKey, String), Vec<Weak<Ties>>>,
    /// How many owners of such streams there may be before those are looked for whose streams have ended.
    sweep_at: usize,
}

/// Streams that have outlived their tunnels.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Orphans<'a> {
    All,
    /// Of one key.
    Under(&'a AgentKey),
    /// Of one key and principal.
    Of(&'a (AgentKey, String)),
}

impl Dialers {
    /// The tunnel of this id.
    pub(crate) fn get(&self, id: Id) -> Option<DialbackTunnel> {
        self.lock().tunnels.get(&id).and_then(Weak::upgrade).map(DialbackTunnel)
    }

    /// Ends streams that have outlived their tunnels. False: there were none.
    pub(crate) fn end_orphans(&self, which: Orphans<'_>, kind: ErrorKind) -> bool {
        let ended: Vec<_> = {
            let mut known = self.lock();
            let orphans = known.orphans.extract_if(|owner, _| which.are_of(owner)).flat_map(|(_, orphans)| orphans);
            orphans.filter_map(|ties| ties.upgrade()).filter(|ties| ties.len() > 0).collect()
        };
        ended.iter().for_each(|ties| ties.cut(kind));
        !ended.is_empty()
    }

    /// Resolves when no stream is left that has outlived its tunnel.
    pub(crate) async fn orphans_left(&self) {
        loop {
            let orphans: Vec<_> = self.lock().orphans.values().flatten().filter_map(Weak::upgrade).collect();
            let Some(ties) = orphans.into_iter().find(|ties| !ties.is_idle()) else { return };
            ties.idle().await;
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Remembers the streams of a tunnel that is about to end, or has.
    pub(super) fn adopt(&mut self, tunnel: &Shared) {
        let owner = tunnel.owner();
        let orphans = self.orphans.entry(owner.clone()).or_default();
        orphans.retain(|ties| ties.upgrade().is_some_and(|ties| ties.len() > 0 && !Arc::ptr_eq(&ties, &tunnel.ties)));
        if tunnel.ties.len() > 0 {
            orphans.push(Arc::downgrade(&tunnel.ties));
        } else if orphans.is_empty() {
            self.orphans.remove(&owner);
        }
    }

    /// Forgets streams that have ended, each time that there are twice as many owners as the last time.
    pub(super) fn sweep(&mut self) {
        if self.orphans.len() < self.sweep_at {
            return;
        }
        self.orphans.retain(|_, orphans| {
            orphans.retain(|ties| ties.upgrade().is_some_and(|ties| ties.len() > 0));
            !orphans.is_empty()
        });
        self.sweep_at = (self.orphans.len() * 2).max(MIN_SWEEP);
    }
}

impl Orphans<'_> {
    fn are_of(self, owner: &(AgentKey, String)) -> bool {
        match self {
            Self::All => true,
            Self::Under(key) => owner.0 == *key,
            Self::Of(this) => owner == this,
        }
    }
}

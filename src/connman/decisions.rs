//! A policy some of whose decisions are taken by the builder's settings.

use std::{sync::Arc, time::Duration};

use crate::{
    connman::policy::{Absent, Displace, Grace, GracePolicy, LinkLoss, Registration},
    key::AgentKey,
};

type DecideAbsent = dyn Fn(&AgentKey) -> Absent + Send + Sync;
type DecideDisplace = dyn Fn(&Registration, &Registration) -> Displace + Send + Sync;

/// What is set takes the decision, in the place of the policy.
pub(super) struct Decisions {
    pub(super) policy: Arc<dyn GracePolicy>,
    pub(super) max_hold: Option<Duration>,
    pub(super) waiting_limit: Option<usize>,
    pub(super) absent: Option<Arc<DecideAbsent>>,
    pub(super) displace: Option<Arc<DecideDisplace>>,
}

impl Decisions {
    pub(super) fn of(policy: impl GracePolicy) -> Self {
        Self { policy: Arc::new(policy), max_hold: None, waiting_limit: None, absent: None, displace: None }
    }
}

impl GracePolicy for Decisions {
    fn grace(&self, loss: &LinkLoss<'_>) -> Grace {
        self.policy.grace(loss)
    }

    fn max_hold(&self) -> Duration {
        self.max_hold.unwrap_or_else(|| self.policy.max_hold())
    }

    fn waiting_limit(&self, key: &AgentKey) -> usize {
        self.waiting_limit.unwrap_or_else(|| self.policy.waiting_limit(key))
    }

    fn absent(&self, key: &AgentKey) -> Absent {
        match &self.absent {
            Some(absent) => absent(key),
            None => self.policy.absent(key),
        }
    }

    fn displace(&self, old: &Registration, new: &Registration) -> Displace {
        match &self.displace {
            Some(displace) => displace(old, new),
            None => self.policy.displace(old, new),
        }
    }
}

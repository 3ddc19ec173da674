//! Which addresses a forwarding agent may dial, beyond what its targets name.

use std::{fmt, net::SocketAddr, sync::Arc};

use crate::callback::guarded;

type Rule = dyn Fn(SocketAddr) -> bool + Send + Sync;

/// A rule for addresses; without one, all are allowed.
#[derive(Clone, Default)]
pub(crate) struct Allowed(Option<Arc<Rule>>);

impl Allowed {
    /// Those that this rule takes.
    pub(crate) fn by(rule: impl Fn(SocketAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(rule)))
    }

    /// Whether this one is allowed. A rule that panics takes none.
    pub(crate) fn has(&self, address: SocketAddr) -> bool {
        let Some(rule) = &self.0 else { return true };
        guarded("Targets::allow", || rule(address)).unwrap_or(false)
    }
}

/// The same rule, not one that decides alike.
impl PartialEq for Allowed {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            (None, None) => true,
            _ => false,
        }
    }
}

impl Eq for Allowed {}

impl fmt::Debug for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Allowed(..)" } else { "Allowed(all)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_decides_and_is_itself_only() {
        let (all, rule) = (Allowed::default(), Allowed::by(|address| address.ip().is_loopback()));
        let (here, there) = (([127, 0, 0, 1], 80).into(), ([10, 0, 0, 1], 80).into());
        assert!(all.has(here) && all.has(there) && rule.has(here) && !rule.has(there));
        assert!(all == Allowed::default() && rule == rule.clone() && rule != all);
        assert_ne!(rule, Allowed::by(|address| address.ip().is_loopback()));
    }
}

//! The settings of a manager.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    connman::{
        event::Observer,
        manager::ConnectionManager,
        policy::{FixedGrace, GracePolicy},
        registry::Limits,
        state::{Inner, Settings},
    },
    metrics,
};

/// How long an agent may take for its answer to an open: twice what it gives its own connect.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Dials that wait, over all keys: at about 1 KiB each, 10 MiB.
const MAX_PENDING_DIALS: usize = 10_000;

/// Keys connected or in grace: at about 10 KiB for an idle tunnel, 1 GiB.
const MAX_TUNNELS: usize = 100_000;

/// How long the streams of a replaced agent may go on.
const REPLACE_DRAIN: Duration = Duration::from_secs(5);

/// Settings for a [`ConnectionManager`]; made by [`ConnectionManager::builder`].
#[must_use = "settings do nothing until build()"]
pub struct ConnectionManagerBuilder {
    policy: Arc<dyn GracePolicy>,
    observers: Vec<Arc<dyn Observer>>,
    dial_timeout: Duration,
    max_pending_dials: usize,
    max_tunnels: usize,
    replace_drain: Duration,
    grace_memory: Option<usize>,
    strict_eof: bool,
}

impl ConnectionManagerBuilder {
    pub(super) fn new() -> Self {
        Self {
            policy: Arc::new(FixedGrace::default()),
            observers: Vec::new(),
            dial_timeout: DIAL_TIMEOUT,
            max_pending_dials: MAX_PENDING_DIALS,
            max_tunnels: MAX_TUNNELS,
            replace_drain: REPLACE_DRAIN,
            grace_memory: None,
            strict_eof: false,
        }
    }

    /// What is decided about keys whose tunnels come and go. Default [`FixedGrace`] of 30 s.
    pub fn grace(mut self, policy: impl GracePolicy) -> Self {
        self.policy = Arc::new(policy);
        self
    }

    /// How long an agent may take to answer an open. Default 10 s. It does not count while a dial waits for a tunnel.
    ///
    /// A dial with early data has ended by then; what bounds its stream, and every other, is the session's
    /// [`accept_timeout`](crate::proto::SessionConfig::accept_timeout): set both.
    pub const fn dial_timeout(mut self, timeout: Duration) -> Self {
        self.dial_timeout = timeout;
        self
    }

    /// How many dials may wait for tunnels at once, over all keys. Default 10,000. Beyond, a dial fails with
    /// [`TooManyPendingDials`](crate::ErrorKind::TooManyPendingDials). The limit of each key is the policy's.
    pub const fn max_pending_dials(mut self, most: usize) -> Self {
        self.max_pending_dials = most;
        self
    }

    /// How many keys may be connected or in grace at once. Default 100,000. Beyond, an agent with a new key gets 503
    /// with `Retry-After`, or is closed with 1013 where several come at once; a key in grace keeps its place.
    pub const fn max_tunnels(mut self, most: usize) -> Self {
        self.max_tunnels = most;
        self
    }

    /// For how long the running streams of an agent may finish whose key another one has taken. Default 5 s: a request
    /// is answered, a download is not waited for. Then, or once nothing runs any more, it is closed with 4410. Zero
    /// closes it at once.
    pub const fn replace_drain(mut self, drain: Duration) -> Self {
        self.replace_drain = drain;
        self
    }

    /// How many bytes sessions in grace may hold together: what waits to be sent, what may have to be sent again, and
    /// what nobody has read. Default a quarter of the memory of the machine, or of the process's cgroup; 1 GiB where
    /// that is not known. Beyond, the session whose grace ends first is given up: its streams fail with
    /// [`SessionLost`](crate::ErrorKind::SessionLost), its key is waited for all the same. It is looked at whenever a
    /// link comes or goes, or a dial.
    pub const fn grace_memory(mut self, bytes: usize) -> Self {
        self.grace_memory = Some(bytes);
        self
    }

    /// Whether the end of a stream to an agent of the dial-back protocol, which may be a loss, is an error for every
    /// dial; see [`Dial::strict_eof`](crate::connman::Dial::strict_eof). Default false.
    pub const fn strict_eof(mut self, yes: bool) -> Self {
        self.strict_eof = yes;
        self
    }

    /// Tells `observer` of every event, after those named before.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// The manager. May be called outside a runtime.
    #[must_use]
    pub fn build(self) -> ConnectionManager {
        metrics::describe();
        ConnectionManager::from_inner(Arc::new(Inner::new(self.settings())))
    }

    pub(super) fn settings(self) -> Settings {
        Settings {
            policy: self.policy,
            observers: self.observers,
            dial_timeout: self.dial_timeout,
            limits: Limits { tunnels: self.max_tunnels, waiting: self.max_pending_dials, drain: self.replace_drain },
            grace_memory: self.grace_memory.unwrap_or_else(quarter_of_memory),
            strict_eof: self.strict_eof,
        }
    }
}

impl fmt::Debug for ConnectionManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            policy: _,
            observers,
            dial_timeout,
            max_pending_dials,
            max_tunnels,
            replace_drain,
            grace_memory,
            strict_eof,
        } = self;
        f.debug_struct("ConnectionManagerBuilder")
            .field("observers", &observers.len())
            .field("dial_timeout", dial_timeout)
            .field("max_pending_dials", max_pending_dials)
            .field("max_tunnels", max_tunnels)
            .field("replace_drain", replace_drain)
            .field("grace_memory", grace_memory)
            .field("strict_eof", strict_eof)
            .finish_non_exhaustive()
    }
}

/// A quarter of what the process may use, as Linux tells it; else of 4 GiB.
fn quarter_of_memory() -> usize {
    let of_machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix("kB")?;
        kib.trim().parse::<usize>().ok()?.checked_mul(1024)
    });
    let of_cgroup = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let of_cgroup = of_cgroup.and_then(|text| text.trim().parse::<usize>().ok());
    of_machine.into_iter().chain(of_cgroup).min().unwrap_or(4 << 30) / 4
}

//! The settings of a manager.

use std::{
    error::Error as StdError,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{
    connman::{
        decisions::Decisions,
        event::Observer,
        hook::{self, Arrived, Hooked},
        manager::ConnectionManager,
        policy::{Absent, Displace, FixedGrace, GracePolicy, Registration},
        registry::Limits,
        state::{Inner, Settings},
        wake::Wake,
    },
    key::AgentKey,
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
    decisions: Decisions,
    boot_grace: Duration,
    observers: Vec<Arc<dyn Observer>>,
    hooks: Vec<Hooked>,
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
            decisions: Decisions::of(FixedGrace::default()),
            boot_grace: Duration::ZERO,
            observers: Vec::new(),
            hooks: Vec::new(),
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
        self.decisions.policy = Arc::new(policy);
        self
    }

    /// The longest grace, which agents are told when they connect: every other one is cut to it. Default the policy's,
    /// [30 s for a closure](GracePolicy::max_hold).
    pub const fn max_hold(mut self, longest: Duration) -> Self {
        self.decisions.max_hold = Some(longest);
        self
    }

    /// What becomes of a dial to a key that is neither connected nor in grace. Default the policy's, which is to
    /// [refuse](GracePolicy::absent) it. Called as a policy is.
    pub fn absent(mut self, decide: impl Fn(&AgentKey) -> Absent + Send + Sync + 'static) -> Self {
        self.decisions.absent = Some(Arc::new(decide));
        self
    }

    /// Has the agent of every absent key started that is dialled, by this: [`absent`](Self::absent) with
    /// [`Absent::Wake`] for all keys. See [`Wake`] for what dials see of it.
    ///
    /// ```
    /// use std::error::Error;
    /// use revdial::{ErrorKind, connman::ConnectionManager};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn Error>> {
    /// let connman = ConnectionManager::builder()
    ///     .wake(|key| async move { Err(format!("{key} has no machine")) })
    ///     .build();
    /// let error = connman.dial(&"desktop-7".parse()?, &"".parse()?).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::NoConnection);
    /// assert_eq!(error.source().unwrap().to_string(), "desktop-7 has no machine");
    /// # Ok(())
    /// # }
    /// ```
    pub fn wake<F, S, E>(self, start: F) -> Self
    where
        F: Fn(AgentKey) -> S + Send + Sync + 'static,
        S: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        let start = Arc::new(start);
        self.absent(move |key: &AgentKey| {
            let (start, key) = (Arc::clone(&start), key.clone());
            Absent::Wake(Wake::new(move || start(key)))
        })
    }

    /// For how long after [`build`](Self::build) absent keys are waited for, since the agents of a server that was
    /// restarted are about to come back. At its end those that are absent still are as [`absent`](Self::absent) says,
    /// also for dials that waited. Default zero.
    pub const fn boot_grace(mut self, grace: Duration) -> Self {
        self.boot_grace = grace;
        self
    }

    /// Whether another agent of the same principal takes a connected key over. Default the policy's, which is
    /// [yes](GracePolicy::displace). Called with the old one and the new one, as a policy is.
    pub fn displace(
        mut self,
        decide: impl Fn(&Registration, &Registration) -> Displace + Send + Sync + 'static,
    ) -> Self {
        self.decisions.displace = Some(Arc::new(decide));
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
    /// [`TooManyPendingDials`](crate::ErrorKind::TooManyPendingDials).
    pub const fn max_pending_dials(mut self, most: usize) -> Self {
        self.max_pending_dials = most;
        self
    }

    /// How many dials may wait for the tunnel of one key. Default the policy's, [100](GracePolicy::waiting_limit).
    /// Beyond, as above.
    pub const fn max_pending_dials_per_key(mut self, most: usize) -> Self {
        self.decisions.waiting_limit = Some(most);
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

    /// Does `hook` whenever an agent has connected, come back or resumed: to bring it to the state that it should be
    /// in. Several may be set.
    ///
    /// It runs on a task of its own, after observers were told and while dials that waited go on, so it holds up nobody.
    /// It may wait, and dial back into the agent, for which the tunnel is ready. By the time that it runs the agent may
    /// be gone again; [`epoch`](ConnectionManager::epoch) tells.
    ///
    /// Calls for one key follow one another; whoever connects during one is told by one more after it, the newest alone.
    /// An arrival that is overtaken by a newer one on its way to the hook is told as that, or not at all; so one may be told
    /// twice, and what is done for it has to bear that.
    /// At most 100 calls run at once, over all keys. One that panics, or takes longer than 10 s, is dropped and counted
    /// in `revdial_callback_failures_total`.
    ///
    /// ```
    /// use revdial::connman::{Arrived, ConnectionManager};
    ///
    /// let connman = ConnectionManager::builder()
    ///     .on_connect(|agent: Arrived| async move {
    ///         if agent.is_resumed() {
    ///             return; // it knows what it is to do
    ///         }
    ///         let control = "control".parse().unwrap_or_default();
    ///         match agent.connman().dial(agent.key(), &control).await {
    ///             Ok(_stream) => { /* tell it */ }
    ///             Err(error) => eprintln!("{}: {error}", agent.key()),
    ///         }
    ///     })
    ///     .build();
    /// # let _ = connman;
    /// ```
    pub fn on_connect<F, D>(mut self, hook: F) -> Self
    where
        F: Fn(Arrived) -> D + Send + Sync + 'static,
        D: Future<Output = ()> + Send + 'static,
    {
        self.hooks.push(hook::hooked(hook));
        self
    }

    /// The manager. May be called outside a runtime.
    #[must_use]
    pub fn build(mut self) -> ConnectionManager {
        metrics::describe();
        metrics::begin_server();
        ConnectionManager::from_inner(Arc::new_cyclic(|manager| {
            for hook in std::mem::take(&mut self.hooks) {
                self = self.observer(hook(Weak::clone(manager)));
            }
            Inner::new(self.settings())
        }))
    }

    pub(super) fn settings(self) -> Settings {
        Settings {
            policy: Arc::new(self.decisions),
            observers: self.observers,
            dial_timeout: self.dial_timeout,
            boot_grace: self.boot_grace,
            limits: Limits { tunnels: self.max_tunnels, waiting: self.max_pending_dials, drain: self.replace_drain },
            grace_memory: self.grace_memory.unwrap_or_else(quarter_of_memory),
            strict_eof: self.strict_eof,
        }
    }
}

impl fmt::Debug for ConnectionManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            decisions: _,
            boot_grace,
            observers,
            hooks,
            dial_timeout,
            max_pending_dials,
            max_tunnels,
            replace_drain,
            grace_memory,
            strict_eof,
        } = self;
        f.debug_struct("ConnectionManagerBuilder")
            .field("boot_grace", boot_grace)
            .field("observers", &observers.len())
            .field("hooks", &hooks.len())
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

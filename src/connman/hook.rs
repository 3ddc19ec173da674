//! What the host does whenever an agent has connected: beside the data path, bounded, at its own risk.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{runtime::Handle as Runtime, sync::Semaphore};

use crate::{
    connman::{
        event::{Observer, TunnelEvent},
        manager::ConnectionManager,
        policy::Registration,
        state::Inner,
    },
    key::AgentKey,
    metrics,
    tunnel::Tunnel,
};

/// How long a hook may take, as any callback of the host's.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How many hooks run at once: enough to greet a fleet of ten thousand in a minute, if each takes half a second.
const AT_ONCE: usize = 100;

type Hook = dyn Fn(Arrived) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// An agent that has just connected, for a [hook](crate::connman::ConnectionManagerBuilder::on_connect).
#[derive(Debug, Clone)]
pub struct Arrived {
    registration: Arc<Registration>,
    resumed: bool,
    connman: ConnectionManager,
}

impl Arrived {
    /// Whose agent.
    #[must_use]
    pub fn key(&self) -> &AgentKey {
        &self.registration.key
    }

    /// Who it is, on which link.
    #[must_use]
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// Whether its session goes on with all its streams: it is the same process as before, which was away for a moment.
    #[must_use]
    pub const fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// The manager that it connected to, for a dial back into it.
    #[must_use]
    pub const fn connman(&self) -> &ConnectionManager {
        &self.connman
    }
}

/// Runs one hook, for each key one call after another.
pub(super) struct Hooks {
    hook: Box<Hook>,
    /// Weak, as the manager has this among its observers.
    manager: Weak<Inner<Tunnel>>,
    /// Keys with a call under way, or about to be, and what has connected since.
    keys: Mutex<HashMap<AgentKey, Option<Arrival>>>,
    permits: Semaphore,
}

type Arrival = (Arc<Registration>, bool);

/// The hook as an observer of the manager that has it.
pub(super) struct OnConnect(Arc<Hooks>);

/// How a hook comes to its manager, which is made later.
pub(super) type Hooked = Box<dyn FnOnce(Weak<Inner<Tunnel>>) -> OnConnect + Send + Sync>;

pub(super) fn hooked<F, D>(hook: F) -> Hooked
where
    F: Fn(Arrived) -> D + Send + Sync + 'static,
    D: Future<Output = ()> + Send + 'static,
{
    Box::new(|manager| {
        let hook: Box<Hook> = Box::new(move |arrived| Box::pin(hook(arrived)));
        let (keys, permits) = (Mutex::default(), Semaphore::new(AT_ONCE));
        OnConnect(Arc::new(Hooks { hook, manager, keys, permits }))
    })
}

impl Observer for OnConnect {
    fn on_event(&self, event: &TunnelEvent) {
        let (registration, resumed) = match event {
            TunnelEvent::Connected { registration } | TunnelEvent::Reconnected { registration, .. } => {
                (registration, false)
            }
            TunnelEvent::Resumed { registration, .. } => (registration, true),
            _ => return,
        };
        let arrival = (Arc::clone(registration), resumed);
        // Agents connect on a runtime only.
        let Ok(runtime) = Runtime::try_current() else { return };
        if let Some(turns) = self.0.begin(arrival) {
            runtime.spawn(turns.run());
        }
    }
}

/// The calls for one key, until nobody has connected during the last one.
struct Turns {
    hooks: Arc<Hooks>,
    arrival: Arrival,
    over: bool,
}

impl Hooks {
    /// Has `arrival` follow a call that is under way, or gives what makes the first.
    fn begin(self: &Arc<Self>, arrival: Arrival) -> Option<Turns> {
        let mut keys = self.lock();
        match keys.get_mut(&arrival.0.key) {
            Some(next) => {
                *next = Some(match next.take() {
                    Some(skipped) => after(&skipped, arrival),
                    None => arrival,
                });
                None
            }
            None => {
                keys.insert(arrival.0.key.clone(), None);
                Some(Turns { hooks: Arc::clone(self), arrival, over: false })
            }
        }
    }

    async fn call(&self, arrived: Arrived) {
        let key = arrived.key().clone();
        let call = AssertUnwindSafe(async { (self.hook)(arrived).await }).catch_unwind();
        let what = match tokio::time::timeout(TIMEOUT, call).await {
            Ok(Ok(())) => return,
            Ok(Err(_)) => "panicked",
            Err(_) => "took too long",
        };
        metrics::record_callback_failure();
        tracing::error!(%key, "the hook on connect {what}");
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AgentKey, Option<Arrival>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turns {
    async fn run(mut self) {
        let hooks = Arc::clone(&self.hooks);
        loop {
            let Ok(permit) = hooks.permits.acquire().await else { return };
            self.take_newer();
            let Some(manager) = hooks.manager.upgrade() else { return };
            let (registration, resumed) = self.arrival.clone();
            hooks.call(Arrived { registration, resumed, connman: ConnectionManager::from_inner(manager) }).await;
            drop(permit);
            if !self.take_newer_or_end() {
                return;
            }
        }
    }

    fn take_newer(&mut self) {
        if let Some(newer) = self.hooks.lock().get_mut(&self.arrival.0.key).and_then(Option::take) {
            self.arrival = after(&self.arrival, newer);
        }
    }

    fn take_newer_or_end(&mut self) -> bool {
        let mut keys = self.hooks.lock();
        match keys.get_mut(&self.arrival.0.key).and_then(Option::take) {
            Some(newer) => {
                self.arrival = newer;
                true
            }
            None => {
                keys.remove(&self.arrival.0.key);
                self.over = true;
                false
            }
        }
    }
}

/// An arrival in whose place an earlier one is not told: who then had begun anew is not just resumed.
fn after(skipped: &Arrival, (registration, resumed): Arrival) -> Arrival {
    (registration, resumed && skipped.1)
}

/// Also when its task went with its runtime, the next agent of the key is told.
impl Drop for Turns {
    fn drop(&mut self) {
        if !self.over {
            self.hooks.lock().remove(&self.arrival.0.key);
        }
    }
}

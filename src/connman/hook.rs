//! What the host does whenever an agent has connected: beside the data path, bounded, at its own risk.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{runtime::Handle as Runtime, sync::Semaphore};

use crate::{
    callback,
    connman::{
        event::{Observer, TunnelEvent},
        manager::ConnectionManager,
        policy::Registration,
        state::Inner,
    },
    key::AgentKey,
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
    /// Keys with a call under way, or about to be.
    keys: Mutex<HashMap<AgentKey, Calls>>,
    permits: Semaphore,
}

/// Who has connected, and whether its session goes on.
type Arrival = (Arc<Registration>, bool);

/// The call for a key that is under way, and who is told by the next one. Arrivals may overtake each other on their way
/// here; their epochs tell which is newer.
struct Calls {
    told: Arrival,
    next: Option<Arrival>,
}

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
    key: AgentKey,
    over: bool,
}

impl Hooks {
    /// Has `arrival` follow a call that is under way, or gives what makes the first.
    fn begin(self: &Arc<Self>, arrival: Arrival) -> Option<Turns> {
        let key = arrival.0.key.clone();
        let mut keys = self.lock();
        if let Some(calls) = keys.get_mut(&key) {
            calls.add(arrival);
            return None;
        }
        keys.insert(key.clone(), Calls { told: arrival, next: None });
        Some(Turns { hooks: Arc::clone(self), key, over: false })
    }

    async fn call(&self, arrived: Arrived) {
        let key = arrived.key().clone();
        if let Err(failed) = callback::ask_within(TIMEOUT, async { (self.hook)(arrived).await }).await {
            tracing::error!(%key, "the hook on connect {failed}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AgentKey, Calls>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    /// Has this arrival be told next, or what is newer than it.
    fn add(&mut self, arrival: Arrival) {
        let overtaken = arrival.0.epoch < self.told.0.epoch;
        // Who was told to have resumed what then had just begun is told once more; all else is told already.
        if overtaken && (arrival.1 || !self.told.1) {
            return;
        }
        let arrival = if overtaken { newest(self.told.clone(), arrival) } else { arrival };
        self.next = Some(match self.next.take() {
            Some(next) => newest(next, arrival),
            None => arrival,
        });
    }
}

impl Turns {
    async fn run(mut self) {
        let hooks = Arc::clone(&self.hooks);
        loop {
            let Ok(permit) = hooks.permits.acquire().await else { return };
            let Some(manager) = hooks.manager.upgrade() else { return };
            if let Some((registration, resumed)) = self.take_newest().and_then(|arrival| current(&manager, arrival)) {
                hooks.call(Arrived { registration, resumed, connman: ConnectionManager::from_inner(manager) }).await;
            }
            drop(permit);
            if self.is_over() {
                return;
            }
        }
    }

    /// Who is to be told now.
    fn take_newest(&self) -> Option<Arrival> {
        let mut keys = self.hooks.lock();
        let calls = keys.get_mut(&self.key)?;
        if let Some(next) = calls.next.take() {
            calls.told = newest(calls.told.clone(), next);
        }
        Some(calls.told.clone())
    }

    /// Whether nobody has connected during the last call.
    fn is_over(&mut self) -> bool {
        let mut keys = self.hooks.lock();
        if let Some(calls) = keys.get_mut(&self.key)
            && let Some(next) = calls.next.take()
        {
            calls.told = next;
            return false;
        }
        keys.remove(&self.key);
        self.over = true;
        true
    }
}

/// One arrival in the place of two: who has begun anew, in either, is not just resumed.
fn newest(one: Arrival, other: Arrival) -> Arrival {
    let resumed = one.1 && other.1;
    (if one.0.epoch > other.0.epoch { one.0 } else { other.0 }, resumed)
}

/// An arrival, or who has its key by now, if that is newer. `None`: there is nothing that the newer one is not told by
/// an arrival of its own.
fn current(manager: &Arc<Inner<Tunnel>>, (registration, resumed): Arrival) -> Option<Arrival> {
    let incumbent = manager.with(|state, now| state.registry.incumbent(&registration.key, now));
    match incumbent.filter(|incumbent| incumbent.registration.epoch > registration.epoch) {
        Some(_) if resumed => None,
        Some(incumbent) => Some((incumbent.registration, false)),
        None => Some((registration, resumed)),
    }
}

/// Also when its task went with its runtime, the next agent of the key is told.
impl Drop for Turns {
    fn drop(&mut self) {
        if !self.over {
            self.hooks.lock().remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frame::{InstanceId, SessionId},
        key::Epoch,
    };

    type Told = Arc<Mutex<Vec<(u64, bool)>>>;

    /// A manager, its hook, which waits for a permit at the end of each call, and what that was told.
    fn hook() -> (Arc<Inner<Tunnel>>, OnConnect, Told, Arc<Semaphore>) {
        let (told, done) = (Told::default(), Arc::new(Semaphore::new(0)));
        let (tells, ends) = (Arc::clone(&told), Arc::clone(&done));
        let hook = hooked(move |agent: Arrived| {
            tells.lock().unwrap().push((agent.registration().epoch.number(), agent.is_resumed()));
            let ends = Arc::clone(&ends);
            async move { ends.acquire().await.unwrap().forget() }
        });
        let manager = Arc::new(Inner::new(ConnectionManager::builder().settings()));
        let hook = hook(Arc::downgrade(&manager));
        (manager, hook, told, done)
    }

    fn registration(epoch: u64) -> Arc<Registration> {
        let instance = InstanceId::new([7; 16]);
        Arc::new(Registration::new("desk".parse().unwrap(), "helix".into(), Epoch::new(epoch), instance))
    }

    fn connected(epoch: u64) -> TunnelEvent {
        TunnelEvent::Connected { registration: registration(epoch) }
    }

    fn resumed(epoch: u64) -> TunnelEvent {
        TunnelEvent::Resumed { registration: registration(epoch), after: None }
    }

    /// What is told of these events, the first of which is told before the others come.
    async fn told_of(events: &[TunnelEvent]) -> Vec<(u64, bool)> {
        let (_manager, hook, told, done) = hook();
        for event in events {
            hook.on_event(event);
            settle().await;
        }
        done.add_permits(10);
        settle().await;
        assert!(hook.0.lock().is_empty());
        std::mem::take(&mut *told.lock().unwrap())
    }

    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn arrivals_that_overtake_each_other_are_told_in_their_order_and_the_newest_last() {
        assert_eq!(told_of(&[connected(2), connected(1)]).await, [(2, false)], "while the newer is told");
        assert_eq!(told_of(&[connected(1), connected(3), connected(2)]).await, [(1, false), (3, false)]);
        assert_eq!(told_of(&[connected(1), connected(2), connected(3)]).await, [(1, false), (3, false)]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_resumed_what_is_told_to_have_begun_only_then_is_told_as_one_that_has_begun() {
        assert_eq!(told_of(&[resumed(2), connected(1)]).await, [(2, true), (2, false)]);
        assert_eq!(told_of(&[connected(1), resumed(3), connected(2)]).await, [(1, false), (3, false)]);
        assert_eq!(told_of(&[resumed(2), resumed(1)]).await, [(2, true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_arrival_that_comes_when_a_newer_one_was_told_long_ago_is_told_as_that() {
        let (manager, hook, told, done) = hook();
        done.add_permits(10);
        let dialers = Arc::default();
        let tunnel =
            crate::dialback::DialbackTunnel::new(&dialers, "desk".parse().unwrap(), "helix".to_owned(), Epoch::new(2));
        manager.with(|state, now| {
            let (new, tunnel) = (registration(2), Tunnel::Dialback(tunnel));
            state.registry.register(&new, SessionId::NEW, tunnel, None, now).unwrap();
        });
        hook.on_event(&connected(2));
        settle().await;
        for late in [connected(1), resumed(1)] {
            hook.on_event(&late);
            settle().await;
        }
        assert_eq!(*told.lock().unwrap(), [(2, false), (2, false)]);
    }
}

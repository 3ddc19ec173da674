//! Leases, dials and the expiry task over tunnels that are doubles, on a paused clock.

mod dials;
mod displaced;
mod fake;
mod losses;

use std::sync::{
    Mutex, OnceLock, Weak,
    atomic::{AtomicUsize, Ordering},
};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio::time::{Instant, advance, timeout};

use super::*;
use crate::{
    connman::{
        dial::Dialing,
        event::TunnelEvent,
        policy::{Absent, Displace, FixedGrace, Grace, GracePolicy, LinkLoss, NoGrace},
        registry::{Absence, Ask, DialStep},
    },
    error::ErrorKind,
    frame::InstanceId,
    link::Protocol,
    proto::SessionEnd,
};

use fake::Fake;

const MS: Duration = Duration::from_millis(1);
const GRACE: Duration = Duration::from_secs(30);

type Seen = Arc<Mutex<Vec<TunnelEvent>>>;

/// A manager over doubles, and what its observer saw.
fn manager(configure: impl FnOnce(ConnectionManagerBuilder) -> ConnectionManagerBuilder) -> (Arc<Inner<Fake>>, Seen) {
    let seen = Seen::default();
    let events = Arc::clone(&seen);
    let observer = move |event: &TunnelEvent| events.lock().unwrap().push(event.clone());
    (
        Arc::new(Inner::new(
            configure(ConnectionManager::builder().replace_drain(Duration::ZERO).observer(observer)).settings(),
        )),
        seen,
    )
}

fn default_manager() -> (Arc<Inner<Fake>>, Seen) {
    manager(|builder| builder)
}

fn key() -> AgentKey {
    "desk".parse().unwrap()
}

fn registration(inner: &Arc<Inner<Fake>>, instance: u8) -> Registration {
    Registration::new(key(), "helix".into(), inner.next_epoch(), InstanceId::new([instance; 16]))
}

/// An agent connects with this tunnel and a session of its own.
fn register(
    inner: &Arc<Inner<Fake>>,
    registration: Registration,
    tunnel: Fake,
) -> Result<Lease<Fake>, RegisterRefusal> {
    let (key, epoch) = (registration.key.clone(), registration.epoch);
    let offer = Offer { session: SessionId::NEW, attempt: 1, has: 0 };
    inner.attach(registration, offer, || (session(epoch), tunnel, ()))?;
    Ok(Lease::new(inner, key, epoch))
}

/// The session that begins with this epoch.
fn session(epoch: Epoch) -> SessionId {
    SessionId::new(u128::from(epoch.number()).to_be_bytes())
}

/// The agent of run `instance` connects with this tunnel.
fn connect(inner: &Arc<Inner<Fake>>, instance: u8, tunnel: &Fake) -> Lease<Fake> {
    register(inner, registration(inner, instance), tunnel.clone()).unwrap()
}

fn dial(inner: &Arc<Inner<Fake>>) -> Dialing<Fake> {
    Dialing::new(inner, &key(), &TargetName::default())
}

fn spawn_dial(inner: &Arc<Inner<Fake>>) -> tokio::task::JoinHandle<Result<u32, ErrorKind>> {
    let dial = dial(inner);
    tokio::spawn(async move { dial.await.map_err(|error| error.kind()) })
}

/// Lets every task run that can.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

async fn kind_of(dial: Dialing<Fake>) -> Option<ErrorKind> {
    dial.await.err().map(|error| error.kind())
}

fn names(seen: &Seen) -> Vec<&'static str> {
    seen.lock().unwrap().iter().map(TunnelEvent::name).collect()
}

#[test]
fn a_dial_and_a_manager_go_where_clients_and_servers_need_them() {
    fn is<T: Unpin + Send + 'static>() {}
    fn shared<T: Clone + Send + Sync + 'static>() {}
    is::<Dial>();
    shared::<ConnectionManager>();
    // Outside a runtime.
    let connman = ConnectionManager::new();
    assert_eq!((connman.stats(), connman.epoch(&key())), (Stats::default(), None));
    assert!(!connman.disconnect(&key()));
    drop(connman.dial(&key(), &TargetName::default()).timeout(MS).early_data(true));
}

#[tokio::test(start_paused = true)]
async fn tunnels_have_a_limit() {
    let (inner, seen) = manager(|builder| builder.max_tunnels(1));
    let _lease = connect(&inner, 1, &Fake::new(1));
    let other = Registration { key: "other".parse().unwrap(), ..registration(&inner, 2) };
    assert_eq!(register(&inner, other, Fake::new(2)).unwrap_err(), RegisterRefusal::Overloaded);
    assert_eq!(names(&seen), ["connected", "refused"]);
    let _newer = connect(&inner, 1, &Fake::new(3));
}

#[tokio::test(start_paused = true)]
async fn b86_policies_and_observers_run_outside_the_lock_and_may_panic() {
    struct Bomb;
    impl GracePolicy for Bomb {
        fn grace(&self, _: &LinkLoss<'_>) -> Grace {
            panic!("grace")
        }
        fn max_hold(&self) -> Duration {
            panic!("max_hold")
        }
        fn waiting_limit(&self, _: &AgentKey) -> usize {
            panic!("waiting_limit")
        }
        fn absent(&self, _: &AgentKey) -> Absent {
            panic!("absent")
        }
        fn displace(&self, _: &Registration, _: &Registration) -> Displace {
            panic!("displace")
        }
    }
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _here = ::metrics::set_default_local_recorder(&recorder);

    let slot: Arc<OnceLock<Weak<Inner<Fake>>>> = Arc::default();
    let looks = Arc::new(AtomicUsize::new(0));
    let (from, looked) = (Arc::clone(&slot), Arc::clone(&looks));
    let looking = move |_: &TunnelEvent| {
        looked.fetch_add(list::list(&from.get().and_then(Weak::upgrade).unwrap()).len(), Ordering::Relaxed);
    };
    let (inner, _) =
        manager(|builder| builder.grace(Bomb).observer(|_: &TunnelEvent| panic!("observer")).observer(looking));
    slot.set(Arc::downgrade(&inner)).unwrap();

    let first = Fake::new(1);
    assert_eq!(kind_of(dial(&inner)).await, Some(ErrorKind::NoConnection));
    let lease = connect(&inner, 1, &first);
    let refused = register(&inner, registration(&inner, 2), Fake::new(2));
    assert_eq!(
        (refused.unwrap_err(), first.closed_with()),
        (RegisterRefusal::InUse, None),
        "the old one keeps the key"
    );
    lease.lost(LinkEnd::Lost);
    assert_eq!(spawn_dial(&inner).await.unwrap(), Err(ErrorKind::ReconnectTimeout));
    assert_eq!(looks.load(Ordering::Relaxed), 3, "it saw one key at each event but the last");

    let counted = snapshotter.snapshot().into_vec().into_iter().find_map(|(key, _, _, value)| match value {
        DebugValue::Counter(n) if key.key().name() == "revdial_callback_failures_total" => Some(n),
        _ => None,
    });
    // max_hold, absent and waiting_limit (twice), displace, grace; the observer at four events.
    assert_eq!(counted, Some(10));
}

#[tokio::test(start_paused = true)]
async fn c10_disconnect_takes_the_key_away_at_once() {
    let (inner, seen) = default_manager();
    let tunnel = Fake::new(1);
    let lease = connect(&inner, 1, &tunnel);
    let disconnect = |inner: &Arc<Inner<Fake>>| {
        inner.with(|state, now| state.registry.close(&key(), CloseCode::CREDENTIALS, &Refusal::NoConnection, now))
    };
    assert!(disconnect(&inner));
    assert_eq!((tunnel.closed_with(), tunnel.ended()), (Some(CloseCode::CREDENTIALS), Some(SessionEnd::Revoked)));
    lease.lost(LinkEnd::Local(CloseCode::CREDENTIALS));
    assert_eq!(names(&seen), ["connected", "lost"]);
    assert_eq!(list::stats(&inner), Stats::default());
    assert!(!disconnect(&inner));
    connect(&inner, 1, &Fake::new(2)).lost(LinkEnd::Lost);
    let waiting = spawn_dial(&inner);
    settle().await;
    assert!(disconnect(&inner));
    assert_eq!(waiting.await.unwrap(), Err(ErrorKind::NoConnection));
}

#[tokio::test(start_paused = true)]
async fn after_the_shutdown_nothing_is_taken() {
    let (inner, _) = default_manager();
    let tunnel = Fake::new(1);
    let _lease = connect(&inner, 1, &tunnel);
    inner.with(|state, now| state.registry.shut_down(CloseCode::RESTART, now));
    assert_eq!((tunnel.closed_with(), tunnel.ended()), (Some(CloseCode::RESTART), Some(SessionEnd::Shutdown)));
    let error = dial(&inner).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::Shutdown, true), "nothing was sent");
    let refused = register(&inner, registration(&inner, 1), Fake::new(2));
    assert_eq!(refused.unwrap_err(), RegisterRefusal::ShuttingDown);
}

#[tokio::test(start_paused = true)]
async fn lists_tell_what_is_there() {
    let (inner, _) = default_manager();
    let peer_addr = Some(([192, 0, 2, 1], 7).into());
    let labels = vec![("room".to_owned(), "3".to_owned())];
    let desk = Registration { peer_addr, labels: labels.clone(), ..registration(&inner, 1) };
    let _desk = register(&inner, desk, Fake::new(1)).unwrap();
    let away = Registration { key: "away".parse().unwrap(), ..registration(&inner, 2) };
    register(&inner, away, Fake::new(2)).unwrap().lost(LinkEnd::Dead);
    advance(Duration::from_secs(10)).await;
    let agents = list::list(&inner);
    let [away, desk] = &agents[..] else { panic!("{agents:?}") };
    assert_eq!((away.state, away.last_cause, away.streams), (KeyState::Grace, Some(LossCause::Dead), 2));
    assert_eq!((away.since, away.grace_left), (Duration::from_secs(10), Some(Duration::from_secs(20))));
    assert_eq!((desk.state, desk.grace_left, desk.last_cause), (KeyState::Connected, None, None));
    assert_eq!((desk.streams, desk.sent_bytes, desk.received_bytes, desk.peer_addr), (2, 10, 100, peer_addr));
    assert_eq!((&desk.labels, desk.reconnects, desk.protocol), (&labels, 0, Protocol::Native));
    let stats = list::stats(&inner);
    assert_eq!((stats.active_connections, stats.grace_period_entries, stats.sent_bytes), (1, 1, 20));
}

#[tokio::test(start_paused = true)]
async fn gauges_go_back_to_where_they_were() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _here = ::metrics::set_default_local_recorder(&recorder);
    // A snapshot sets the values back to zero: this tells by how much each gauge moved.
    let moved = || {
        let mut moved = [0.0; 3];
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            let gauge = match key.key().name() {
                "revdial_active_connections" => 0,
                "revdial_reconnection_grace_period_entries" => 1,
                "revdial_pending_dials_current" => 2,
                _ => continue,
            };
            if let DebugValue::Gauge(change) = value {
                moved[gauge] = change.into_inner();
            }
        }
        moved
    };
    let (inner, _) = default_manager();
    connect(&inner, 1, &Fake::new(1)).lost(LinkEnd::Lost);
    let waiting = spawn_dial(&inner);
    settle().await;
    assert_eq!(moved(), [0.0, 1.0, 1.0]);
    let lease = connect(&inner, 1, &Fake::new(2));
    assert_eq!(waiting.await.unwrap(), Ok(2));
    assert_eq!(moved(), [1.0, -1.0, -1.0]);
    lease.lost(LinkEnd::Lost);
    assert_eq!(moved(), [-1.0, 1.0, 0.0]);
    drop(inner);
    assert_eq!(moved(), [0.0, -1.0, 0.0]);
}

#[tokio::test(start_paused = true)]
async fn b84_a_drain_is_not_over_by_a_late_word_about_sessions_that_left_before_it() {
    let (inner, _) = default_manager();
    let lease = connect(&inner, 1, &Fake::new(1));
    inner.with(|state, now| state.registry.drain(CloseCode::RESTART, now + Duration::from_secs(60), now));
    let waits = Arc::clone(&inner);
    let drained = tokio::spawn(async move { waits.all_left().await });
    settle().await;
    // As by a task that was held up between the lock and the word, with an older session's end.
    inner.left.notify_waiters();
    settle().await;
    assert!(!drained.is_finished(), "its own session has not left");
    inner.with(|state, now| state.registry.close(&key(), CloseCode::RESTART, &Refusal::ShuttingDown, now));
    timeout(MS, drained).await.unwrap().unwrap();
    drop(lease);
}

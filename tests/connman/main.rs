//! What dials and streams meet when agents are taken over, lost, back, sent away or late: server and agent together.
#![cfg(all(feature = "server", feature = "agent"))]

#[path = "../support/counted.rs"]
mod counted;
#[path = "../support/net.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod net;

#[cfg(feature = "proxy")]
mod calls;
mod deciding;
mod edges;
mod gone;
mod greeting;
mod revoking;
#[path = "../support/told.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod told;
mod waiting;
mod waking;
mod watching;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use counted::Counted;
use net::{Net, TOKEN};
use revdial::{
    AgentKey, Error, ErrorKind, TargetName, TunnelStream,
    agent::{Agent, AgentBuilder, AgentStatus, Backoff, Listener},
    connman::{ConnectionManager, Stats, TunnelEvent},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    task::JoinHandle,
    time::Instant,
};

/// The names of events, and when they came.
type Events = Mutex<Vec<(&'static str, Instant)>>;
type Dialled = JoinHandle<Result<TunnelStream, Error>>;

fn key() -> AgentKey {
    "a".parse().unwrap()
}

/// A manager, and what it tells its observer.
fn manager() -> (ConnectionManager, Arc<Events>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let events = Arc::clone(&seen);
    let observer = move |event: &TunnelEvent| events.lock().unwrap().push((event.name(), Instant::now()));
    (ConnectionManager::builder().observer(observer).build(), seen)
}

fn names(events: &Events) -> Vec<&'static str> {
    events.lock().unwrap().iter().map(|(name, _)| *name).collect()
}

fn dial(connman: &ConnectionManager) -> Dialled {
    tokio::spawn(connman.dial(&key(), &TargetName::default()))
}

/// Waits until it is so, for a minute at most, and lets time pass only if nothing else happens.
async fn until(what: &str, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        if !so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Waits until so many dials wait.
async fn waiting(connman: &ConnectionManager, dials: usize) {
    while connman.stats().pending_dials_total != dials {
        tokio::task::yield_now().await;
    }
}

/// Waits until the agent's link is known to be lost.
async fn in_grace(connman: &ConnectionManager) {
    while connman.stats().grace_period_entries == 0 {
        tokio::task::yield_now().await;
    }
}

/// An agent that tries often enough to be back within any grace.
fn prompt(key: &str) -> AgentBuilder {
    let backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
    Agent::builder("http://gateway", key).token(TOKEN).backoff(backoff)
}

/// A connected agent `a` that keeps what it accepts, in its order.
struct Running {
    status: watch::Receiver<AgentStatus>,
    run: JoinHandle<Result<(), Error>>,
    accepted: Arc<Mutex<Vec<TunnelStream>>>,
}

impl Running {
    async fn on(net: &Net) -> Self {
        Self::of(net.build(prompt("a"))).await
    }

    async fn of(agent: Agent) -> Self {
        let status = agent.status();
        let (mut listener, run): (Listener, _) = agent.listen();
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Some(stream) = listener.accept().await {
                kept.lock().unwrap().push(stream);
            }
        });
        let mut running = Self { status, run: tokio::spawn(run), accepted };
        running.connected().await;
        running
    }

    async fn connected(&mut self) {
        self.status.wait_for(AgentStatus::is_connected).await.unwrap();
    }

    /// The first byte of each stream that it accepted.
    async fn first_bytes(&self) -> Vec<u8> {
        let accepted = std::mem::take(&mut *self.accepted.lock().unwrap());
        let mut bytes = Vec::new();
        for mut stream in accepted {
            bytes.push(stream.read_u8().await.unwrap());
        }
        bytes
    }
}

/// How a stream ends that waits for bytes.
async fn end(stream: &mut TunnelStream) -> ErrorKind {
    let error = stream.read_u8().await.unwrap_err();
    Error::find(&error).unwrap().kind()
}

#[tokio::test(start_paused = true)]
async fn b10_a_second_agent_has_the_key_at_once_and_what_runs_at_the_first_may_finish_in_its_time() {
    let (connman, events) = manager();
    let net = Net::to(&connman);
    let first = Running::on(&net).await;
    let (mut running, mut endless) = (dial(&connman).await.unwrap().unwrap(), dial(&connman).await.unwrap().unwrap());
    let start = Instant::now();
    let second = Running::on(&net).await;
    let mut stream = dial(&connman).await.unwrap().unwrap();
    AsyncWriteExt::write_all(&mut stream, b"x").await.unwrap();
    assert_eq!(second.first_bytes().await, b"x");
    assert_eq!(start.elapsed(), Duration::ZERO);

    tokio::time::sleep(Duration::from_secs(4)).await;
    AsyncWriteExt::write_all(&mut running, b"y").await.unwrap();
    let mut accepted = first.accepted.lock().unwrap().remove(0);
    assert_eq!(accepted.read_u8().await.unwrap(), b'y');
    assert_eq!(end(&mut endless).await, ErrorKind::Replaced);
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert_eq!(first.run.await.unwrap().unwrap_err().kind(), ErrorKind::Replaced);
    assert_eq!(first.accepted.lock().unwrap().len(), 1, "and the third dial was not for the first agent");
    assert_eq!(names(&events), ["connected", "replaced", "connected"]);
    // The end of the old link's task touches nothing of the new one.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(second.status.borrow().is_connected());
    assert_eq!(connman.stats().active_connections, 1);
}

#[tokio::test(start_paused = true)]
async fn b10_a_replaced_agent_ends_as_soon_as_nothing_runs_there() {
    let (connman, _) = manager();
    let net = Net::to(&connman);
    let first = Running::on(&net).await;
    let stream = dial(&connman).await.unwrap().unwrap();
    let start = Instant::now();
    let _second = Running::on(&net).await;
    assert_eq!(connman.stats().draining_sessions, 1);
    drop(stream);
    first.accepted.lock().unwrap().clear();
    assert_eq!(first.run.await.unwrap().unwrap_err().kind(), ErrorKind::Replaced);
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
    assert_eq!(connman.stats().draining_sessions, 0);
}

#[tokio::test(start_paused = true)]
async fn b49_b64_streams_survive_and_dials_wait_in_order_for_a_lost_agent() {
    let (connman, events) = manager();
    let net = Net::to(&connman);
    let mut agent = Running::on(&net).await;
    let mut stream = dial(&connman).await.unwrap().unwrap();
    net.down(true);
    net.cut();
    AsyncWriteExt::write_all(&mut stream, b"s").await.unwrap();
    in_grace(&connman).await;
    let mut dials = Vec::new();
    for nth in 0..10 {
        dials.push(dial(&connman));
        waiting(&connman, nth + 1).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(dials.iter().all(|dial| !dial.is_finished()));
    net.down(false);
    agent.connected().await;
    for (nth, dial) in dials.into_iter().enumerate() {
        let mut stream = dial.await.unwrap().unwrap();
        AsyncWriteExt::write_all(&mut stream, &[nth as u8]).await.unwrap();
    }
    let in_order = std::iter::once(b's').chain(0..10);
    assert_eq!(agent.first_bytes().await, Vec::from_iter(in_order));
    assert_eq!(connman.stats().pending_dials_total, 0);
    assert_eq!(names(&events), ["connected", "lost", "resumed"]);
}

#[tokio::test(start_paused = true)]
async fn b70_sessions_in_grace_that_hold_too_much_are_given_up_and_their_keys_waited_for() {
    let counted = Counted::new();
    let connman = ConnectionManager::builder().grace_memory(100 * 1024).build();
    let net = Net::to(&connman);
    let mut agent = Running::on(&net).await;
    let (mut one, mut other) = (dial(&connman).await.unwrap().unwrap(), dial(&connman).await.unwrap().unwrap());
    net.down(true);
    net.cut();
    in_grace(&connman).await;
    AsyncWriteExt::write_all(&mut one, &[7; 60 * 1024]).await.unwrap();
    AsyncWriteExt::write_all(&mut other, &[7; 30 * 1024]).await.unwrap();
    assert_eq!((connman.list_grace().len(), connman.stats().streams), (1, 2), "it holds no more than it may");
    AsyncWriteExt::write_all(&mut other, &[7; 20 * 1024]).await.unwrap();
    let waits = dial(&connman);
    for stream in [&mut one, &mut other] {
        assert_eq!(end(stream).await, ErrorKind::SessionLost);
    }
    waiting(&connman, 1).await;
    assert_eq!((connman.list_grace().len(), connman.stats().streams), (1, 0));
    assert_eq!(counted.sum("revdial_budget_refused_total{evict}"), 1);
    agent.accepted.lock().unwrap().clear();
    net.down(false);
    agent.connected().await;
    let mut stream = waits.await.unwrap().unwrap();
    AsyncWriteExt::write_all(&mut stream, b"x").await.unwrap();
    assert_eq!(agent.first_bytes().await, b"x");
}

#[tokio::test(start_paused = true)]
async fn b64_a_grace_ends_exactly_and_whoever_waits_is_told() {
    let (connman, events) = manager();
    let net = Net::to(&connman);
    let agent = Running::on(&net).await;
    agent.run.abort();
    in_grace(&connman).await;
    let lost = Instant::now();
    let first = dial(&connman);
    tokio::time::sleep(Duration::from_millis(29_999)).await;
    let last = dial(&connman);
    waiting(&connman, 2).await;
    for dial in [first, last] {
        let error = dial.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::ReconnectTimeout, true));
        assert_eq!(lost.elapsed(), Duration::from_secs(30));
    }
    assert_eq!(dial(&connman).await.unwrap().unwrap_err().kind(), ErrorKind::NoConnection);
    assert_eq!(lost.elapsed(), Duration::from_secs(30), "a key that is gone is told at once");
    assert_eq!(connman.stats(), Stats::default());
    assert_eq!(events.lock().unwrap().last(), Some(&("expired", lost + Duration::from_secs(30))));
}

#[tokio::test(start_paused = true)]
async fn b68_a_restarted_agent_has_its_key_at_once_and_not_after_the_grace() {
    let counted = Counted::new();
    let (connman, events) = manager();
    let net = Net::to(&connman);
    let killed = Running::on(&net).await;
    let mut stream = dial(&connman).await.unwrap().unwrap();
    let start = Instant::now();
    killed.run.abort();
    let _ = killed.run.await;
    in_grace(&connman).await;
    let restarted = Running::on(&net).await;
    assert_eq!(end(&mut stream).await, ErrorKind::Replaced);
    let mut stream = dial(&connman).await.unwrap().unwrap();
    AsyncWriteExt::write_all(&mut stream, b"x").await.unwrap();
    assert_eq!(restarted.first_bytes().await, b"x");
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!names(&events).contains(&"expired"), "{:?}", names(&events));
    assert_eq!(counted.sum("revdial_key_conflicts_total{replaced}"), 1);
    assert_eq!(connman.stats().active_connections, 1);
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_fails_streams_at_once_and_the_agent_comes_back_slowly() {
    let (connman, events) = manager();
    let net = Net::to(&connman);
    let mut agent = Running::on(&net).await;
    let mut stream = dial(&connman).await.unwrap().unwrap();
    let start = Instant::now();
    assert!(connman.disconnect(&key()));
    assert_eq!(end(&mut stream).await, ErrorKind::SessionLost);
    assert_eq!(dial(&connman).await.unwrap().unwrap_err().kind(), ErrorKind::NoConnection);
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(!connman.disconnect(&key()), "it is gone");
    let refused = agent.status.wait_for(|status| matches!(status, AgentStatus::Refused { .. })).await.unwrap().clone();
    let AgentStatus::Refused { until, cause, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(cause, ErrorKind::Auth);
    agent.connected().await;
    assert!(Instant::now() >= until && until > start, "not before its time");
    dial(&connman).await.unwrap().unwrap();
    assert_eq!(names(&events), ["connected", "lost", "connected"]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_all_and_takes_nothing_more() {
    let (connman, _) = manager();
    let net = Net::to(&connman);
    let mut agent = Running::on(&net).await;
    let mut stream = dial(&connman).await.unwrap().unwrap();
    let start = Instant::now();
    connman.shutdown();
    assert_eq!(end(&mut stream).await, ErrorKind::Shutdown);
    let error = dial(&connman).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::Shutdown, true), "nothing was sent");
    assert_eq!((start.elapsed(), connman.stats()), (Duration::ZERO, Stats::default()));
    // The agent tries on, for another server behind the same name.
    for _ in 0..3 {
        agent.status.wait_for(|status| matches!(status, AgentStatus::Waiting { .. })).await.unwrap();
        agent.status.changed().await.unwrap();
    }
    assert_eq!(connman.stats(), Stats::default());
    assert!(!agent.run.is_finished());

    let (connman, _) = manager();
    let net = Net::to(&connman);
    Running::on(&net).await.run.abort();
    in_grace(&connman).await;
    let dialled = dial(&connman);
    waiting(&connman, 1).await;
    connman.shutdown();
    assert_eq!(dialled.await.unwrap().unwrap_err().kind(), ErrorKind::Shutdown, "also of those that wait");
}

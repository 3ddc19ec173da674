//! Absent keys whose agents are started: once, for all who dial, in bounded time.

use std::{
    error::Error as _,
    future::pending,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use revdial::{
    AgentKey, Error, ErrorKind, TargetName, TunnelStream,
    agent::Agent,
    connman::{Absent, ConnectionManager, ConnectionManagerBuilder, Stats, Wake},
};
use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    Running,
    counted::Counted,
    dial, key,
    net::{Net, TOKEN},
    waiting,
};

const SECOND: Duration = Duration::from_secs(1);

/// Sandboxes that are started, and how often.
#[derive(Clone, Default)]
struct Fleet {
    net: Arc<OnceLock<Net>>,
    starts: Arc<AtomicUsize>,
    running: Arc<Mutex<Vec<Running>>>,
}

impl Fleet {
    /// A manager whose absent agents this fleet starts, in so much time each.
    fn new(took: Duration) -> (Self, ConnectionManager) {
        let fleet = Self::default();
        let starts = fleet.clone();
        let connman = ConnectionManager::builder()
            .wake(move |key| {
                let fleet = starts.clone();
                async move {
                    fleet.starts.fetch_add(1, Ordering::Relaxed);
                    sleep(took).await;
                    fleet.start(&key).await;
                    Ok::<_, Error>(())
                }
            })
            .build();
        let _ = fleet.net.set(Net::to(&connman));
        (fleet, connman)
    }

    async fn start(&self, key: &AgentKey) {
        let agent = Agent::builder("http://gateway", key.as_str()).token(TOKEN);
        let running = Running::of(self.net.get().unwrap().build(agent)).await;
        self.running.lock().unwrap().push(running);
    }

    fn starts(&self) -> usize {
        self.starts.load(Ordering::Relaxed)
    }
}

/// A manager that starts agents by this, within 20 s.
fn starting<S, E>(start: impl Fn() -> S + Clone + Send + Sync + 'static) -> (ConnectionManager, Arc<AtomicUsize>)
where
    S: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    let starts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&starts);
    let builder = ConnectionManager::builder().absent(move |_: &AgentKey| {
        let (start, counted) = (start.clone(), Arc::clone(&counted));
        Absent::Wake(
            Wake::new(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                start()
            })
            .within(20 * SECOND),
        )
    });
    (builder.build(), starts)
}

async fn fails(dialled: JoinHandle<Result<TunnelStream, Error>>) -> Error {
    dialled.await.unwrap().expect_err("an error")
}

#[tokio::test(start_paused = true)]
async fn s3_a_stopped_sandbox_is_started_once_for_all_who_dial_it_meanwhile() {
    let (fleet, connman) = Fleet::new(5 * SECOND);
    let start = Instant::now();
    let mut dials: Vec<_> = (0..10).map(|_| dial(&connman)).collect();
    waiting(&connman, 10).await;
    assert_eq!((connman.stats().waking_keys, fleet.starts()), (1, 1));
    sleep(4 * SECOND).await;
    dials.extend((0..10).map(|_| dial(&connman)));
    waiting(&connman, 20).await;
    for dial in dials {
        drop(dial.await.unwrap().unwrap());
    }
    assert_eq!((start.elapsed(), fleet.starts()), (5 * SECOND, 1));
    dial(&connman).await.unwrap().unwrap();
    assert_eq!((connman.stats().waking_keys, fleet.starts()), (0, 1), "it is there");
}

#[tokio::test(start_paused = true)]
async fn each_key_is_started_for_itself() {
    let (fleet, connman) = Fleet::new(5 * SECOND);
    let other: AgentKey = "b".parse().unwrap();
    let both = tokio::join!(
        connman.dial(&key(), &TargetName::default()),
        connman.dial(&other, &TargetName::default()),
        connman.wait_for(&other),
    );
    assert!(matches!(both, (Ok(_), Ok(_), Ok(()))), "{both:?}");
    assert_eq!(fleet.starts(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_agent_is_waited_for_that_its_start_left_on_the_way_and_not_started_again() {
    let (connman, starts) = starting(|| async { Ok::<_, Error>(()) });
    let net = Net::to(&connman);
    let first = dial(&connman);
    waiting(&connman, 1).await;
    sleep(10 * SECOND).await;
    let second = dial(&connman);
    waiting(&connman, 2).await;
    let _agent = Running::on(&net).await;
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert!(first.is_ok() && second.is_ok(), "{first:?}, {second:?}");
    assert_eq!((starts.load(Ordering::Relaxed), connman.stats().waking_keys), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_come_after_its_start_is_absent_at_the_end_of_its_time() {
    let (connman, starts) = starting(|| async { Ok::<_, Error>(()) });
    let start = Instant::now();
    let first = dial(&connman);
    sleep(15 * SECOND).await;
    let second = dial(&connman);
    for dialled in [first, second] {
        let error = fails(dialled).await;
        assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::NoConnection, true));
        assert_eq!(start.elapsed(), 20 * SECOND, "the time of the start is that of all who wait for it");
    }
    assert_eq!(connman.stats(), Stats::default());
    let again = dial(&connman);
    waiting(&connman, 1).await;
    assert_eq!(starts.load(Ordering::Relaxed), 2);
    again.abort();
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_is_told_to_all_at_once_in_its_words_and_the_next_dial_makes_another() {
    let (connman, starts) = starting(|| async {
        sleep(SECOND).await;
        Err("no machine is free")
    });
    for nth in 1..=2 {
        let start = Instant::now();
        for dialled in [dial(&connman), dial(&connman)] {
            let error = fails(dialled).await;
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::NoConnection, "no connection".to_owned()));
            assert_eq!(error.source().unwrap().to_string(), "no machine is free");
            assert!(error.is_retry_safe());
        }
        assert_eq!((start.elapsed(), starts.load(Ordering::Relaxed)), (SECOND, nth));
    }
    assert_eq!(connman.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn b86_a_start_that_panics_or_hangs_fails_its_dials_in_time_and_nobody_elses() {
    let counted = Counted::new();
    let at_once: fn() -> _ = || -> std::future::Pending<Result<(), Error>> { panic!("at once") };
    let (panics, _) = starting(at_once);
    let (panics_later, _) = starting(|| async {
        sleep(SECOND).await;
        if true {
            panic!("later")
        }
        Ok::<_, Error>(())
    });
    let (hangs, _) = starting(pending::<Result<(), Error>>);
    // One that panics at once does so before a second dial could join it.
    for (nth, (connman, dials, after)) in [(panics, 1, 0), (panics_later, 2, 1), (hangs, 2, 20)].into_iter().enumerate()
    {
        let net = Net::to(&connman);
        let _other = Running::of(net.build(Agent::builder("http://gateway", "b").token(TOKEN))).await;
        for round in 1..=2 {
            let start = Instant::now();
            let dials: Vec<_> = (0..dials).map(|_| dial(&connman)).collect();
            connman.dial(&"b".parse().unwrap(), &TargetName::default()).await.unwrap();
            for dialled in dials {
                let error = fails(dialled).await;
                assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::Internal, true));
            }
            assert_eq!(start.elapsed(), after * SECOND);
            assert_eq!(counted.sum("revdial_callback_failures_total"), nth as u64 * 2 + round);
        }
        assert_eq!(connman.stats().waking_keys, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_goes_on_without_its_dials_and_leaves_nothing_behind() {
    let (connman, starts) = starting(|| async {
        sleep(10 * SECOND).await;
        Err("too late")
    });
    let tasks = Handle::current().metrics().num_alive_tasks();
    let dial_for = |time| timeout(time, connman.dial(&"a".parse().unwrap(), &TargetName::default()));
    dial_for(SECOND).await.unwrap_err();
    assert_eq!((connman.stats().pending_dials_total, connman.stats().waking_keys), (0, 1));
    dial_for(SECOND).await.unwrap_err();
    assert_eq!(starts.load(Ordering::Relaxed), 1, "the second has found the first one's start");
    sleep(10 * SECOND).await;
    assert_eq!(connman.stats(), Stats::default());
    assert_eq!(Handle::current().metrics().num_alive_tasks(), tasks);
}

#[tokio::test(start_paused = true)]
async fn a_start_keeps_no_manager_alive() {
    let (connman, _) = starting(pending::<Result<(), Error>>);
    let mut events = connman.subscribe();
    let dialled = dial(&connman);
    waiting(&connman, 1).await;
    dialled.abort();
    let _ = dialled.await;
    drop(connman);
    let start = Instant::now();
    assert_eq!(events.next().await, None);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn as_many_starts_run_at_once_as_dials_may_wait() {
    let builder: ConnectionManagerBuilder = ConnectionManager::builder().max_pending_dials(2);
    let connman = builder.wake(|_| pending::<Result<(), Error>>()).build();
    for name in ["a", "b"] {
        timeout(SECOND, connman.wait_for(&name.parse().unwrap())).await.unwrap_err();
    }
    assert_eq!((connman.stats().waking_keys, connman.stats().pending_dials_total), (2, 0));
    let error = connman.wait_for(&"c".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooManyPendingDials);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_wait_starts_nothing_and_who_waits_for_a_while_does() {
    let (connman, starts) = starting(|| async {
        sleep(5 * SECOND).await;
        Ok::<_, Error>(())
    });
    let dial = |most| connman.dial(&"a".parse().unwrap(), &TargetName::default()).max_wait(most);
    assert_eq!(dial(Duration::ZERO).await.unwrap_err().kind(), ErrorKind::NoConnection);
    assert_eq!((starts.load(Ordering::Relaxed), connman.stats()), (0, Stats::default()));
    let start = Instant::now();
    assert_eq!(dial(2 * SECOND).await.unwrap_err().kind(), ErrorKind::NoConnection);
    assert_eq!((start.elapsed(), starts.load(Ordering::Relaxed)), (2 * SECOND, 1));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_who_waits_for_a_start() {
    let (connman, _) = starting(pending::<Result<(), Error>>);
    let dialled = dial(&connman);
    waiting(&connman, 1).await;
    connman.shutdown();
    assert_eq!(fails(dialled).await.kind(), ErrorKind::Shutdown);
    assert_eq!(connman.stats(), Stats::default());
}

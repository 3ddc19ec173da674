//! How long dials wait, and how many: as the settings say, as the call says, after a start of the server.

use std::{pin::pin, task::Poll, time::Duration};

use futures_util::poll;
use revdial::{
    AgentKey, Error, ErrorKind, TargetName,
    connman::{Absent, ConnectionManager, Stats},
};
use tokio::time::{Instant, sleep};

use crate::{Running, counted::Counted, dial, in_grace, key, net::Net, waiting};

const SECOND: Duration = Duration::from_secs(1);

fn nth_key(n: usize) -> AgentKey {
    format!("desk-{n}x").parse().unwrap()
}

/// A manager whose absent keys are waited for.
fn patient() -> revdial::connman::ConnectionManagerBuilder {
    ConnectionManager::builder().absent(|_: &AgentKey| Absent::Wait(60 * SECOND))
}

#[tokio::test(start_paused = true)]
async fn b64_a_hundred_dials_wait_for_a_key_and_ten_thousand_in_all_and_not_one_more() {
    let connman = patient().build();
    let mut dials = Vec::new();
    let mut wait = |n: usize| {
        let mut dial = Box::pin(connman.dial(&nth_key(n), &TargetName::default()));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let polled = dial.as_mut().poll(&mut cx).map(|result| result.map(drop).map_err(|error| error.kind()));
        if polled.is_pending() {
            dials.push(dial);
        }
        polled
    };
    let full = Poll::Ready(Err(ErrorKind::TooManyPendingDials));
    for n in 0..100 {
        for _ in 0..100 {
            assert!(wait(n).is_pending());
        }
        assert_eq!(wait(n), full, "for a key");
    }
    assert_eq!(wait(100), full, "in all");
    assert_eq!((connman.stats().pending_dials_total, connman.stats().pending_dials_keys), (10_000, 100));
    drop(dials);
    assert_eq!(connman.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn both_limits_are_settings() {
    for connman in [patient().max_pending_dials_per_key(2).build(), patient().max_pending_dials(2).build()] {
        let _waits = [dial(&connman), dial(&connman)];
        waiting(&connman, 2).await;
        assert_eq!(dial(&connman).await.unwrap().unwrap_err().kind(), ErrorKind::TooManyPendingDials);
    }
}

#[tokio::test(start_paused = true)]
async fn b64_a_call_may_wait_for_less_than_the_grace_or_not_at_all() {
    let counted = Counted::new();
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let mut agent = Running::on(&net).await;
    net.down(true);
    net.cut();
    in_grace(&connman).await;
    let dial = |most| connman.dial(&key(), &TargetName::default()).max_wait(most);
    for most in [0, 3] {
        let start = Instant::now();
        let error = dial(most * SECOND).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::ReconnectTimeout, true));
        assert_eq!((start.elapsed(), connman.stats().pending_dials_total), (most * SECOND, 0));
    }
    let start = Instant::now();
    let (there, ()) = tokio::join!(connman.wait_for(&key()).max_wait(3 * SECOND), sleep(SECOND));
    assert_eq!(there.unwrap_err().kind(), ErrorKind::ReconnectTimeout);
    assert_eq!(start.elapsed(), 3 * SECOND);
    let waits = tokio::spawn(dial(60 * SECOND));
    waiting(&connman, 1).await;
    net.down(false);
    agent.connected().await;
    waits.await.unwrap().unwrap();
    dial(Duration::ZERO).await.expect("who is there need not be waited for");
    assert_eq!(counted.sum("revdial_dial_failures_total{reconnect_timeout}"), 2);
    assert_eq!(counted.values("revdial_dial_duration_seconds{error}"), [0.0, 3.0]);
}

#[tokio::test(start_paused = true)]
async fn b64_a_call_does_not_wait_longer_than_the_grace_either() {
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    Running::on(&net).await.run.abort();
    in_grace(&connman).await;
    let start = Instant::now();
    let error = connman.dial(&key(), &TargetName::default()).max_wait(Duration::MAX).await.unwrap_err();
    assert_eq!((error.kind(), start.elapsed()), (ErrorKind::ReconnectTimeout, 30 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn b72_an_absent_key_is_told_at_once_or_after_as_long_as_the_policy_or_the_call_says() {
    let counted = Counted::new();
    for (connman, most, waited) in [
        (ConnectionManager::new(), None, 0),
        (ConnectionManager::new(), Some(5), 0),
        (patient().build(), None, 60),
        (patient().build(), Some(5), 5),
        (patient().build(), Some(0), 0),
        (patient().build(), Some(600), 60),
    ] {
        let start = Instant::now();
        let dial = connman.dial(&key(), &TargetName::default());
        let dial = most.into_iter().fold(dial, |dial, most| dial.max_wait(most * SECOND));
        let error = dial.await.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::NoConnection, "no connection".to_owned()));
        assert!(error.is_retry_safe());
        assert_eq!(start.elapsed(), waited * SECOND, "{most:?}");
    }
    assert_eq!(counted.sum("revdial_dial_failures_total{no_connection}"), 6);
}

#[tokio::test(start_paused = true)]
async fn s2_absent_keys_are_waited_for_after_the_start_of_a_server_and_refused_at_once_later() {
    let connman = ConnectionManager::builder().boot_grace(30 * SECOND).build();
    let net = Net::to(&connman);
    let start = Instant::now();
    let lucky = dial(&connman);
    sleep(10 * SECOND).await;
    let other = tokio::spawn(connman.wait_for(&"b".parse().unwrap()));
    let agent = Running::on(&net).await;
    lucky.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), 10 * SECOND);
    assert_eq!(other.await.unwrap().unwrap_err().kind(), ErrorKind::NoConnection);
    assert_eq!(start.elapsed(), 30 * SECOND);
    agent.run.abort();
    in_grace(&connman).await;
    sleep(31 * SECOND).await;
    let now = Instant::now();
    assert_eq!(dial(&connman).await.unwrap().unwrap_err().kind(), ErrorKind::NoConnection);
    assert_eq!(now.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn s2_at_the_end_of_the_boot_grace_who_waits_goes_by_the_policy_as_all() {
    let builder = ConnectionManager::builder().boot_grace(30 * SECOND);
    let connman = builder.wake(|_| async { Err::<(), _>("no machine") }).build();
    let start = Instant::now();
    let fast = connman.dial(&key(), &TargetName::default()).max_wait(5 * SECOND);
    let (fast, slow) = tokio::join!(fast, dial(&connman));
    assert_eq!(fast.unwrap_err().kind(), ErrorKind::NoConnection);
    let error: Error = slow.unwrap().unwrap_err();
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "no machine");
    assert_eq!(start.elapsed(), 30 * SECOND, "an agent that may come by itself is not started");
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_key_takes_its_place_in_the_queue_and_gives_it_back() {
    let connman = patient().build();
    let net = Net::to(&connman);
    {
        let mut waits = pin!(connman.wait_for(&key()));
        assert!(poll!(waits.as_mut()).is_pending());
        assert_eq!(connman.stats().pending_dials_total, 1);
    }
    assert_eq!(connman.stats(), Stats::default());
    let waits = tokio::spawn(connman.wait_for(&key()));
    waiting(&connman, 1).await;
    let _agent = Running::on(&net).await;
    waits.await.unwrap().unwrap();
    connman.wait_for(&key()).max_wait(Duration::ZERO).await.expect("it is there");
    assert_eq!(connman.stats().streams, 0, "and nothing was opened");
}

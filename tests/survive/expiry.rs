//! What a grace's end, a cancellation within it and a sleep of the machine bring, and that nothing stays behind.

use std::time::Duration;

use futures_util::FutureExt;
use revdial::{
    ErrorKind, TargetName,
    connman::{ConnectionManager, Stats},
    proto::SessionConfig,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    attach::{Scripted, back, welcomed},
    net::{TOKEN, relay::Fault},
    support::{World, builder, end, key, quick, say, talk, until, write_end},
};

const GRACE: Duration = Duration::from_secs(30);

/// How long after the end of a grace its streams may still not know.
const AT_ONCE: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn c4_b63_at_the_end_of_the_grace_every_stream_fails_and_none_ends_cleanly() {
    let world = World::new();
    let mut agent = world.agent().await;
    let (mut idle, mut idle_there) = world.pair(&mut agent).await;
    let (mut full, full_there) = world.pair(&mut agent).await;
    let (mut finished, finished_there) = world.pair(&mut agent).await;
    let (mut unread, mut unread_there) = world.pair(&mut agent).await;
    let (mut whole, mut whole_there) = world.pair(&mut agent).await;
    AsyncWriteExt::shutdown(&mut finished).await.unwrap();
    AsyncWriteExt::write_all(&mut unread_there, b"arrived").await.unwrap();
    AsyncWriteExt::write_all(&mut whole_there, b"whole").await.unwrap();
    AsyncWriteExt::shutdown(&mut whole_there).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    world.pause().await;
    let over = world.when("lost")[0] + GRACE;
    let failing = [
        tokio::spawn(async move { end(&mut idle).await.unwrap() }),
        tokio::spawn(async move { write_end(&mut full).await }),
        tokio::spawn(async move { end(&mut finished).await.unwrap() }),
    ];
    let dialled = world.dial();
    world.waiting(1).await;
    sleep_until(over - Duration::from_millis(1)).await;
    assert!(failing.iter().all(|failing| !failing.is_finished()) && !dialled.is_finished());
    assert_eq!(world.connman.stats().streams, 5);
    for failing in failing {
        assert_eq!(timeout(AT_ONCE, failing).await.expect("at once").unwrap(), ErrorKind::SessionLost);
    }
    let error = timeout(AT_ONCE, dialled).await.expect("at once").unwrap().unwrap_err();
    assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::ReconnectTimeout, true));
    assert!(Instant::now() <= over + AT_ONCE);
    // What has arrived is read first; only what came with its end has one.
    let mut text = [0; 7];
    unread.read_exact(&mut text).await.unwrap();
    assert_eq!((&text, end(&mut unread).await), (b"arrived", Some(ErrorKind::SessionLost)));
    let mut text = String::new();
    whole.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "whole");
    drop((unread, whole));
    assert_eq!(world.counted.sum("revdial_streams_total{session_lost}"), 5);
    assert_eq!(world.connman.stats(), Stats::default());
    assert_eq!(world.dial().await.unwrap().unwrap_err().kind(), ErrorKind::NoConnection);
    assert_eq!(world.events(), ["connected", "lost", "expired"]);
    assert_eq!(world.when("expired"), [over]);
    assert_eq!(world.counted.sum("revdial_reconnection_timeout_total"), 1);
    assert_eq!(world.counted.sum("revdial_dial_failures_total{reconnect_timeout}"), 1);
    assert_eq!(world.counted.sum("revdial_reconnection_grace_period_entries"), 0);

    // The agent holds on for longer than the server may, by its own clock of the loss: 45 s and 15 s.
    sleep_until(over + Duration::from_secs(59)).await;
    assert!(timeout(AT_ONCE, idle_there.read(&mut [0])).await.is_err());
    assert_eq!(end(&mut idle_there).await, Some(ErrorKind::SessionLost));
    let late = Instant::now() - over;
    assert!(late <= Duration::from_secs(60) + AT_ONCE, "{late:?}");
    world.net.down(false);
    agent.connected().await;
    assert_eq!(world.counted.resumes(), [""; 0], "it asked for a new session");
    let (mut here, mut there) = world.pair(&mut agent).await;
    talk((&mut here, &mut there)).await;
    drop((full_there, finished_there, unread_there, whole_there, idle_there, here, there));
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn b63_b58_an_agent_that_is_back_a_moment_before_the_end_goes_on_and_at_the_end_begins_anew() {
    for (early, result) in [(1, "ok 1"), (0, "unknown 1")] {
        let world = World::new();
        let mut one = Scripted::new(&world, "a", TOKEN).await;
        let (sent, received) = one.agent.counts();
        drop(one.agent);
        world.in_grace().await;
        let over = world.when("lost")[0] + GRACE;
        sleep_until(over - Duration::from_secs(1)).await;
        let mut agent = world.raw().await;
        sleep_until(over - Duration::from_millis(early)).await;
        agent.attach(back(one.session, 1), sent, received).await;
        assert_eq!(welcomed(&mut agent).await, early > 0);
        assert_eq!(world.counted.resumes(), [result]);
        one.agent = agent;
        if early > 0 {
            sleep(Duration::from_secs(2)).await;
            one.lives().await;
        } else {
            assert_eq!(end(&mut one.stream).await, Some(ErrorKind::SessionLost));
        }
        drop((one.agent, one.stream));
        world.over([]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn b65_what_is_cancelled_in_a_pause_is_free_at_once_and_told_to_the_agent_after_it() {
    let world = World::new();
    let mut agent = world.agent().await;
    let before = world.baseline().await;
    let (here, mut there) = world.pair(&mut agent).await;
    let (mut stays, mut stays_there) = world.pair(&mut agent).await;
    // An open on its way, which the agent may have and may not.
    let opening = world.dial();
    tokio::task::yield_now().await;
    world.pause().await;
    let waiting: Vec<_> = (0..10).map(|_| world.dial()).collect();
    world.waiting(10).await;
    for dial in waiting {
        dial.abort();
        assert!(dial.await.unwrap_err().is_cancelled());
    }
    assert_eq!(world.connman.stats().pending_dials_total, 0, "at once");
    assert_eq!(world.counted.sum("revdial_pending_dials_current"), 0);
    opening.abort();
    let _ = opening.await;
    drop(here);
    sleep(Duration::from_secs(1)).await;
    world.net.down(false);
    agent.connected().await;
    assert_eq!(end(&mut there).await, None, "FIN");
    until("STOP", || AsyncWriteExt::write(&mut there, b"x").now_or_never().is_some_and(|written| written.is_err()))
        .await;
    talk((&mut stays, &mut stays_there)).await;
    while agent.untaken() > 0 {
        let mut given_up = agent.accepted().await;
        assert_ne!(end(&mut given_up).await, Some(ErrorKind::SessionLost));
    }
    drop((there, stays, stays_there));
    world.settled(&before).await;
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn b66_each_half_that_was_closed_stays_closed_over_a_pause_and_the_other_one_open() {
    let world = World::new();
    let mut agent = world.agent().await;
    let before = world.baseline().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    AsyncWriteExt::shutdown(&mut here).await.unwrap();
    for _ in 0..3 {
        world.net.cut();
        say(&mut there, &mut here).await;
        assert_eq!(end(&mut there).await, None);
    }
    AsyncWriteExt::shutdown(&mut there).await.unwrap();
    world.net.cut();
    assert_eq!((end(&mut here).await, end(&mut there).await), (None, None));
    drop((here, there));
    world.settled(&before).await;
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn b69_a_machine_that_sleeps_for_less_than_the_grace_goes_on() {
    // Asleep, it neither hears nor speaks, and does not know.
    let world = World::of(ConnectionManager::builder(), quick());
    let asleep = SessionConfig { dead_after: Duration::from_secs(3600), ..quick() };
    let mut agent = world.agent_of(builder().session(asleep)).await;
    let before = world.baseline().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    world.net.fault(Fault::Silent);
    sleep(Duration::from_secs(31)).await;
    assert_eq!(world.connman.stats().grace_period_entries, 1);
    world.net.fault(Fault::Cut);
    talk((&mut here, &mut there)).await;
    assert_eq!(world.counted.resumes(), ["ok 1"]);
    drop((here, there));
    world.settled(&before).await;
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn b69_a_machine_that_sleeps_for_longer_than_the_grace_begins_anew() {
    let world = World::of(ConnectionManager::builder(), quick());
    let asleep = SessionConfig { dead_after: Duration::from_secs(3600), ..quick() };
    let mut agent = world.agent_of(builder().session(asleep)).await;
    let before = world.baseline().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    world.net.fault(Fault::Silent);
    sleep(Duration::from_secs(33)).await;
    assert_eq!(end(&mut here).await, Some(ErrorKind::SessionLost));
    assert_eq!(world.connman.stats().active_connections + world.connman.stats().grace_period_entries, 0);
    world.net.fault(Fault::Cut);
    assert_eq!(end(&mut there).await, Some(ErrorKind::SessionLost));
    agent.connected().await;
    assert_eq!(world.counted.resumes(), ["unknown 1"]);
    drop((here, there));
    world.settled(&before).await;
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn b69_b89_a_clock_that_jumps_for_both_is_a_pause_at_most() {
    for jump in [10, 40, 50, 100, 3600] {
        let world = World::new();
        let mut agent = world.agent().await;
        let before = world.baseline().await;
        let (mut here, mut there) = world.pair(&mut agent).await;
        talk((&mut here, &mut there)).await;
        tokio::time::advance(Duration::from_secs(jump)).await;
        let start = Instant::now();
        talk((&mut here, &mut there)).await;
        assert!(start.elapsed() <= Duration::from_secs(2), "{jump}: {:?}", start.elapsed());
        drop((here, there));
        world.settled(&before).await;
        world.over([agent]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn c1_c2_b64_a_dial_in_the_grace_has_its_own_deadline_and_its_place_in_the_order() {
    let world = World::new();
    let mut agent = world.agent().await;
    let before = world.baseline().await;
    world.pause().await;
    let start = Instant::now();
    let short = world.connman.dial(&key(), &TargetName::default()).timeout(Duration::from_secs(3)).await;
    assert_eq!((short.unwrap_err().kind(), start.elapsed()), (ErrorKind::DialTimeout, Duration::from_secs(3)));
    let mut dials: Vec<_> = (0..100).map(|_| world.dial()).collect();
    world.waiting(100).await;
    let surplus = world.dial().await.unwrap().unwrap_err();
    assert_eq!((surplus.kind(), surplus.is_retry_safe()), (ErrorKind::TooManyPendingDials, true));
    assert_eq!(world.counted.sum("revdial_pending_dials_current"), 100);
    world.net.down(false);
    for dial in dials.drain(..) {
        let mut there = agent.accepted().await;
        let mut here = dial.await.unwrap().unwrap();
        talk((&mut here, &mut there)).await;
    }
    world.settled(&before).await;
    world.over([agent]).await;
}

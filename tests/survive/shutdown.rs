//! What an agent that goes down lets finish, and who answers its callers then.

use std::time::Duration;

use revdial::{ErrorKind, connman::Stats};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep},
};

use crate::support::{Running, World, end, talk, until};

const DRAIN: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn b85_new_dials_wait_for_a_successor_while_what_runs_finishes_at_the_one_that_goes() {
    let world = World::new();
    let mut first = world.agent().await;
    let before = world.baseline().await;
    let (mut here, mut there) = world.pair(&mut first).await;
    first.shutdown.shutdown(DRAIN);
    until("it drains", || world.events().contains(&"draining")).await;
    let dialled = world.dial();
    world.waiting(1).await;
    sleep(Duration::from_secs(10)).await;
    talk((&mut here, &mut there)).await;
    assert!(!dialled.is_finished());
    assert_eq!((world.connman.stats().draining_sessions, first.untaken()), (1, 0));

    let mut second = world.agent().await;
    let mut new_there = second.accepted().await;
    let mut new = dialled.await.unwrap().unwrap();
    talk((&mut new, &mut new_there)).await;
    sleep(Duration::from_secs(10)).await;
    talk((&mut here, &mut there)).await;
    AsyncWriteExt::shutdown(&mut here).await.unwrap();
    AsyncWriteExt::shutdown(&mut there).await.unwrap();
    assert_eq!((end(&mut here).await, end(&mut there).await), (None, None));
    drop((here, there));
    let finished = Instant::now();
    assert_eq!(first.end().await, Ok(()));
    assert!(finished.elapsed() <= Duration::from_secs(1), "{:?}", finished.elapsed());
    talk((&mut new, &mut new_there)).await;
    assert!(!world.events().contains(&"lost") && !world.events().contains(&"replaced"), "{:?}", world.events());
    drop((new, new_there, first));
    world.settled(&before).await;
    world.over([second]).await;
}

#[tokio::test(start_paused = true)]
async fn b85_what_runs_finishes_also_over_cuts_during_the_drain() {
    let world = World::new();
    let mut agent = world.agent().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    let start = Instant::now();
    agent.shutdown.shutdown(DRAIN);
    until("it drains", || world.events().contains(&"draining")).await;
    for _ in 0..3 {
        let cut = Instant::now();
        world.net.cut();
        talk((&mut here, &mut there)).await;
        assert!(cut.elapsed() <= Duration::from_millis(350), "{:?}", cut.elapsed());
        sleep(Duration::from_secs(5)).await;
        assert_eq!(world.connman.stats().draining_sessions, 1);
        assert!(!world.dial().is_finished());
    }
    AsyncWriteExt::shutdown(&mut here).await.unwrap();
    AsyncWriteExt::shutdown(&mut there).await.unwrap();
    assert_eq!((end(&mut here).await, end(&mut there).await), (None, None));
    drop((here, there));
    assert_eq!(agent.end().await, Ok(()));
    assert!(start.elapsed() < DRAIN);
    assert_eq!(world.connman.stats().draining_sessions, 0);
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn b85_what_still_runs_at_the_deadline_is_reset() {
    for cut in [false, true] {
        let world = World::new();
        let mut agent = world.agent().await;
        let (mut here, mut there) = world.pair(&mut agent).await;
        let (mut other, mut other_there) = world.pair(&mut agent).await;
        talk((&mut here, &mut there)).await;
        talk((&mut other, &mut other_there)).await;
        let start = Instant::now();
        agent.shutdown.shutdown(DRAIN);
        if cut {
            sleep(Duration::from_secs(30)).await;
            world.net.cut();
        }
        assert_eq!(agent.end().await, Ok(()));
        assert!(start.elapsed() >= DRAIN && start.elapsed() <= DRAIN + Duration::from_secs(1), "{:?}", start.elapsed());
        for stream in [&mut here, &mut other] {
            let kind = end(stream).await;
            assert_eq!(kind, Some(ErrorKind::PeerReset));
        }
        until("all gone", || world.connman.stats().draining_sessions == 0).await;
        drop((here, there, other, other_there));
        world.over([]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn b85_without_a_successor_dials_fail_at_the_end_of_the_grace() {
    let world = World::new();
    let mut agent = world.agent().await;
    let start = Instant::now();
    agent.shutdown.shutdown(DRAIN);
    until("it drains", || world.events().contains(&"draining")).await;
    let dialled = world.dial();
    assert_eq!(agent.end().await, Ok(()));
    assert!(start.elapsed() <= Duration::from_secs(1), "nothing runs: {:?}", start.elapsed());
    assert_eq!(dialled.await.unwrap().unwrap_err().kind(), ErrorKind::ReconnectTimeout);
    assert!(start.elapsed() >= Duration::from_secs(30) && start.elapsed() <= Duration::from_secs(31));
    assert_eq!(world.connman.stats(), Stats::default());
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn b85_a_shutdown_in_a_pause_lets_what_runs_finish_after_it() {
    let world = World::new();
    let mut agent = world.agent().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    talk((&mut here, &mut there)).await;
    world.pause().await;
    agent.shutdown.shutdown(DRAIN);
    sleep(Duration::from_secs(3)).await;
    assert!(!agent.run.is_finished());
    world.net.down(false);
    talk((&mut here, &mut there)).await;
    until("it drains", || world.events().contains(&"draining")).await;
    drop((here, there));
    assert_eq!(agent.end().await, Ok(()));
    until("all gone", || world.connman.stats().draining_sessions == 0).await;
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn b85_a_shutdown_without_time_in_a_pause_ends_at_once() {
    let world = World::new();
    let mut agent = world.agent().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    world.pause().await;
    let start = Instant::now();
    agent.shutdown.shutdown(Duration::ZERO);
    assert_eq!(agent.end().await, Ok(()));
    assert!(start.elapsed() <= Duration::from_millis(100), "{:?}", start.elapsed());
    assert!(matches!(end(&mut there).await, Some(ErrorKind::SessionLost | ErrorKind::Shutdown)));
    assert_eq!(end(&mut here).await, Some(ErrorKind::SessionLost));
    drop((here, there));
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn b85_the_shorter_time_holds_if_it_is_asked_for_twice() {
    let world = World::new();
    let mut agent: Running = world.agent().await;
    let (mut here, there) = world.pair(&mut agent).await;
    let start = Instant::now();
    agent.shutdown.shutdown(DRAIN);
    sleep(Duration::from_secs(1)).await;
    agent.shutdown.shutdown(Duration::from_secs(5));
    assert_eq!(agent.end().await, Ok(()));
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(5) && took <= Duration::from_secs(7), "{took:?}");
    assert!(end(&mut here).await.is_some());
    drop((here, there));
    world.over([]).await;
}

//! What a server that goes down lets finish, and how its agents move on to the next one.

use std::time::Duration;

use revdial::{
    ErrorKind, TargetName, TunnelStream,
    agent::{Agent, AgentStatus},
    connman::{ConnectionManager, Stats},
    proto::SessionConfig,
};
use tokio::{
    io::AsyncWriteExt,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    net::{Net, TOKEN, relay::Fault},
    support::{Running, World, end, key, layer, talk, until},
};

const DEADLINE: Duration = Duration::from_secs(60);

/// The default.
const GRACE: Duration = Duration::from_secs(30);

/// The most that agents spread their new links over.
const JITTER: Duration = Duration::from_secs(5);

fn drain(world: &World, deadline: Duration) -> JoinHandle<()> {
    let connman = world.connman.clone();
    tokio::spawn(async move { connman.drain(deadline).await })
}

/// The server that takes over: this net leads there from now on.
fn next(world: &World) -> ConnectionManager {
    let connman = ConnectionManager::new();
    world.net.lead_to(&Net::of(layer(&connman, SessionConfig::default())));
    connman
}

async fn pair(connman: &ConnectionManager, agent: &mut Running) -> (TunnelStream, TunnelStream) {
    let dialled = tokio::spawn(connman.dial(&key(), &TargetName::default()));
    let there = agent.accepted().await;
    (dialled.await.unwrap().unwrap(), there)
}

#[tokio::test(start_paused = true)]
async fn c6_b84_what_runs_finishes_and_then_the_drain_is_over_and_dials_that_waited_fail_with_shutdown() {
    let world = World::new();
    let mut agent = world.agent().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    let start = Instant::now();
    let drained = drain(&world, DEADLINE);
    until("it drains", || world.connman.stats().draining_sessions == 1).await;
    let dialled = world.dial();
    world.waiting(1).await;
    sleep(Duration::from_secs(20)).await;
    talk((&mut here, &mut there)).await;
    assert!(!dialled.is_finished() && !drained.is_finished());
    assert_eq!(agent.untaken(), 0, "nothing new is opened");
    AsyncWriteExt::shutdown(&mut here).await.unwrap();
    AsyncWriteExt::shutdown(&mut there).await.unwrap();
    assert_eq!((end(&mut here).await, end(&mut there).await), (None, None));
    let finished = Instant::now();
    drop((here, there));
    drained.await.unwrap();
    assert!(finished.elapsed() <= Duration::from_millis(200), "{:?}", finished.elapsed());
    assert!(start.elapsed() < DEADLINE);
    let error = dialled.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::Shutdown, true));
    assert_eq!(world.dial().await.unwrap().unwrap_err().kind(), ErrorKind::Shutdown);
    assert_eq!(world.counted.sum("revdial_dial_failures_total{shutdown}"), 2);
    assert_eq!(world.connman.stats(), Stats::default());
    assert!(!agent.run.is_finished(), "it goes on to look for a server");
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn b84_sessions_without_streams_are_closed_at_once() {
    let world = World::of_many(ConnectionManager::builder());
    let mut agent = world.agent().await;
    let idle = world.net.build(Agent::builder("http://gateway", "idle").token(TOKEN));
    let mut idle = Running::new(idle);
    idle.connected().await;
    let (here, there) = world.pair(&mut agent).await;
    let start = Instant::now();
    let drained = drain(&world, DEADLINE);
    until("the idle one is gone", || world.connman.stats().draining_sessions == 1).await;
    assert!(start.elapsed() <= Duration::from_millis(100), "{:?}", start.elapsed());
    drop((here, there));
    drained.await.unwrap();
    assert!(start.elapsed() <= Duration::from_millis(500), "{:?}", start.elapsed());
    world.over([agent, idle]).await;

    let world = World::new();
    let start = Instant::now();
    drain(&world, DEADLINE).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO, "there is nobody");
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn b84_what_still_runs_at_the_deadline_fails_with_shutdown() {
    let world = World::new();
    let mut agent = world.agent().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    let start = Instant::now();
    let drained = drain(&world, DEADLINE);
    drained.await.unwrap();
    assert_eq!(start.elapsed(), DEADLINE);
    assert_eq!(end(&mut here).await, Some(ErrorKind::Shutdown));
    assert_eq!(end(&mut there).await, Some(ErrorKind::SessionLost));
    assert_eq!(start.elapsed(), DEADLINE);
    assert_eq!(world.connman.stats(), Stats::default());
    drop((here, there));
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn b84_agents_open_the_next_session_first_and_finish_on_the_old_one_beside_it() {
    let world = World::new();
    let mut agent = world.agent().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    let second = next(&world);
    let start = Instant::now();
    let drained = drain(&world, DEADLINE);
    until("moved on", || second.stats().active_connections == 1).await;
    assert!(start.elapsed() <= JITTER, "{:?}", start.elapsed());
    assert!(agent.status.borrow().is_connected());
    let (mut new, mut new_there) = pair(&second, &mut agent).await;
    for _ in 0..10 {
        talk((&mut here, &mut there)).await;
        talk((&mut new, &mut new_there)).await;
        sleep(Duration::from_secs(2)).await;
    }
    drop((here, there));
    drained.await.unwrap();
    assert!(start.elapsed() < DEADLINE);
    assert_eq!(world.connman.stats(), Stats::default());
    talk((&mut new, &mut new_there)).await;
    assert_eq!((second.stats().active_connections, second.stats().streams), (1, 1));
    assert_eq!(world.net.dials().len(), 2, "one link for each session");
    drop((new, new_there));
    second.shutdown();
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn b84_an_agent_that_is_refused_elsewhere_stays_and_finishes_also_over_a_cut() {
    let world = World::new();
    let mut agent = world.agent().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    let drained = drain(&world, DEADLINE);
    // Nobody takes over: this server refuses new sessions, and takes back the old one.
    for _ in 0..3 {
        sleep(Duration::from_secs(6)).await;
        assert!(world.events().contains(&"refused"), "it has tried");
        let start = Instant::now();
        world.net.cut();
        talk((&mut here, &mut there)).await;
        assert!(start.elapsed() <= Duration::from_millis(600), "{:?}", start.elapsed());
        assert_eq!(world.connman.stats().draining_sessions, 1);
    }
    let mut status = agent.status.clone();
    let waiting = status.wait_for(|status| matches!(status, AgentStatus::Waiting { cause: ErrorKind::Shutdown, .. }));
    waiting.await.unwrap();
    drop((here, there));
    let finished = Instant::now();
    drained.await.unwrap();
    assert!(finished.elapsed() <= Duration::from_secs(1), "{:?}", finished.elapsed());
    // And the next server is found.
    let second = next(&world);
    until("moved on", || second.stats().active_connections == 1).await;
    let (mut new, mut new_there) = pair(&second, &mut agent).await;
    talk((&mut new, &mut new_there)).await;
    drop((new, new_there));
    second.shutdown();
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn b84_a_drain_in_a_pause_is_told_after_it_and_what_runs_finishes() {
    let world = World::new();
    let mut agent = world.agent().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    talk((&mut here, &mut there)).await;
    world.pause().await;
    let start = Instant::now();
    let drained = drain(&world, DEADLINE);
    sleep(Duration::from_secs(1)).await;
    world.net.down(false);
    talk((&mut here, &mut there)).await;
    until("it was told", || world.events().contains(&"refused")).await;
    drop((here, there));
    drained.await.unwrap();
    assert!(start.elapsed() < DEADLINE);
    assert_eq!(world.connman.stats(), Stats::default());
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn b84_an_agent_that_is_away_for_all_of_the_drain_holds_nothing_up_beyond_its_grace() {
    let world = World::new();
    let mut agent = world.agent().await;
    let (mut here, there) = world.pair(&mut agent).await;
    world.pause().await;
    let start = Instant::now();
    drain(&world, DEADLINE).await.unwrap();
    assert_eq!(start.elapsed(), GRACE.min(DEADLINE));
    assert_eq!(end(&mut here).await, Some(ErrorKind::SessionLost));
    drop((here, there));
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn b84_a_session_that_has_moved_on_ends_with_its_link_and_the_next_one_does_not_notice() {
    let world = World::new();
    let mut agent = world.agent().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    let second = next(&world);
    let drained = drain(&world, DEADLINE);
    world.net.fault(Fault::None);
    until("moved on", || second.stats().active_connections == 1).await;
    let (mut new, mut new_there) = pair(&second, &mut agent).await;
    let start = Instant::now();
    world.net.cut();
    talk((&mut new, &mut new_there)).await;
    // Whoever answers now knows nothing of the old session, so that the agent gives it up at once.
    assert_eq!(end(&mut there).await, Some(ErrorKind::SessionLost));
    assert!(start.elapsed() <= Duration::from_millis(300), "{:?}", start.elapsed());
    drained.await.unwrap();
    assert_eq!(end(&mut here).await, Some(ErrorKind::SessionLost));
    talk((&mut new, &mut new_there)).await;
    assert_eq!(second.stats().active_connections, 1);
    drop((here, there, new, new_there));
    second.shutdown();
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_dropped_still_cuts_at_its_deadline() {
    let world = World::new();
    let mut agent = world.agent().await;
    let (mut here, there) = world.pair(&mut agent).await;
    let start = Instant::now();
    let drained = drain(&world, DEADLINE);
    until("it drains", || world.connman.stats().draining_sessions == 1).await;
    drained.abort();
    assert_eq!(end(&mut here).await, Some(ErrorKind::Shutdown));
    assert_eq!(start.elapsed(), DEADLINE);
    until("all gone", || world.connman.stats() == Stats::default()).await;
    drop((here, there));
    world.over([agent]).await;
}

//! What becomes of a key whose link's task is gone on the server: aborted, panicked, or never run.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::rt::Executor;
use revdial::{
    connman::{ConnectionManager, LossCause, Stats},
    proto::SessionConfig,
    server::LinkTask,
};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep},
};

use crate::{
    net::{Net, relay::Fault},
    support::{Running, World, layer, talk, until},
};

/// Runs links where a test can get at them, or not at all.
#[derive(Clone, Default)]
struct Exposed {
    tasks: Arc<Mutex<Vec<AbortHandle>>>,
    drops: Arc<AtomicBool>,
}

impl Executor<LinkTask> for Exposed {
    fn execute(&self, task: LinkTask) {
        if !self.drops.load(Ordering::Relaxed) {
            self.tasks.lock().unwrap().push(tokio::spawn(task).abort_handle());
        }
    }
}

fn world(links: &Exposed) -> World {
    let links = links.clone();
    let net = |connman: &ConnectionManager| Net::of(layer(connman, SessionConfig::default()).executor(links));
    World::behind(ConnectionManager::builder(), net)
}

#[tokio::test(start_paused = true)]
async fn an_aborted_task_is_a_loss_after_which_the_agent_resumes() {
    let links = Exposed::default();
    let world = world(&links);
    let mut agent = world.agent().await;
    let before = world.baseline().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    talk((&mut here, &mut there)).await;
    for round in 1..=5 {
        let start = Instant::now();
        links.tasks.lock().unwrap().pop().unwrap().abort();
        until("lost", || world.when("lost").len() == round).await;
        talk((&mut here, &mut there)).await;
        assert!(start.elapsed() <= Duration::from_millis(100), "{:?}", start.elapsed());
        assert_eq!(world.info().last_cause, Some(LossCause::Aborted));
    }
    assert_eq!(world.counted.resumes(), ["ok 5"]);
    drop((here, there));
    world.settled(&before).await;
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn an_aborted_task_of_an_old_link_loses_nothing() {
    let links = Exposed::default();
    let world = world(&links);
    let mut agent = world.agent().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    world.net.fault(Fault::AgentGone);
    talk((&mut here, &mut there)).await;
    // The first one is fenced, and may be in its farewell.
    links.tasks.lock().unwrap().remove(0).abort();
    sleep(Duration::from_secs(3)).await;
    talk((&mut here, &mut there)).await;
    assert_eq!(world.events(), ["connected", "resumed"]);
    drop((here, there));
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_dropped_unrun_is_a_handshake_that_failed() {
    let links = Exposed::default();
    let world = world(&links);
    let mut agent = world.agent().await;
    let before = world.baseline().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    talk((&mut here, &mut there)).await;
    links.drops.store(true, Ordering::Relaxed);
    world.net.cut();
    world.in_grace().await;
    sleep(Duration::from_secs(5)).await;
    assert!(world.net.dials().len() >= 3);
    assert_eq!(world.connman.stats().grace_period_entries, 1);
    links.drops.store(false, Ordering::Relaxed);
    talk((&mut here, &mut there)).await;
    assert_eq!(world.counted.resumes(), ["ok 1"]);
    drop((here, there));
    world.settled(&before).await;
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn an_aborted_run_of_an_agent_leaves_nothing_and_its_key_in_grace() {
    let links = Exposed::default();
    let world = world(&links);
    for _ in 0..20 {
        let mut agent: Running = world.agent().await;
        let (here, there) = world.pair(&mut agent).await;
        agent.kill().await;
        world.in_grace().await;
        drop((here, there));
    }
    sleep(Duration::from_secs(31)).await;
    assert_eq!(world.connman.stats(), Stats::default());
    world.over([]).await;
}

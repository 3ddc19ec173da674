//! The hook on connect: who is greeted when, and that whoever is greeted badly hurts nobody.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use revdial::{
    TargetName,
    agent::Agent,
    connman::{Arrived, ConnectionManager},
};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep},
};

use crate::{
    Running,
    counted::Counted,
    dial, in_grace,
    net::{Net, TOKEN},
    until,
};

const SECOND: Duration = Duration::from_secs(1);

/// Whether those who were greeted were resumed.
type Greeted = Arc<Mutex<Vec<bool>>>;

/// A manager whose hook takes so much time.
fn greeting(took: Duration) -> (ConnectionManager, Greeted) {
    let greeted = Greeted::default();
    let told = Arc::clone(&greeted);
    let hook = move |agent: Arrived| {
        told.lock().unwrap().push(agent.is_resumed());
        sleep(took)
    };
    (ConnectionManager::builder().on_connect(hook).build(), greeted)
}

/// The agent's link is cut, and it is back.
async fn cut(connman: &ConnectionManager, net: &Net, agent: &mut Running) {
    net.down(true);
    net.cut();
    in_grace(connman).await;
    net.down(false);
    until("back", || connman.stats().active_connections == 1).await;
    agent.connected().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_is_greeted_at_each_connect_and_can_be_dialled_back_then() {
    let connman = ConnectionManager::builder()
        .on_connect(|agent: Arrived| async move {
            let dial = agent.connman().dial(agent.key(), &TargetName::default());
            let mut stream = dial.await.expect("it is there");
            stream.write_all(if agent.is_resumed() { b"r" } else { b"n" }).await.unwrap();
            stream.flush().await.unwrap();
        })
        .build();
    let net = Net::to(&connman);
    let mut agent = Running::on(&net).await;
    sleep(SECOND).await;
    assert_eq!(agent.first_bytes().await, b"n");
    cut(&connman, &net, &mut agent).await;
    sleep(SECOND).await;
    assert_eq!(agent.first_bytes().await, b"r");
    agent.run.abort();
    in_grace(&connman).await;
    let agent = Running::on(&net).await;
    sleep(SECOND).await;
    assert_eq!(agent.first_bytes().await, b"n", "another process under the key");
}

#[tokio::test(start_paused = true)]
async fn who_connects_during_a_greeting_is_greeted_once_after_it() {
    let (connman, greeted) = greeting(5 * SECOND);
    let net = Net::to(&connman);
    let first = Running::on(&net).await;
    first.run.abort();
    in_grace(&connman).await;
    let mut second = Running::on(&net).await;
    for _ in 0..3 {
        sleep(SECOND / 2).await;
        cut(&connman, &net, &mut second).await;
    }
    assert_eq!(greeted.lock().unwrap().len(), 1);
    sleep(60 * SECOND).await;
    // It has resumed since, but nobody has greeted its begin.
    assert_eq!(*greeted.lock().unwrap(), [false, false]);
    cut(&connman, &net, &mut second).await;
    sleep(SECOND).await;
    assert_eq!(*greeted.lock().unwrap(), [false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn b86_a_greeting_that_panics_or_hangs_is_counted_and_hurts_nobody() {
    let counted = Counted::new();
    let done = Arc::new(AtomicUsize::new(0));
    let all = Arc::clone(&done);
    let connman = ConnectionManager::builder()
        .on_connect(|agent: Arrived| async move {
            match agent.key().as_str() {
                "a" => panic!("in its future"),
                "b" => std::future::pending().await,
                _ => {}
            }
        })
        .on_connect(|agent: Arrived| {
            assert_ne!(agent.key().as_str(), "c", "when it is called");
            async {}
        })
        .on_connect(move |_| {
            all.fetch_add(1, Ordering::Relaxed);
            async {}
        })
        .build();
    let net = Net::to(&connman);
    let start = Instant::now();
    let mut agents = Vec::new();
    for name in ["a", "b", "c", "d"] {
        agents.push(Running::of(net.build(Agent::builder("http://gateway", name).token(TOKEN))).await);
    }
    dial(&connman).await.unwrap().unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    sleep(9 * SECOND).await;
    assert_eq!(counted.sum("revdial_callback_failures_total"), 2);
    sleep(2 * SECOND).await;
    assert_eq!(counted.sum("revdial_callback_failures_total"), 3, "after ten seconds");
    assert_eq!((done.load(Ordering::Relaxed), connman.stats().active_connections), (4, 4));
    // The next one of the key is greeted again.
    cut_all(&net, &mut agents).await;
    sleep(11 * SECOND).await;
    assert_eq!((done.load(Ordering::Relaxed), counted.sum("revdial_callback_failures_total")), (8, 6));
}

async fn cut_all(net: &Net, agents: &mut [Running]) {
    net.cut();
    sleep(SECOND).await;
    for agent in agents {
        agent.connected().await;
    }
}

#[tokio::test(start_paused = true)]
async fn at_most_a_hundred_greetings_run_at_once_and_all_are_done() {
    let (running, most, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Greeted::default());
    let (now, peak, done) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&all));
    let connman = ConnectionManager::builder()
        .on_connect(move |agent: Arrived| {
            let (now, peak, done) = (Arc::clone(&now), Arc::clone(&peak), Arc::clone(&done));
            async move {
                peak.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                sleep(5 * SECOND).await;
                now.fetch_sub(1, Ordering::Relaxed);
                done.lock().unwrap().push(agent.is_resumed());
            }
        })
        .build();
    let net = Net::to(&connman);
    let mut agents = Vec::new();
    for n in 0..120 {
        let agent = Agent::builder("http://gateway", format!("desk-{n}x")).token(TOKEN);
        agents.push(Running::of(net.build(agent)).await);
    }
    sleep(20 * SECOND).await;
    assert_eq!((most.load(Ordering::Relaxed), all.lock().unwrap().len()), (100, 120));
}

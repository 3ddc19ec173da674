//! How long what drains is held, who comes back after a displacement, and who pays for memory: the edges of each.

use std::time::Duration;

use revdial::{
    AgentKey, ErrorKind, TargetName,
    agent::{Agent, AgentStatus, ShutdownHandle},
    connman::{ConnectionManager, NoGrace},
    frame::InstanceId,
};
use tokio::{
    io::AsyncWriteExt,
    task::{JoinHandle, yield_now},
    time::{Instant, sleep},
};

use crate::{
    Running, dial, end, in_grace, manager, names,
    net::{Net, TOKEN},
};

const HOUR: Duration = Duration::from_secs(3600);

/// A connected agent that keeps what it accepts, and can be told to stop.
async fn stoppable(agent: Agent) -> (ShutdownHandle, JoinHandle<Result<(), revdial::Error>>) {
    let (handle, mut status) = (agent.shutdown_handle(), agent.status());
    let (mut listener, run) = agent.listen();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Some(stream) = listener.accept().await {
            kept.push(stream);
        }
    });
    let run = tokio::spawn(run);
    status.wait_for(AgentStatus::is_connected).await.unwrap();
    (handle, run)
}

#[tokio::test(start_paused = true)]
async fn b56_agents_that_share_an_instance_do_not_fight() {
    let (connman, events) = manager();
    let (one, other) = (Net::to(&connman), Net::to(&connman));
    let copy = |net: &Net| {
        let agent = Agent::builder("http://gateway", "a").token(TOKEN).instance(InstanceId::new([9; 16]));
        stoppable(net.build(agent))
    };
    let _one = copy(&one).await;
    sleep(Duration::from_secs(1)).await;
    let _other = copy(&other).await;
    sleep(HOUR).await;
    // The first starts afresh as another instance, and displaces the second, which ends.
    assert!(one.dials().len() + other.dials().len() <= 4, "{:?}", names(&events));
    assert_eq!(connman.stats().active_connections, 1);
}

#[tokio::test(start_paused = true)]
async fn m53_b85_a_draining_session_without_a_link_is_held_for_the_grace_and_not_for_its_drain() {
    for (builder, held) in [
        (ConnectionManager::builder(), Duration::from_secs(30)),
        (ConnectionManager::builder().grace(NoGrace), Duration::ZERO),
    ] {
        let connman = builder.build();
        let net = Net::to(&connman);
        let (handle, run) = stoppable(net.agent()).await;
        let mut stream = dial(&connman).await.unwrap().unwrap();
        handle.shutdown(HOUR);
        while connman.stats().active_connections > 0 {
            yield_now().await;
        }
        net.down(true);
        run.abort(); // its machine dies
        let _ = run.await;
        let start = Instant::now();
        end(&mut stream).await;
        assert!(
            start.elapsed() >= held && start.elapsed() < held + Duration::from_millis(100),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn b84_a_drain_lengthens_no_grace_and_is_over_with_it() {
    let (connman, _) = manager();
    let net = Net::to(&connman);
    let agent = Running::on(&net).await;
    let mut stream = dial(&connman).await.unwrap().unwrap();
    net.down(true);
    net.cut();
    in_grace(&connman).await;
    agent.run.abort();
    sleep(Duration::from_secs(29)).await;
    let start = Instant::now();
    let ((), kind) = tokio::join!(connman.drain(HOUR), end(&mut stream));
    assert_eq!(kind, ErrorKind::SessionLost);
    assert!(start.elapsed() <= Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn b84_b85_a_drain_without_end_waits_for_what_runs() {
    let (connman, _) = manager();
    let net = Net::to(&connman);
    let (handle, run) = stoppable(net.agent()).await;
    let stream = dial(&connman).await.unwrap().unwrap();
    handle.shutdown(Duration::MAX);
    sleep(Duration::from_secs(5)).await;
    assert!(!run.is_finished());
    let drains = connman.clone();
    let drain = tokio::spawn(async move { drains.drain(Duration::MAX).await });
    sleep(Duration::from_secs(5)).await;
    assert!(!drain.is_finished() && !run.is_finished());
    stream.reset();
    drain.await.unwrap();
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn b10_who_was_told_4410_does_not_come_back_however_its_session_ends() {
    // Its link dies where nothing is held, or its server goes down.
    for shuts_down in [false, true] {
        let connman = ConnectionManager::builder().grace(NoGrace).build();
        let (one, other) = (Net::to(&connman), Net::to(&connman));
        let first = Running::on(&one).await;
        let _stream = dial(&connman).await.unwrap().unwrap();
        let second = Running::on(&other).await;
        sleep(Duration::from_millis(500)).await;
        if shuts_down {
            connman.shutdown()
        } else {
            one.cut()
        }
        assert_eq!(first.run.await.unwrap().unwrap_err().kind(), ErrorKind::Replaced);
        sleep(HOUR).await;
        assert_eq!((one.dials().len(), second.run.is_finished()), (1, false));
    }
}

#[tokio::test(start_paused = true)]
async fn b70_memory_is_looked_at_also_when_nobody_calls() {
    let connman = ConnectionManager::builder().grace_memory(100 * 1024).build();
    let net = Net::to(&connman);
    let _agent = Running::on(&net).await;
    let mut streams = [dial(&connman).await.unwrap().unwrap(), dial(&connman).await.unwrap().unwrap()];
    net.down(true);
    net.cut();
    in_grace(&connman).await;
    for stream in &mut streams {
        AsyncWriteExt::write_all(stream, &[7; 55 * 1024]).await.unwrap();
    }
    let start = Instant::now();
    for stream in &mut streams {
        assert_eq!(end(stream).await, ErrorKind::SessionLost);
    }
    assert!(start.elapsed() <= Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn b70_a_draining_session_pays_for_itself() {
    let connman = ConnectionManager::builder().grace_memory(100 * 1024).build();
    let (greedy, modest) = (Net::to(&connman), Net::to(&connman));
    let (handle, _run) = stoppable(greedy.agent()).await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(dial(&connman).await.unwrap().unwrap());
    }
    let agent = modest.build(Agent::builder("http://gateway", "b").token(TOKEN));
    let _agent = stoppable(agent).await;
    let b: AgentKey = "b".parse().unwrap();
    let mut innocent = connman.dial(&b, &TargetName::default()).await.unwrap();
    handle.shutdown(HOUR);
    in_grace(&connman).await;
    for net in [&greedy, &modest] {
        net.down(true);
        net.cut();
    }
    while connman.stats().grace_period_entries < 2 {
        yield_now().await;
    }
    let start = Instant::now();
    for stream in &mut streams {
        AsyncWriteExt::write_all(stream, &[7; 50 * 1024]).await.unwrap();
    }
    for stream in &mut streams {
        end(stream).await;
    }
    assert!(start.elapsed() <= Duration::from_secs(1), "{:?}", start.elapsed());
    end(&mut innocent).await;
    assert!(start.elapsed() >= Duration::from_secs(29), "{:?}", start.elapsed());
}

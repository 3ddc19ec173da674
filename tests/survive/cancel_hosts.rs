//! What stays behind of the futures of an agent and of a server that goes down, dropped at their n-th poll: nothing.

use std::time::Duration;

use revdial::{
    TargetName,
    connman::{ConnectionManager, Stats},
    proto::SessionConfig,
};
use tokio::time::{sleep, timeout};

use crate::{
    net::Net,
    polled::polled,
    support::{World, builder, key, layer, talk, until},
};

#[tokio::test(start_paused = true)]
async fn an_accept_is_dropped_at_each_poll_and_loses_no_stream() {
    let world = World::new();
    let (mut listener, run) = world.net.agent().listen();
    let running = tokio::spawn(run);
    until("connected", || world.connman.stats().active_connections == 1).await;
    let before = world.baseline().await;
    for times in 0..10 {
        let dialled = world.dial();
        let mut here = None;
        for _ in 0..3 {
            if let Some(stream) = polled(listener.accept(), times).await {
                here = stream;
                break;
            }
        }
        let mut there = match here {
            Some(stream) => stream,
            None => listener.accept().await.unwrap(),
        };
        let mut here = dialled.await.unwrap().unwrap();
        talk((&mut here, &mut there)).await;
        drop((here, there));
        world.settled(&before).await;
    }
    running.abort();
    let _ = running.await;
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_is_dropped_at_each_poll() {
    for times in 0..60 {
        let world = World::new();
        let (mut listener, run) = world.net.agent().listen();
        let dialled = world.dial();
        let _ = polled(run, times).await;
        assert!(timeout(Duration::from_secs(1), listener.accept()).await.is_ok_and(|stream| stream.is_none()));
        let _ = timeout(Duration::from_secs(31), dialled).await.expect("an end").unwrap();
        sleep(Duration::from_secs(35)).await;
        assert_eq!(world.connman.stats(), Stats::default(), "{times}");
        world.over([]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_is_dropped_at_each_poll_of_its_shutdown() {
    for times in 0..20 {
        let world = World::new();
        let agent = world.net.build(builder());
        let shutdown = agent.shutdown_handle();
        let (mut listener, run) = agent.listen();
        let mut run = Box::pin(run);
        tokio::select! {
            _ = &mut run => panic!("it runs"),
            () = sleep(Duration::from_secs(1)) => {}
        }
        let (dialled, there) = {
            let both = async {
                let (dialled, there) =
                    tokio::join!(world.connman.dial(&key(), &TargetName::default()), listener.accept());
                (dialled.unwrap(), there.unwrap())
            };
            tokio::select! {
                _ = &mut run => panic!("it runs"),
                both = both => both,
            }
        };
        shutdown.shutdown(Duration::from_secs(2));
        let _ = polled(&mut run, times).await;
        drop(run);
        drop((dialled, there, listener));
        sleep(Duration::from_secs(70)).await;
        assert_eq!(world.connman.stats(), Stats::default(), "{times}");
        world.over([]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_dropped_at_each_poll() {
    for times in 0..10 {
        let world = World::new();
        let mut agent = world.agent().await;
        let (mut here, mut there) = world.pair(&mut agent).await;
        let over = polled(world.connman.drain(Duration::from_secs(1)), times).await.is_some();
        if !over && times > 0 {
            talk((&mut here, &mut there)).await;
        }
        drop((here, there));
        sleep(Duration::from_secs(2)).await;
        assert_eq!(world.connman.stats().draining_sessions, 0);
        let second = ConnectionManager::new();
        world.net.lead_to(&Net::of(layer(&second, SessionConfig::default())));
        until("moved on", || second.stats().active_connections + usize::from(times == 0) >= 1).await;
        second.shutdown();
        world.over([agent]).await;
    }
}

//! Who has a key that two agents want, and whether a dial can ever reach the one who has it no longer.

use std::time::Duration;

use revdial::{
    ErrorKind,
    agent::{Agent, AgentStatus},
    connman::{ConnectionManager, KeyState},
    proto::SessionConfig,
};
use tokio::time::Instant;

use crate::{
    net::{Net, TOKEN},
    support::{Running, World, builder, end, layer, talk, until},
};

#[tokio::test(start_paused = true)]
async fn c5_b10_of_a_thousand_takeovers_no_dial_reaches_the_loser_and_each_loser_ends_with_replaced() {
    let world = World::new();
    let mut holder = world.agent().await;
    let before = world.baseline().await;
    for round in 0..1000_u32 {
        // One that runs, some that are under way, and all that come after.
        let running = if round % 3 == 0 { Some(world.pair(&mut holder).await) } else { None };
        let under_way: Vec<_> = (0..round % 4).map(|_| world.dial()).collect();
        let mut taker = Running::new(world.net.agent());
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        taker.connected().await;
        let late = holder.untaken();
        let (mut here, mut there) = world.pair(&mut taker).await;
        talk((&mut here, &mut there)).await;
        for dial in under_way {
            dial.await.unwrap().expect("at the one or the other");
        }
        assert!(holder.untaken() >= late && holder.untaken() <= (round % 4) as usize, "round {round}");
        if let Some((mut here, mut there)) = running {
            talk((&mut here, &mut there)).await;
        }
        let known = holder.untaken();
        world.pair(&mut taker).await;
        assert_eq!(holder.untaken(), known, "round {round}");
        while holder.untaken() > 0 {
            holder.accepted().await;
        }
        while taker.untaken() > 0 {
            taker.accepted().await;
        }
        assert_eq!(holder.end().await, Err(ErrorKind::Replaced), "round {round}");
        holder = taker;
    }
    assert_eq!(world.counted.sum("revdial_key_conflicts_total{replaced}"), 1000);
    assert_eq!(world.net.dials().len(), 1001, "no loser came back");
    let events = world.events();
    assert_eq!(events.iter().filter(|name| **name == "replaced").count(), 1000);
    assert!(!events.contains(&"lost"), "the end of a link that lost is no loss");
    world.settled(&before).await;
    world.over([holder]).await;
}

#[tokio::test(start_paused = true)]
async fn b10_a_loser_that_was_in_grace_ends_its_streams_at_once() {
    let world = World::new();
    let mut first = world.agent().await;
    let (mut here, mut there) = world.pair(&mut first).await;
    world.pause().await;
    // By another way, which the first one does not have.
    let way = Net::of(layer(&world.connman, SessionConfig::default()));
    let mut second = Running::new(way.agent());
    second.connected().await;
    assert_eq!(end(&mut here).await, Some(ErrorKind::Replaced));
    assert_eq!(world.counted.sum("revdial_key_conflicts_total{replaced}"), 1);
    // It comes back as a newcomer, since its session is over, and displaces.
    world.net.down(false);
    assert_eq!(end(&mut there).await, Some(ErrorKind::SessionLost));
    assert_eq!(second.end().await, Err(ErrorKind::Replaced));
    assert_eq!(world.counted.resumes(), ["unknown 1"]);
    assert_eq!(world.counted.sum("revdial_key_conflicts_total{replaced}"), 2);
    drop((here, there));
    world.over([first]).await;
}

#[tokio::test(start_paused = true)]
async fn b08_an_agent_of_another_principal_is_refused_and_the_key_stays_where_it_is() {
    let world = World::of_many(ConnectionManager::builder());
    let mut agent = world.agent().await;
    let before = world.baseline().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    for in_grace in [false, true] {
        if in_grace {
            world.pause().await;
            world.net.down(false);
        }
        let start = Instant::now();
        let mut other = Running::new(world.net.build(Agent::builder("http://gateway", "a").token("mallory")));
        let refused = other.status.wait_for(|status| matches!(status, AgentStatus::Refused { .. })).await;
        let AgentStatus::Refused { until: again, cause, .. } = refused.unwrap().clone() else { panic!("refused") };
        assert_eq!(cause, ErrorKind::Forbidden);
        assert!(again - start >= Duration::from_secs(30), "slow");
        other.kill().await;
    }
    agent.connected().await;
    talk((&mut here, &mut there)).await;
    assert_eq!(world.counted.sum("revdial_key_conflicts_total{denied}"), 2);
    assert_eq!(world.info().principal, format!("Bearer {TOKEN}"));
    assert!(!world.events().contains(&"replaced"));
    drop((here, there));
    world.settled(&before).await;
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn c3_b68_a_restarted_agent_with_an_instance_of_its_own_ends_the_old_session_in_the_grace() {
    let world = World::new();
    let mut first = world.agent().await;
    let (mut here, there) = world.pair(&mut first).await;
    first.kill().await;
    world.in_grace().await;
    let waiting = world.dial();
    world.waiting(1).await;
    let start = Instant::now();
    let mut second = world.agent_of(builder().label("run", "2")).await;
    assert_eq!(end(&mut here).await, Some(ErrorKind::Replaced));
    let mut new_there = second.accepted().await;
    let mut new = waiting.await.unwrap().unwrap();
    talk((&mut new, &mut new_there)).await;
    assert!(start.elapsed() < Duration::from_millis(100));
    assert_eq!(world.events(), ["connected", "lost", "replaced", "reconnected"]);
    assert_eq!(world.info().state, KeyState::Connected);
    until("one session", || world.connman.stats().draining_sessions == 0).await;
    drop((here, there, new, new_there));
    world.over([second]).await;
}

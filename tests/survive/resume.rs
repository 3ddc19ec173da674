//! Whether all that runs goes on after the loss of a link, whatever it was and however the link was lost.

use std::time::Duration;

use revdial::{
    ErrorKind,
    agent::AgentStatus,
    connman::{ConnectionManager, KeyState, LossCause},
    frame::CloseCode,
    proto::SessionConfig,
};
use tokio::time::{Instant, sleep};

use crate::{
    net::relay::Fault,
    raw::{Arrived, hello},
    support::{World, builder, end, quick, talk, until},
    traffic::During,
};

/// The longest wait for the first attempt after a loss for which the agent has jitter.
const JITTER: Duration = Duration::from_millis(250);

/// Nothing waits longer than two acks that wait for company.
const ACK: Duration = Duration::from_millis(100);

/// Has the link fail during everything that there is, and sees it go on: within `pause` and as this `result`.
async fn goes_on(fault: Fault, config: &SessionConfig, own: &SessionConfig, pause: Duration, result: &str) {
    for during in During::ALL {
        let world = World::of(ConnectionManager::builder(), config.clone());
        let mut agent = world.agent_of(builder().session(own.clone())).await;
        let before = world.baseline().await;
        let instance = world.info().instance;
        let start = Instant::now();
        during.run(&world, &mut agent, || world.net.fault(fault)).await;
        let took = start.elapsed();
        // Nothing had got through on that link.
        let pause = if during == During::QueuedDials { pause + JITTER } else { pause };
        assert!(took <= pause, "{during:?} took {took:?}");
        assert_eq!(world.counted.resumes(), [format!("{result} 1")], "{during:?}");
        let info = world.info();
        assert_eq!((info.reconnects, info.instance), (1, instance), "{during:?}");
        assert_eq!(world.net.dials().len(), 2, "{during:?}");
        // The side that trusts the old link hears of its end.
        world.net.fault(Fault::Cut);
        agent.connected().await;
        world.settled(&before).await;
        world.over([agent]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn w1_b49_after_a_reset_everything_goes_on_at_once() {
    let config = SessionConfig::default();
    goes_on(Fault::Cut, &config, &config, ACK, "ok").await;
}

#[tokio::test(start_paused = true)]
async fn b50_after_a_clean_close_by_a_proxy_everything_goes_on_after_the_jitter() {
    let config = SessionConfig::default();
    for code in [1001, 1012] {
        goes_on(Fault::Close(code), &config, &config, JITTER + ACK, "ok").await;
    }
}

#[tokio::test(start_paused = true)]
async fn b50_after_a_clean_close_the_agent_does_not_come_back_at_once() {
    const CLOSES: usize = 12;
    for code in [1001, 1012] {
        let world = World::new();
        let mut agent = world.agent().await;
        let (mut here, mut there) = world.pair(&mut agent).await;
        let mut waited = Vec::new();
        for nth in 1..=CLOSES {
            talk((&mut here, &mut there)).await;
            let closed = Instant::now();
            world.net.fault(Fault::Close(code));
            until("it comes back", || world.net.dials().len() > nth).await;
            waited.push(world.net.dials()[nth] - closed);
            agent.connected().await;
        }
        assert!(waited.iter().all(|wait| *wait <= JITTER), "{code}: {waited:?}");
        // Evenly spread from nothing to the jitter: so little in all comes once in 12! times.
        assert!(waited.iter().sum::<Duration>() >= JITTER, "{code}: {waited:?}");
        drop((here, there));
        world.over([agent]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn b51_after_silence_everything_goes_on_once_both_hold_the_link_for_dead() {
    let own = SessionConfig { dead_after: Duration::from_secs(3), ..quick() };
    goes_on(Fault::Silent, &quick(), &own, Duration::from_secs(3) + JITTER + ACK, "ok").await;
}

#[tokio::test(start_paused = true)]
async fn b51_b53_after_silence_everything_goes_on_also_if_the_server_still_trusts_the_old_link() {
    let config = SessionConfig { dead_after: Duration::from_secs(60), ..quick() };
    goes_on(Fault::Silent, &config, &quick(), Duration::from_secs(2) + JITTER + ACK, "fenced").await;
}

#[tokio::test(start_paused = true)]
async fn b52_after_one_way_silence_the_starving_side_cuts_and_everything_goes_on() {
    // Its close still reaches the other one.
    let patient = SessionConfig { dead_after: Duration::from_secs(60), ..quick() };
    let (agent_starves, server_starves) = (Fault::SilentDown, Fault::SilentUp);
    goes_on(agent_starves, &patient, &quick(), Duration::from_secs(2) + JITTER + ACK, "ok").await;
    goes_on(server_starves, &quick(), &patient, Duration::from_secs(2) + JITTER + ACK, "ok").await;
}

#[tokio::test(start_paused = true)]
async fn b53_everything_goes_on_if_only_the_agent_sees_its_link_gone() {
    let config = SessionConfig::default();
    goes_on(Fault::AgentGone, &config, &config, ACK, "fenced").await;
}

#[tokio::test(start_paused = true)]
async fn b51_everything_goes_on_if_only_the_server_sees_its_link_gone() {
    // The agent has to find out by itself.
    goes_on(Fault::ServerGone, &quick(), &quick(), Duration::from_secs(2) + JITTER + ACK, "ok").await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_seen_in_the_list_the_events_and_the_metrics() {
    let world = World::new();
    let mut agent = world.agent().await;
    let before = world.baseline().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    let (mut other, mut other_there) = world.pair(&mut agent).await;
    talk((&mut here, &mut there)).await;
    sleep(Duration::from_secs(5)).await;
    let connected = world.info();
    assert_eq!((connected.state, connected.streams, connected.reconnects), (KeyState::Connected, 2, 0));
    assert_eq!((connected.sent_bytes, connected.received_bytes), (4, 4));

    world.pause().await;
    let lost = world.when("lost")[0];
    sleep(Duration::from_secs(7)).await;
    let paused = world.info();
    assert_eq!((paused.state, paused.streams), (KeyState::Grace, 2));
    assert_eq!(paused.last_cause, Some(LossCause::Lost));
    assert_eq!(paused.grace_left, Some(Duration::from_secs(30) - lost.elapsed()));
    assert_eq!((paused.epoch, paused.instance), (connected.epoch, connected.instance));
    assert_eq!(world.connman.list_grace(), [paused]);
    assert!(matches!(*agent.status.borrow(), AgentStatus::Waiting { cause: ErrorKind::Handshake, .. }));
    assert_eq!(world.counted.sum("revdial_reconnection_grace_period_entries"), 1);

    world.net.down(false);
    agent.connected().await;
    let back = world.info();
    assert_eq!((back.state, back.streams, back.reconnects), (KeyState::Connected, 2, 1));
    assert!(back.epoch > connected.epoch && back.instance == connected.instance);
    assert_eq!((back.sent_bytes, back.received_bytes), (4, 4), "of the same session");
    talk((&mut here, &mut there)).await;
    talk((&mut other, &mut other_there)).await;

    assert_eq!(world.events(), ["connected", "lost", "resumed"]);
    let pause = world.when("resumed")[0] - lost;
    let counted = world.counted.values("revdial_session_pause_seconds");
    assert_eq!(counted, [pause.as_secs_f64()]);
    assert_eq!(world.counted.resumes(), ["ok 1"]);
    assert_eq!(world.counted.sum("revdial_reconnection_success_total"), 1);
    assert_eq!(world.counted.sum("revdial_reconnection_grace_period_entries"), 0);
    assert_eq!(world.counted.sum("revdial_active_connections"), 1);
    drop((here, there, other, other_there));
    world.settled(&before).await;
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn a_websocket_close_that_ends_the_session_is_no_pause() {
    for (code, kind) in [(1000, ErrorKind::SessionLost), (4413, ErrorKind::SessionLost), (4429, ErrorKind::SessionLost)]
    {
        let world = World::new();
        let mut agent = world.agent().await;
        let (mut here, mut there) = world.pair(&mut agent).await;
        world.net.fault(Fault::Close(code));
        assert_eq!((end(&mut here).await, end(&mut there).await), (Some(kind), Some(kind)), "{code}");
        agent.connected().await;
        assert_eq!(world.counted.resumes(), [""; 0], "{code}: a new session was asked for");
        drop((here, there));
        world.over([agent]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn b51_a_dead_peer_is_counted_and_closed_with_4408() {
    let world = World::of(ConnectionManager::builder(), quick());
    let mut agent = world.agent().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    let start = Instant::now();
    world.net.fault(Fault::SilentUp);
    world.in_grace().await;
    assert!(start.elapsed() >= Duration::from_secs(1) && start.elapsed() <= Duration::from_millis(2100));
    assert_eq!(world.info().last_cause, Some(LossCause::Dead));
    assert_eq!(world.counted.sum("revdial_dead_peer_total"), 1);
    // The agent was told, by a close that says why.
    agent.connected().await;
    assert!(start.elapsed() <= Duration::from_millis(2100) + JITTER);
    talk((&mut here, &mut there)).await;
    drop((here, there));
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn b51_the_close_of_a_link_on_which_nothing_was_heard_has_4408_on_the_wire() {
    let world = World::of(ConnectionManager::builder(), quick());
    let mut silent = world.raw().await;
    silent.greet(hello(1)).await;
    world.in_grace().await; // without a PONG
    let code = loop {
        if let Arrived::Closed(code) = silent.recv().await {
            break code;
        }
    };
    assert_eq!(code.map(CloseCode::number), Some(4408));
    assert_eq!(world.counted.sum("revdial_dead_peer_total"), 1);
    assert_eq!(world.counted.sum("revdial_close_total{dead}"), 1);
    drop(silent);
    world.over([]).await;
}

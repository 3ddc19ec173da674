//! What who watches a manager sees: events as they come, and the state of each key.

use std::time::Duration;

use revdial::{
    Protocol,
    connman::{ConnectionManager, KeyState, LossCause, TunnelEvent},
};
use tokio::time::{Instant, sleep};

use crate::{Running, dial, in_grace, key, net::Net, prompt, until, waiting};

#[tokio::test(start_paused = true)]
async fn c9_each_subscriber_is_told_all_from_its_own_begin_on_and_nobody_waits_for_one() {
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let (mut first, _never_reads) = (connman.subscribe(), connman.subscribe());
    let mut agent = Running::on(&net).await;
    let mut second = connman.subscribe();
    net.down(true);
    net.cut();
    in_grace(&connman).await;
    net.down(false);
    until("back", || connman.stats().active_connections == 1).await;
    agent.connected().await;
    agent.run.abort();
    sleep(Duration::from_secs(40)).await;
    drop(connman);
    drop(net);
    let mut names = Vec::new();
    while let Some(event) = first.next().await {
        let event = event.expect("nothing is missed");
        assert_eq!(*event.key(), key());
        names.push(event.name());
    }
    assert_eq!(names, ["connected", "lost", "resumed", "lost", "expired"]);
    let event = second.try_next().unwrap().unwrap();
    assert!(matches!(event, TunnelEvent::Lost { cause: LossCause::Lost, .. }), "{event:?}");
}

#[tokio::test(start_paused = true)]
async fn c8_a_list_tells_of_each_key_all_that_an_operator_asks_for() {
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let builder = prompt("a").agent_version("sandbox 1.2").label("room", "3");
    let mut agent = Running::of(net.build(builder)).await;
    let mut stream = dial(&connman).await.unwrap().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"seven..").await.unwrap();
    sleep(Duration::from_secs(20)).await;
    let [info] = &connman.list()[..] else { panic!() };
    assert_eq!((&info.key, info.state, info.protocol), (&key(), KeyState::Connected, Protocol::Native));
    assert_eq!((info.since, info.reconnects, info.last_cause), (Duration::from_secs(20), 0, None));
    assert_eq!((info.streams, info.sent_bytes, info.received_bytes, info.pending_dials), (1, 7, 0, 0));
    assert_eq!((&*info.agent_version, &info.labels[..]), ("sandbox 1.2", &[("room".to_owned(), "3".to_owned())][..]));
    assert!(info.rtt.is_some(), "pings were answered");

    net.down(true);
    net.cut();
    in_grace(&connman).await;
    let waits = dial(&connman);
    waiting(&connman, 1).await;
    sleep(Duration::from_secs(10)).await;
    let [info] = &connman.list_grace()[..] else { panic!() };
    assert_eq!((info.state, info.pending_dials, info.streams), (KeyState::Grace, 1, 1));
    assert_eq!((info.since, info.grace_left), (Duration::from_secs(10), Some(Duration::from_secs(20))));
    assert_eq!(info.last_cause, Some(LossCause::Lost));
    let stats = connman.stats();
    assert_eq!((stats.active_connections, stats.grace_period_entries), (0, 1));
    assert_eq!((stats.pending_dials_total, stats.pending_dials_keys), (1, 1));
    assert_eq!((stats.streams, stats.sent_bytes, stats.received_bytes), (1, 7, 0));

    net.down(false);
    let back = Instant::now();
    until("back", || connman.stats().active_connections == 1).await;
    agent.connected().await;
    waits.await.unwrap().unwrap();
    let [info] = &connman.list()[..] else { panic!() };
    assert_eq!((info.state, info.reconnects, info.last_cause), (KeyState::Connected, 1, Some(LossCause::Lost)));
    assert!(info.since <= back.elapsed() && connman.list_grace().is_empty());
}

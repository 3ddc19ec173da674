//! What is taken from agents: their key by a disconnect, their server by a drain, their session by another node.

use std::time::Duration;

use revdial::{
    ErrorKind,
    agent::AgentStatus,
    connman::{ConnectionManager, LossCause, Stats},
    frame::CloseCode,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep},
};
use tracing_subscriber::filter::LevelFilter;

use crate::{
    Running,
    counted::Counted,
    dial, end, in_grace, key, manager, names,
    net::{Net, relay::Fault},
    told::Told,
    until, waiting,
};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn b22_a_revoked_agents_streams_die_within_a_second_at_both_ends_and_it_is_told_with_4401() {
    let counted = Counted::new();
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let mut agent = Running::on(&net).await;
    let (mut idle, mut busy) = (dial(&connman).await.unwrap().unwrap(), dial(&connman).await.unwrap().unwrap());
    let writing = tokio::spawn(async move { while busy.write_all(&[7; 64 * 1024]).await.is_ok() {} });
    sleep(SECOND).await;
    let start = Instant::now();
    assert!(connman.disconnect(&key()));
    assert_eq!(end(&mut idle).await, ErrorKind::SessionLost);
    writing.await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO, "here at once");
    let accepted = std::mem::take(&mut *agent.accepted.lock().unwrap());
    for mut stream in accepted {
        while stream.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {}
    }
    assert!(start.elapsed() <= SECOND, "{:?}", start.elapsed());
    let refused = agent.status.wait_for(|status| matches!(status, AgentStatus::Refused { .. })).await.unwrap().clone();
    assert!(matches!(refused, AgentStatus::Refused { cause: ErrorKind::Auth, .. }), "{refused:?}");
    assert!(start.elapsed() <= SECOND, "{:?}", start.elapsed());
    assert_eq!(counted.sum("revdial_auth_failures_total{revoked}"), 1);
    assert_eq!(connman.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn b22_an_agent_that_hears_nothing_or_is_in_grace_is_revoked_all_the_same() {
    for lost in [false, true] {
        let connman = ConnectionManager::new();
        let mut events = connman.subscribe();
        let net = Net::to(&connman);
        let agent = Running::on(&net).await;
        let mut stream = dial(&connman).await.unwrap().unwrap();
        if lost {
            agent.run.abort();
            in_grace(&connman).await;
        } else {
            net.fault(Fault::Silent);
        }
        let waits = lost.then(|| dial(&connman));
        waiting(&connman, usize::from(lost)).await;
        let start = Instant::now();
        assert!(connman.disconnect(&key()));
        assert_eq!(end(&mut stream).await, ErrorKind::SessionLost);
        if let Some(waits) = waits {
            assert_eq!(waits.await.unwrap().unwrap_err().kind(), ErrorKind::NoConnection);
        }
        assert_eq!((start.elapsed(), connman.stats()), (Duration::ZERO, Stats::default()));
        assert!(!connman.disconnect(&key()), "there is nothing left");
        let mut names = Vec::new();
        while let Some(Ok(event)) = events.try_next() {
            names.push(event.name());
        }
        assert_eq!(names, if lost { vec!["connected", "lost", "expired"] } else { vec!["connected", "lost"] });
    }
}

#[tokio::test(start_paused = true)]
async fn b84_a_drain_says_how_long_it_took() {
    let counted = Counted::new();
    let (connman, events) = manager();
    let net = Net::to(&connman);
    let agent = Running::on(&net).await;
    let stream = dial(&connman).await.unwrap().unwrap();
    let drains = connman.clone();
    let drain = tokio::spawn(async move { drains.drain(60 * SECOND).await });
    sleep(7 * SECOND).await;
    let waits = dial(&connman);
    waiting(&connman, 1).await;
    drop(stream);
    agent.accepted.lock().unwrap().clear();
    drain.await.unwrap();
    assert_eq!(waits.await.unwrap().unwrap_err().kind(), ErrorKind::Shutdown);
    let took = counted.values("revdial_drain_seconds");
    assert!(took.len() == 1 && (7.0..8.0).contains(&took[0]), "{took:?}");
    assert!(names(&events).contains(&"draining"));
}

#[tokio::test(start_paused = true)]
async fn b71_a_session_that_is_led_to_another_node_begins_anew_there_and_its_streams_are_lost() {
    let counted = Counted::new();
    let (here, there) = (ConnectionManager::new(), ConnectionManager::new());
    let net = Net::to(&here);
    let mut agent = Running::on(&net).await;
    let mut stream = dial(&here).await.unwrap().unwrap();
    stream.write_all(b"x").await.unwrap();
    sleep(SECOND).await;
    let mut accepted = agent.accepted.lock().unwrap().remove(0);
    assert_eq!(accepted.read_u8().await.unwrap(), b'x');

    net.lead_to(&Net::to(&there));
    net.cut();
    in_grace(&here).await;
    let lost = Instant::now();
    until("there", || there.stats().active_connections == 1).await;
    agent.connected().await;
    assert_eq!(end(&mut accepted).await, ErrorKind::SessionLost, "at the agent with its new session");
    assert_eq!(counted.resumes(), ["unknown 1"]);
    dial(&there).await.unwrap().unwrap();
    // Without a directory nobody tells the old node, whose grace is what ends its streams.
    assert_eq!(end(&mut stream).await, ErrorKind::SessionLost);
    assert_eq!(lost.elapsed(), 30 * SECOND);
    assert_eq!(here.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_old_link_does_nothing_to_a_newer_one_after_a_disconnect() {
    let connman = ConnectionManager::new();
    let (net, other) = (Net::to(&connman), Net::to(&connman));
    let first = Running::on(&net).await;
    net.fault(Fault::Silent);
    connman.disconnect(&key());
    let _second = Running::on(&other).await;
    sleep(120 * SECOND).await;
    assert_eq!(connman.stats().active_connections, 1);
    let [info] = &connman.list()[..] else { panic!() };
    assert_ne!(info.last_cause, Some(LossCause::Local(CloseCode::CREDENTIALS)));
    first.run.abort();
}

/// The lines about tunnels that name a reason, and what they name.
fn reasons(told: &Told) -> Vec<(String, String)> {
    let lines =
        told.lines().into_iter().filter(|line| line.text.starts_with("tunnel") || line.text.contains("no tunnel"));
    lines.filter_map(|line| Some((line.text, line.fields.get("reason")?.clone()))).collect()
}

#[tokio::test(start_paused = true)]
async fn b22_b84_the_log_says_why_a_tunnel_went_or_was_refused() {
    let told = Told::down_to(LevelFilter::INFO);
    let connman = ConnectionManager::new();
    let (net, other) = (Net::to(&connman), Net::to(&connman));
    let _agent = Running::on(&net).await;
    connman.disconnect(&key());
    assert_eq!(reasons(&told), [("tunnel lost".to_owned(), "closed here with 4401 (credentials)".to_owned())]);
    let agent = Running::on(&other).await;
    agent.run.abort();
    in_grace(&connman).await;
    connman.disconnect(&key());
    let ended = ("tunnel expired".to_owned(), "ended here with 4401 (credentials)".to_owned());
    assert_eq!(reasons(&told), [("tunnel lost".to_owned(), "the connection was lost".to_owned()), ended]);
    connman.shutdown();
    let _refused = tokio::spawn(net.build(crate::prompt("a")).listen().1);
    sleep(SECOND).await;
    assert!(reasons(&told).contains(&(
        "no tunnel came about".to_owned(),
        "the registration was refused: the server goes down".to_owned()
    )));
}

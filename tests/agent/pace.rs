//! When an agent tries again: after which answers and ends, how soon, how often.

use std::time::Duration;

use revdial::{ErrorKind, agent::AgentStatus, connman::ConnectionManager, frame::CloseCode};
use tokio::time::Instant;

use crate::{connected, dial, echoing, net::Net, round_trip, setback};

#[tokio::test(start_paused = true)]
async fn a1_statuses_are_refusals_or_failures_and_paced_so() {
    let table = [
        (401, ErrorKind::Auth, true),
        (403, ErrorKind::Forbidden, true),
        (409, ErrorKind::KeyInUse, true),
        (426, ErrorKind::Version, true),
        (200, ErrorKind::Handshake, false),
        (301, ErrorKind::Handshake, false),
        (302, ErrorKind::Handshake, false),
        (404, ErrorKind::Handshake, false),
        (500, ErrorKind::Handshake, false),
        (503, ErrorKind::Handshake, false),
    ];
    for (code, kind, slow) in table {
        let net = Net::answering(code, &[("location", "http://elsewhere/")]);
        paced(&net, kind, slow, &code.to_string()).await;
        assert!(net.uris().iter().all(|uri| uri.host() == Some("gateway")), "{code}: a redirect was followed");
    }
}

#[tokio::test(start_paused = true)]
async fn close_codes_are_refusals_or_failures_and_paced_so() {
    let table = [
        (1000, ErrorKind::Shutdown, true),
        (1008, ErrorKind::Forbidden, true),
        (4401, ErrorKind::Auth, true),
        (4403, ErrorKind::Forbidden, true),
        (4411, ErrorKind::KeyInUse, true),
        (4426, ErrorKind::Version, true),
        (1001, ErrorKind::Shutdown, false),
        (1011, ErrorKind::SessionLost, false),
        (1012, ErrorKind::Shutdown, false),
        (1013, ErrorKind::Overloaded, false),
        (4408, ErrorKind::SessionLost, false),
        (4409, ErrorKind::SessionLost, false),
        (4413, ErrorKind::Overloaded, false),
        (4420, ErrorKind::Protocol, false),
        (4999, ErrorKind::SessionLost, false),
    ];
    for (code, kind, slow) in table {
        for with_frame in [true, false] {
            paced(&Net::closing(CloseCode::new(code), with_frame), kind, slow, &code.to_string()).await;
        }
    }
}

/// Runs an agent into five setbacks of one kind. What it is doing between two of them may pass unseen.
async fn paced(net: &Net, kind: ErrorKind, slow: bool, named: &str) {
    let agent = net.agent();
    let mut status = agent.status();
    let (_listener, run) = agent.listen();
    let run = tokio::spawn(run);
    for attempt in 1..=5_u32 {
        let (cause, wait, refused, text) = setback(&mut status).await;
        assert_eq!((cause, refused), (kind, slow), "{text}");
        assert!(text.contains(named) && !text.contains("because") && !text.contains("html"), "{text}");
        let bound = if slow { 60_000 } else { 125 << attempt };
        assert!(wait <= Duration::from_millis(bound), "{named}: attempt {attempt} is {wait:?} away");
        assert!(!slow || wait >= Duration::from_secs(30), "{named}: attempt {attempt} is {wait:?} away");
        let (told, due) = (status.borrow().clone(), Instant::now() + wait);
        assert_eq!(net.dials().len(), attempt as usize);
        status.wait_for(|status| *status != told && *status != AgentStatus::Connecting).await.unwrap();
        let late = net.dials()[attempt as usize].duration_since(due);
        assert!(late <= Duration::from_millis(2), "{named}: attempt {attempt} was {late:?} late");
    }
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    assert_eq!(*status.borrow(), AgentStatus::Stopped);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_a_minimum() {
    let date = ("date", "Wed, 21 Oct 2026 07:28:00 GMT");
    for (retry_after, date) in [("7", date), ("Wed, 21 Oct 2026 07:28:07 GMT", date)] {
        let net = Net::answering(503, vec![("retry-after", retry_after), date].leak());
        let agent = net.agent();
        let mut status = agent.status();
        let (_listener, run) = agent.listen();
        tokio::spawn(run);
        let (_, wait, _, _) = setback(&mut status).await;
        assert!((7000..=7250).contains(&wait.as_millis()), "{retry_after}: {wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_be_reached_is_tried_ever_more_slowly() {
    let net = Net::answering(200, &[]);
    net.down(true);
    let (mut status, _run) = echoing(&net);
    let (cause, _, refused, text) = setback(&mut status).await;
    assert_eq!((cause, refused), (ErrorKind::Handshake, false));
    assert!(text.contains("cannot be reached") && text.contains("refused"), "{text}");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let dials = net.dials();
    // A mean of 15 s in the end.
    assert!((150..400).contains(&dials.len()), "{}", dials.len());
    assert!(dials.windows(2).all(|pair| pair[1] - pair[0] <= Duration::from_millis(30_002)));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_left() {
    let net = Net::new(|io| {
        tokio::spawn(async move {
            let _io = io;
            std::future::pending::<()>().await;
        });
    });
    let (mut status, _run) = echoing(&net);
    let start = Instant::now();
    let (cause, _, _, text) = setback(&mut status).await;
    assert_eq!(cause, ErrorKind::Handshake);
    assert!(text.contains("in time") && start.elapsed() <= Duration::from_secs(21), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_link_that_was_used_is_dialled_at_once() {
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let (mut status, _run) = echoing(&net);
    connected(&mut status).await;
    let mut stream = dial(&connman, "").await.unwrap();
    round_trip(&mut stream).await;
    net.cut();
    let lost = Instant::now();
    round_trip(&mut stream).await;
    // Waits in the grace, and for nothing else.
    round_trip(&mut dial(&connman, "").await.unwrap()).await;
    assert!(lost.elapsed() <= Duration::from_millis(5), "{:?}", lost.elapsed());
    assert_eq!(net.dials().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_breaks_again_and_again_is_no_storm() {
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let (mut status, _run) = echoing(&net);
    connected(&mut status).await;
    let start = Instant::now();
    let mut stream = dial(&connman, "").await.unwrap();
    while net.dials().len() < 1000 {
        round_trip(&mut stream).await;
        net.cut();
    }
    // 125 at once and 25 a second; of the rest, which waits for the jitter, some.
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(20) && took <= Duration::from_secs(40), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_link_that_was_not_used_waits_for_the_jitter() {
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let (mut status, _run) = echoing(&net);
    connected(&mut status).await;
    net.cut();
    let (cause, wait, refused, _) = setback(&mut status).await;
    assert_eq!((cause, refused), (ErrorKind::SessionLost, false));
    assert!(wait <= Duration::from_millis(250));
    connected(&mut status).await;
}

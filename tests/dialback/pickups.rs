//! Who may bring a connection that the server asked for, and which dial gets it.

use std::{collections::HashSet, time::Duration};

use revdial::{
    AgentKey, ErrorKind, TargetName,
    connman::ConnectionManager,
    server::{KeyedBearer, RevDialLayer},
};
use tokio::{io::AsyncReadExt, task::JoinSet, time::Instant};

use crate::{
    classic::{Peer, ids, soon},
    net::Net,
    random::Random,
    until,
    world::{ALICE, MALLORY, Server, ends, failed, hear, opened, say},
};

#[tokio::test(start_paused = true)]
async fn b91_a_pick_up_that_nobody_asked_for_is_404() {
    let server = Server::new();
    let mut control = server.control().await;
    let dialled = server.dial();
    let path = control.conn_ready().await;
    let [dialer, request] = ids(&path).unwrap();
    let (none, other) = ("0".repeat(32), "1".repeat(32));
    for path in [
        format!("/revdial?revdial.dialer={none}&revdial.req={other}"),
        format!("/revdial?revdial.dialer={dialer}&revdial.req={other}"),
        format!("/revdial?revdial.dialer={dialer}&revdial.req={request}0"),
        format!("/revdial?revdial.dialer={dialer}&revdial.req={}", request.get(1..).unwrap()),
        format!("/revdial?revdial.dialer={dialer}&revdial.req="),
        format!("/revdial?revdial.dialer={dialer}"),
        format!("/revdial?revdial.dialer={none}&revdial.req={other}&runnerid=a"),
    ] {
        assert_eq!(server.pick_up_as(&path, ALICE.0).await.err(), Some(404), "{path}");
        assert!(!dialled.is_finished(), "{path}");
    }
    assert_eq!(server.counted.sum("revdial_pickup_total{unknown}"), 7);
    server.pick_up(&path).await;
    opened(dialled).await;
}

#[tokio::test(start_paused = true)]
async fn b92_a_second_pick_up_of_one_request_is_410_and_the_first_goes_on() {
    let server = Server::new();
    let mut control = server.control().await;
    let dialled = server.dial();
    let path = control.conn_ready().await;
    let mut there = server.pick_up(&path).await;
    let mut here = opened(dialled).await;
    for _ in 0..3 {
        assert_eq!(server.pick_up_as(&path, ALICE.0).await.err(), Some(410));
    }
    assert_eq!(server.counted.sum("revdial_pickup_total{duplicate}"), 3);
    say(&mut here, b"first").await;
    assert_eq!(there.bytes(5).await, b"first");
    there.finish().await;
    ends(&mut here).await;
}

#[tokio::test(start_paused = true)]
async fn two_pick_ups_of_one_request_at_once_are_one() {
    let server = Server::new();
    let mut control = server.control().await;
    for _ in 0..20 {
        let dialled = server.dial();
        let path = control.conn_ready().await;
        let all = [(); 4].map(|()| server.pick_up_as(&path, ALICE.0));
        let results = futures_util::future::join_all(all).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert!(results.iter().filter_map(|result| result.as_ref().err()).all(|status| *status == 410));
        let mut here = opened(dialled).await;
        let mut there = results.into_iter().find_map(Result::ok).unwrap();
        there.say("x").await;
        hear(&mut here, b"x").await;
    }
}

#[tokio::test(start_paused = true)]
async fn b93_a_pick_up_by_somebody_else_is_403_and_the_dial_waits_on() {
    let server = Server::new();
    let (mut control, _other) = (server.control().await, server.control_of(MALLORY).await);
    let dialled = server.dial();
    let path = control.conn_ready().await;
    assert_eq!(server.pick_up_as(&path, MALLORY.0).await.err(), Some(403));
    assert_eq!(server.counted.sum("revdial_pickup_total{principal}"), 1);
    assert!(!dialled.is_finished());
    let mut there = server.pick_up(&path).await;
    let mut here = opened(dialled).await;
    there.say("alice").await;
    hear(&mut here, b"alice").await;
}

#[tokio::test(start_paused = true)]
async fn b94_a_pick_up_for_a_dial_that_gave_up_is_410() {
    let server = Server::new();
    let mut control = server.control().await;
    let start = Instant::now();
    let (timed_out, dropped, aborted) = (server.dial(), server.dial(), server.dial());
    let paths = [control.conn_ready().await, control.conn_ready().await, control.conn_ready().await];
    dropped.abort();
    aborted.abort();
    assert!(soon(dropped).await.unwrap_err().is_cancelled() && soon(aborted).await.unwrap_err().is_cancelled());
    assert_eq!(server.pick_up_as(&paths[1], ALICE.0).await.err(), Some(410));
    assert_eq!(failed(timed_out).await, ErrorKind::DialTimeout);
    assert_eq!(start.elapsed(), Duration::from_secs(10), "the manager's dial timeout");
    for path in [&paths[0], &paths[2]] {
        assert_eq!(server.pick_up_as(path, ALICE.0).await.err(), Some(410));
        control.pickup_failed(path, "websocket: bad handshake").await;
    }
    assert_eq!(server.counted.sum("revdial_pickup_total{late}"), 3);
    server.works(&mut control).await;
}

#[tokio::test(start_paused = true)]
async fn a_pick_up_without_good_credentials_is_401_whatever_it_names() {
    let server = Server::new();
    let mut control = server.control().await;
    let dialled = server.dial();
    let path = control.conn_ready().await;
    let unknown = path.replace(ids(&path).unwrap()[1], &"0".repeat(32));
    for path in [&path, &unknown] {
        assert_eq!(server.pick_up_as(path, "eve").await.err(), Some(401), "{path}");
    }
    assert!(!dialled.is_finished());
    server.pick_up(&path).await;
    opened(dialled).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_good_for_one_key_alone_is_good_for_its_pick_ups_alone() {
    let (connman, bearer) = (ConnectionManager::new(), KeyedBearer::new("secret").unwrap());
    let key = |name: &str| name.parse::<AgentKey>().unwrap();
    let (a, b) = (bearer.token_for(&key("a")), bearer.token_for(&key("b")));
    let net = Net::of(RevDialLayer::new(connman.clone(), bearer));
    let mut control = Peer::control(net.open(), "a", &a).await;
    let _other = Peer::control(net.open(), "b", &b).await;
    let dialled = tokio::spawn(connman.dial(&key("a"), &TargetName::default()));
    let path = control.conn_ready().await;
    let refused = Peer::pick_up(net.open(), &path, &b).await.err();
    assert!(matches!(refused, Some(401 | 403)), "{refused:?}");
    assert!(!dialled.is_finished());
    let mut there = Peer::pick_up(net.open(), &path, &a).await.unwrap();
    there.say("x").await;
    hear(&mut opened(dialled).await, b"x").await;
}

#[tokio::test(start_paused = true)]
async fn b95_a_pickup_failed_fails_its_dial_at_once_and_no_other() {
    let server = Server::new();
    let mut control = server.control().await;
    let (first, second) = (server.dial(), server.dial());
    let paths = [control.conn_ready().await, control.conn_ready().await];
    let start = Instant::now();
    control.pickup_failed(&paths[0], "dial tcp 127.0.0.1:80: connect: connection refused").await;
    let error = soon(first).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::TargetRefused, true));
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(!error.to_string().contains("127.0.0.1"), "what a peer said is for the log: {error}");
    assert_eq!(server.counted.sum("revdial_dial_failures_total{target_refused}"), 1);
    assert_eq!(server.pick_up_as(&paths[0], ALICE.0).await.err(), Some(410));
    assert!(!second.is_finished());
    // Twice, and of what has its connection: ignored.
    control.pickup_failed(&paths[0], "again").await;
    let mut there = server.pick_up(&paths[1]).await;
    let mut here = opened(second).await;
    control.pickup_failed(&paths[1], "late").await;
    server.works(&mut control).await;
    there.say("x").await;
    hear(&mut here, b"x").await;
}

#[tokio::test(start_paused = true)]
async fn a_pickup_failed_of_somebody_else_is_no_word_about_a_dial() {
    let server = Server::new();
    let (mut control, mut other) = (server.control().await, server.control_of(MALLORY).await);
    let dialled = server.dial();
    let path = control.conn_ready().await;
    other.pickup_failed(&path, "mine now").await;
    let own = server.dial_to(MALLORY.1);
    let own_path = other.conn_ready().await;
    other.pickup_failed(&own_path, "heard behind the other").await;
    assert_eq!(failed(own).await, ErrorKind::TargetRefused);
    assert!(!dialled.is_finished());
    server.pick_up(&path).await;
    opened(dialled).await;
}

#[tokio::test(start_paused = true)]
async fn dropped_dials_and_streams_leave_nothing_behind() {
    let server = Server::new();
    let mut control = server.control().await;
    for round in 0..50 {
        let dialled = server.dial();
        let path = control.conn_ready().await;
        if round % 2 == 0 {
            let there = server.pick_up(&path).await;
            drop((opened(dialled).await, there));
        } else {
            dialled.abort();
            assert!(soon(dialled).await.unwrap_err().is_cancelled());
        }
    }
    until("no stream is left", || server.connman.stats().streams == 0).await;
    let stats = server.connman.stats();
    assert_eq!((stats.active_connections, stats.pending_dials_total, stats.pending_dials_keys), (1, 0, 0));
    assert_eq!((server.info().streams, server.info().draining_sessions), (0, 0));
    server.works(&mut control).await;
}

#[tokio::test(start_paused = true)]
async fn each_dial_gets_the_connection_of_its_own_request() {
    let server = Server::new();
    let mut control = server.control().await;
    let mut random = Random::new(7);
    let mut asked = Vec::new();
    for nth in 0..60_u8 {
        // One after the other, so that it is known whose request is whose.
        let dialled = server.dial();
        asked.push((nth, control.conn_ready().await, dialled));
    }
    for left in (1..=asked.len()).rev() {
        let (nth, path, dialled) = asked.swap_remove(random.below(left));
        if nth % 5 == 0 {
            control.pickup_failed(&path, "refused").await;
            assert_eq!(failed(dialled).await, ErrorKind::TargetRefused, "{nth}");
            continue;
        }
        let mut there = server.pick_up(&path).await;
        there.say([nth]).await;
        let mut here = opened(dialled).await;
        hear(&mut here, &[nth]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_dials_by_fifty_tasks_cross_no_connections() {
    const TOKEN_LENGTH: usize = 8;
    let server = Server::new();
    let mut control = server.control().await;
    let mut dials = JoinSet::new();
    for task in 0..50_u32 {
        let connman = server.connman.clone();
        dials.spawn(async move {
            let mut requests = Vec::new();
            for round in 0..20 {
                let mut stream = soon(connman.dial(&"a".parse().unwrap(), &TargetName::default())).await.unwrap();
                let token = format!("{task:04}{round:04}");
                say(&mut stream, token.as_bytes()).await;
                let mut back = [0; TOKEN_LENGTH + 32];
                soon(stream.read_exact(&mut back)).await.unwrap();
                assert_eq!(&back[..TOKEN_LENGTH], token.as_bytes());
                requests.push(String::from_utf8(back[TOKEN_LENGTH..].to_vec()).unwrap());
            }
            requests
        });
    }
    let (net, mut random) = (server.net.clone(), Random::new(11));
    let agent = tokio::spawn(async move {
        loop {
            let path = control.conn_ready().await;
            // Brought sooner or later, and so in another order.
            let (net, turns) = (net.clone(), random.below(400));
            tokio::spawn(async move {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                let mut there = Peer::pick_up(net.open(), &path, ALICE.0).await.unwrap();
                let mut back = there.bytes(TOKEN_LENGTH).await;
                back.extend(ids(&path).unwrap()[1].as_bytes());
                there.say(back).await;
                there.ends().await;
            });
        }
    });
    let mut requests = HashSet::new();
    while let Some(task) = soon(dials.join_next()).await {
        requests.extend(task.unwrap());
    }
    assert_eq!(requests.len(), 1000, "each request has its dial, and each dial its request");
    agent.abort();
    until("no stream is left", || server.connman.stats().streams == 0).await;
}

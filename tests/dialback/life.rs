//! A server of ours over the life of a deployed agent: lost, silent, back, displaced, refused, listed.

use std::time::Duration;

use revdial::{
    ErrorKind,
    connman::{ConnectionManager, Displace, Grace, GracePolicy, KeyState, LinkLoss, LossCause, Registration},
};
use tokio::time::{Instant, sleep};

use crate::{
    classic::{
        self, Arrived, KEEP_ALIVE, Peer, Side, soon,
        wire::{BINARY, Frame, PING, PONG},
    },
    until,
    world::{ALICE, MALLORY, Server, by_name, ends, failed, hear, opened, say},
};

#[tokio::test(start_paused = true)]
async fn an_agent_is_listed_with_its_protocol_and_its_streams() {
    let server = Server::new();
    let mut control = server.control().await;
    let (mut here, mut there) = server.joined(&mut control).await;
    say(&mut here, b"12345").await;
    assert_eq!(there.bytes(5).await, b"12345");
    there.say("123").await;
    hear(&mut here, b"123").await;
    let info = server.info();
    assert_eq!((info.protocol.as_str(), info.state), ("dial-back", KeyState::Connected));
    assert_eq!((info.key.as_str(), info.principal.as_str()), ("a", "alice"));
    assert_eq!((info.streams, info.sent_bytes, info.received_bytes), (1, 5, 3));
    let stats = server.connman.stats();
    assert_eq!((stats.active_connections, stats.streams), (1, 1));
    assert_eq!((stats.sent_bytes, stats.received_bytes), (5, 3));
    there.finish().await;
    ends(&mut here).await;
    drop((here, there));
    until("the stream is gone", || server.connman.stats().streams == 0).await;
    assert_eq!(server.events(), ["connected"]);
}

#[tokio::test(start_paused = true)]
async fn b98_streams_outlive_the_control_connection() {
    let server = Server::new();
    let mut control = server.control().await;
    let (mut here, mut there) = server.joined(&mut control).await;
    drop(control);
    server.in_grace().await;
    assert_eq!((server.info().state, server.info().streams), (KeyState::Grace, 1));
    for word in [b"in grace", b"too late"] {
        say(&mut here, word).await;
        assert_eq!(there.bytes(8).await, word);
        there.say(*word).await;
        hear(&mut here, word).await;
    }
    let mut control = server.control().await;
    say(&mut here, b"back").await;
    assert_eq!(there.bytes(4).await, b"back");
    server.works(&mut control).await;
    assert_eq!(server.events(), ["connected", "lost", "reconnected"]);
    there.say("the last").await;
    there.finish().await;
    hear(&mut here, b"the last").await;
    ends(&mut here).await;
}

#[tokio::test(start_paused = true)]
async fn b64_dials_wait_for_a_lost_agent_and_are_served_in_their_order() {
    let server = Server::new();
    drop(server.control().await);
    server.in_grace().await;
    let mut dials = Vec::new();
    for nth in 0..10 {
        dials.push(server.dial());
        server.waiting(nth + 1).await;
    }
    sleep(Duration::from_secs(20)).await;
    assert!(dials.iter().all(|dial| !dial.is_finished()));
    let mut control = server.control().await;
    let mut brought = Vec::new();
    for nth in 0..10_u8 {
        let path = control.conn_ready().await;
        let mut there = server.pick_up(&path).await;
        there.say([nth]).await;
        brought.push(there);
    }
    for (nth, dial) in dials.into_iter().enumerate() {
        hear(&mut opened(dial).await, &[nth as u8]).await;
    }
    assert_eq!(server.connman.stats().pending_dials_total, 0);
}

/// A dial whose request was lost with its control connection.
#[tokio::test(start_paused = true)]
async fn a_dial_that_meets_a_dying_control_connection_is_asked_for_again() {
    let server = Server::new();
    let mut control = server.control().await;
    let dialled = server.dial();
    let lost = control.conn_ready().await;
    drop(control);
    server.in_grace().await;
    let mut control = server.control().await;
    let path = control.conn_ready().await;
    assert_ne!(path, lost);
    let mut there = server.pick_up(&path).await;
    there.say("x").await;
    hear(&mut opened(dialled).await, b"x").await;
}

#[tokio::test(start_paused = true)]
async fn b64_the_end_of_the_grace_fails_who_waits() {
    let server = Server::new();
    drop(server.control().await);
    server.in_grace().await;
    let lost = Instant::now();
    let first = server.dial();
    sleep(Duration::from_secs(29)).await;
    let last = server.dial();
    for dialled in [first, last] {
        assert_eq!(failed(dialled).await, ErrorKind::ReconnectTimeout);
        let waited = lost.elapsed();
        assert!(waited <= Duration::from_secs(30) && waited > Duration::from_millis(29_900), "{waited:?}");
    }
    assert_eq!(failed(server.dial()).await, ErrorKind::NoConnection);
    assert!(server.connman.list().is_empty());
    assert_eq!(server.events(), ["connected", "lost", "expired"]);
    // And the key is anybody's again.
    let mut control = server.control().await;
    server.works(&mut control).await;
}

#[tokio::test(start_paused = true)]
async fn b99_a_minute_of_silence_is_taken_for_dead() {
    let server = Server::new();
    let start = Instant::now();
    let mut control = server.control().await;
    sleep(Duration::from_millis(59_900)).await;
    assert_eq!(server.info().state, KeyState::Connected);
    server.in_grace().await;
    let after = start.elapsed();
    assert!((60_000..60_100).contains(&after.as_millis()), "{after:?}");
    assert_eq!(server.info().last_cause, Some(LossCause::Dead));
    // It was pinged, and did not answer.
    let pings = soon(control.pings()).await;
    assert!((3..=4).contains(&pings), "{pings}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_only_answers_pings_lives_and_is_told_that_the_server_does() {
    let server = Server::new();
    let mut control = server.control().await;
    let start = Instant::now();
    let (mut lines, mut pings) = (0, 0);
    while start.elapsed() < Duration::from_secs(300) {
        let frame = control.frame().await.expect("it lives");
        match frame.opcode {
            PING => {
                pings += 1;
                control.send(PONG, frame.payload).await;
            }
            _ => {
                lines += 1;
                assert_eq!(frame.payload, KEEP_ALIVE.as_bytes());
                assert_eq!(start.elapsed().as_secs(), 18 * lines);
            }
        }
    }
    assert_eq!((lines, pings), (16, 20), "each 18 s and each 15 s");
    server.works(&mut control).await;
}

#[tokio::test(start_paused = true)]
async fn b10_a_second_agent_has_the_key_and_the_first_is_ended() {
    let server = Server::new();
    let mut first = server.control().await;
    let mut second = server.control().await;
    let ended = first.ends().await;
    assert!(matches!(ended, Arrived::Closed(_) | Arrived::End), "{ended:?}");
    for _ in 0..3 {
        server.works(&mut second).await;
    }
    assert_eq!((server.info().state, server.connman.stats().active_connections), (KeyState::Connected, 1));
    assert!(server.events().contains(&"replaced"), "{:?}", server.events());
    assert_eq!(server.counted.sum("revdial_key_conflicts_total{replaced}"), 1);
    // The end of the old link is nothing to the new one.
    drop(first);
    sleep(Duration::from_secs(1)).await;
    server.works(&mut second).await;
}

struct Rejecting;

impl GracePolicy for Rejecting {
    fn grace(&self, _: &LinkLoss<'_>) -> Grace {
        Grace::Hold(Duration::from_secs(30))
    }

    fn displace(&self, _: &Registration, _: &Registration) -> Displace {
        Displace::Reject
    }
}

#[tokio::test(start_paused = true)]
async fn b9_where_the_policy_rejects_a_second_agent_it_gets_409_before_the_upgrade() {
    let server = Server::of(ConnectionManager::builder().grace(Rejecting), by_name);
    let mut first = server.control().await;
    let request = classic::request("/api/v1/revdial?runnerid=a", ALICE.0);
    for _ in 0..3 {
        let (_, answer) = Peer::ask(server.net.open(), &request).await;
        assert_eq!(answer.status(), 409, "{answer:?}");
    }
    assert_eq!(server.counted.sum("revdial_key_conflicts_total{rejected}"), 3);
    server.works(&mut first).await;
    // In grace it may come: that is the return.
    drop(first);
    server.in_grace().await;
    let mut back = server.control().await;
    server.works(&mut back).await;
}

#[tokio::test(start_paused = true)]
async fn b8_a_key_of_somebody_else_is_403_while_it_is_connected_or_in_grace() {
    let server = Server::new();
    let mut control = server.control().await;
    let request = classic::request("/api/v1/revdial?runnerid=a", MALLORY.0);
    let (_, answer) = Peer::ask(server.net.open(), &request).await;
    assert_eq!(answer.status(), 403, "{answer:?}");
    server.works(&mut control).await;
    drop(control);
    server.in_grace().await;
    let (_, answer) = Peer::ask(server.net.open(), &request).await;
    assert_eq!(answer.status(), 403, "{answer:?}");
    let mut control = server.control().await;
    server.works(&mut control).await;
    drop(control);
    until("the key is free", || server.connman.list().is_empty()).await;
    let mut other = Peer::control(server.net.open(), "a", MALLORY.0).await;
    let dialled = server.dial();
    let path = other.conn_ready().await;
    assert_eq!(server.pick_up_as(&path, ALICE.0).await.err(), Some(403));
    let _there = server.pick_up_as(&path, MALLORY.0).await.unwrap();
    opened(dialled).await;
}

#[tokio::test(start_paused = true)]
async fn b16_what_follows_the_head_of_a_pick_up_at_once_is_the_begin_of_the_stream() {
    let server = Server::new();
    let mut control = server.control().await;
    let dialled = server.dial();
    let path = control.conn_ready().await;
    let mut there = Peer::new(server.net.open(), Side::Agent);
    let mut bytes = classic::request(&path.replacen("/revdial", "/api/v1/revdial", 1), ALICE.0).encode();
    for word in ["at ", "once"] {
        let frame = Frame { mask: Some([1, 2, 3, 4]), ..Frame::new(BINARY, word) };
        bytes.extend(frame.encode());
    }
    there.write(&bytes).await;
    there.finish().await;
    let mut here = opened(dialled).await;
    hear(&mut here, b"at once").await;
    ends(&mut here).await;
}

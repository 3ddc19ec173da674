use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt, future, poll};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role as WsRole},
};

use super::{Pair, Wakes, drain, fill, idle, link, open, open_early, throttled, tunnel};
use crate::{
    frame::{CloseCode, Frame, MessageHead, decode},
    key::Epoch,
    link::{LinkEnd, LinkError, Side},
    mux::{BindError, Driver, MuxStream, MuxTunnel, closing::close_message},
    proto::{Role, SessionConfig, SessionEnd},
};

fn frames(message: Bytes) -> Vec<Frame> {
    decode(message).unwrap().1.map(Result::unwrap).collect()
}

#[tokio::test(start_paused = true)]
async fn half_closed_peer_does_not_spin_driver() {
    let pair = Pair::new();
    let (mut near, mut far) = pair.stream().await;
    far.write_all(b"all there is").await.unwrap();
    far.shutdown().await.unwrap();
    let mut text = String::new();
    near.read_to_string(&mut text).await.unwrap();
    // Acks, and what else has a delay of its own, have left.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = pair.polls();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(pair.polls(), before);
    near.write_all(b"goes on").await.unwrap();
    let mut answer = [0; 7];
    far.read_exact(&mut answer).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn idle_driver_is_polled_for_pings_only() {
    let pair = Pair::new();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = pair.polls();
    tokio::time::sleep(Duration::from_secs(600)).await;
    // 600 s / (15 s - 20 %) = 50 pings of each side; each costs its sender and its receiver a few polls.
    assert!(pair.polls() - before <= 2 * 50 * 6, "{} polls", pair.polls() - before);
    assert!(pair.server.stats().rtt.is_some() && pair.agent.stats().rtt.is_some());
}

#[tokio::test(start_paused = true)]
async fn superseded_driver_neither_feeds_nor_drains() {
    let config = SessionConfig::default();
    let server = tunnel(Role::Server, &config);
    let (near, far) = tokio::io::duplex(1 << 20);
    let old = server.link_up(link(near, Side::Server), Epoch::new(1), 0).unwrap();
    let mut old_peer = link(far, Side::Client);
    let _stream = open_early(&server).await.unwrap();
    // Would end the session if it got in.
    old_peer.send(Bytes::from_static(b"not a message")).await.unwrap();

    let (near, far) = tokio::io::duplex(1 << 20);
    let new = server.link_up(link(near, Side::Server), Epoch::new(2), 0).unwrap();
    let mut new_peer = link(far, Side::Client);
    let old = tokio::spawn(old);
    let Err(LinkError::Closed { code, .. }) = old_peer.recv().await else { panic!("the old link gave a message") };
    assert_eq!(code, Some(CloseCode::STALE));
    drop(old_peer);
    assert_eq!(old.await.unwrap(), LinkEnd::Superseded);
    assert_eq!(server.ended(), None);

    let _new = tokio::spawn(new);
    let mut seen = Vec::new();
    while !seen.iter().any(|frame| matches!(frame, Frame::Open { .. })) {
        seen.extend(frames(new_peer.recv().await.unwrap()));
    }
}

#[tokio::test(start_paused = true)]
async fn parked_driver_learns_at_once_that_it_is_superseded() {
    let pair = Pair::new();
    idle().await;
    let (near, _far) = tokio::io::duplex(1 << 20);
    let _new = pair.server.link_up(link(near, Side::Server), Epoch::new(2), 0).unwrap();
    assert_eq!(pair.server_end.await.unwrap(), LinkEnd::Superseded);
    assert_eq!(pair.agent_end.await.unwrap(), LinkEnd::Closed(Some(CloseCode::STALE)));
}

#[tokio::test(start_paused = true)]
async fn link_as_old_as_the_bound_one_or_older_is_refused() {
    let pair = Pair::new();
    for epoch in [0, 1] {
        let (near, _far) = tokio::io::duplex(64);
        let refused = pair.server.link_up(link(near, Side::Server), Epoch::new(epoch), 0).unwrap_err();
        assert_eq!(refused, BindError::Stale);
    }
    pair.stream().await;
    pair.agent_end.abort();
    assert_eq!(pair.server_end.await.unwrap(), LinkEnd::Lost);
    let (near, _far) = tokio::io::duplex(64);
    let refused = pair.server.link_up(link(near, Side::Server), Epoch::new(1), 0).unwrap_err();
    assert_eq!(refused, BindError::Stale, "also after it is gone");
}

#[tokio::test(start_paused = true)]
async fn count_that_cannot_be_refuses_the_link_and_ends_the_session() {
    let server = tunnel(Role::Server, &SessionConfig::default());
    let (near, _far) = tokio::io::duplex(64);
    let refused = server.link_up(link(near, Side::Server), Epoch::new(1), 5).unwrap_err();
    assert!(matches!(refused, BindError::Violation(violation) if violation.code() == CloseCode::FORBIDDEN));
    assert!(matches!(server.ended(), Some(SessionEnd::Unresumable(_))));
    let (near, _far) = tokio::io::duplex(64);
    let refused = server.link_up(link(near, Side::Server), Epoch::new(2), 0).unwrap_err();
    assert_eq!(refused, BindError::Ended);
}

#[tokio::test(start_paused = true)]
async fn keepalive_passes_during_bulk_transfer() {
    let config = SessionConfig {
        ping_interval: Duration::from_millis(500),
        dead_after: Duration::from_secs(2),
        ..SessionConfig::default()
    };
    // About 400 KiB/s: 4 MiB take ten seconds, five times what a dead peer is given.
    let (near, far) = throttled(4096);
    let pair = Pair::over(&config, near, far);
    let (mut near, mut far) = pair.stream().await;
    let bulk = async { tokio::join!(fill(&mut near, 5, 4 << 20), drain(&mut far)) };
    let watch = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..80 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            slowest = slowest.max(pair.server.stats().rtt.unwrap_or_default());
        }
        slowest
    };
    let ((written, read), slowest) = tokio::join!(bulk, watch);
    assert_eq!(read.unwrap(), (written, 4 << 20));
    // 128 KiB below the scheduler and a message in front of the ping take half a second at this rate.
    assert!(slowest > Duration::ZERO && slowest < Duration::from_secs(1), "{slowest:?}");
    assert_eq!((pair.server.ended(), pair.agent.ended()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn silent_peer_is_dead_after_its_time() {
    let config = SessionConfig::default();
    let server = tunnel(Role::Server, &config);
    let (near, far) = tokio::io::duplex(1 << 16);
    let start = tokio::time::Instant::now();
    let driver = server.link_up(link(near, Side::Server), Epoch::new(1), 0).unwrap();
    let end = driver.await;
    assert_eq!(end, LinkEnd::Dead);
    assert!(start.elapsed() >= Duration::from_secs(45) && start.elapsed() < Duration::from_secs(47));
    assert_eq!(server.ended(), None);
    let mut peer = link(far, Side::Client);
    loop {
        match peer.recv().await {
            Ok(_) => {}
            Err(LinkError::Closed { code, .. }) => break assert_eq!(code, Some(CloseCode::DEAD_PEER)),
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn orderly_close_flushes_what_was_accepted() {
    let (near, far) = throttled(1024);
    let pair = Pair::over(&SessionConfig::default(), near, far);
    let mut streams = [pair.stream().await, pair.stream().await, pair.stream().await, pair.stream().await];
    let (_, waker) = Wakes::new();
    let mut cx = Context::from_waker(&waker);
    let accepted = streams.each_mut().map(|(near, _)| {
        let mut accepted = 0;
        while let Poll::Ready(n) = Pin::new(&mut *near).poll_write(&mut cx, &[9; 10_000]) {
            accepted += n.unwrap();
        }
        accepted
    });
    let mut fars = Vec::new();
    for (mut near, far) in streams {
        near.shutdown().await.unwrap();
        fars.push(far);
    }
    pair.server.shutdown(CloseCode::NORMAL, "done");
    let drained = future::join_all(fars.iter_mut().map(drain)).await;
    let totals: Vec<usize> = drained.into_iter().map(|drained| drained.unwrap().1).collect();
    assert_eq!(totals, accepted);
    assert!(totals.iter().sum::<usize>() > 200_000);
    assert_eq!(pair.server_end.await.unwrap(), LinkEnd::Local(CloseCode::NORMAL));
    assert_eq!(pair.server.ended(), Some(SessionEnd::Shutdown));
    assert_eq!(pair.agent_end.await.unwrap(), LinkEnd::Closed(Some(CloseCode::NORMAL)));
    let Some(SessionEnd::ClosedByPeer { code, .. }) = pair.agent.ended() else { panic!("{:?}", pair.agent.ended()) };
    assert_eq!(code, CloseCode::NORMAL);
}

#[tokio::test(start_paused = true)]
async fn m54_a_session_that_drains_closes_the_websocket_with_the_code_of_its_close() {
    for code in [CloseCode::DRAINED, CloseCode::RESTART] {
        let pair = Pair::new();
        pair.server.drain(code, Duration::from_secs(1), Duration::ZERO, "");
        assert_eq!(pair.server_end.await.unwrap(), LinkEnd::Local(code));
        assert_eq!(pair.server.ended(), Some(SessionEnd::Shutdown));
        assert_eq!(pair.agent_end.await.unwrap(), LinkEnd::Closed(Some(code)));
    }
}

#[tokio::test(start_paused = true)]
async fn close_tells_the_peer_why() {
    let pair = Pair::new();
    let (_near, mut far) = pair.stream().await;
    pair.server.close(CloseCode::REPLACED, "another came", SessionEnd::Replaced);
    let error = far.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(crate::error::Error::find(&error).unwrap().kind(), crate::error::ErrorKind::Replaced);
    assert_eq!(pair.server_end.await.unwrap(), LinkEnd::Local(CloseCode::REPLACED));
    assert_eq!(pair.agent_end.await.unwrap(), LinkEnd::Closed(Some(CloseCode::REPLACED)));
    assert_eq!(pair.agent.ended(), Some(SessionEnd::Replaced));
}

#[tokio::test(start_paused = true)]
async fn close_of_a_peer_that_does_not_read_is_over_in_a_second() {
    let server = tunnel(Role::Server, &SessionConfig::default());
    let (near, _far) = tokio::io::duplex(64);
    let driver = tokio::spawn(server.link_up(link(near, Side::Server), Epoch::new(1), 0).unwrap());
    let mut stream = open_early(&server).await.unwrap();
    stream.write_all(&[0; 4096]).await.unwrap();
    idle().await;
    let start = tokio::time::Instant::now();
    server.close(CloseCode::POLICY, "", SessionEnd::Revoked);
    assert_eq!(driver.await.unwrap(), LinkEnd::Local(CloseCode::POLICY));
    assert!(start.elapsed() <= Duration::from_millis(1001));
}

#[tokio::test(start_paused = true)]
async fn peers_close_codes_end_the_session_or_are_a_loss() {
    for (code, ends) in [
        (CloseCode::NORMAL, true),
        (CloseCode::REPLACED, true),
        (CloseCode::OVER_BUDGET, true),
        (CloseCode::FORBIDDEN, true),
        (CloseCode::CREDIT, true),
        (CloseCode::FLOOD, true),
        (CloseCode::MALFORMED, true),
        (CloseCode::DRAINED, false),
        (CloseCode::RESTART, false),
        (CloseCode::INTERNAL, false),
        (CloseCode::DEAD_PEER, false),
        (CloseCode::STALE, false),
    ] {
        let agent = tunnel(Role::Agent, &SessionConfig::default());
        let (near, far) = tokio::io::duplex(1 << 16);
        let driver = tokio::spawn(agent.link_up(link(near, Side::Client), Epoch::new(1), 0).unwrap());
        link(far, Side::Server).close(code, "x", Duration::from_secs(1)).await;
        assert_eq!(driver.await.unwrap(), LinkEnd::Closed(Some(code)));
        assert_eq!(agent.ended().is_some(), ends, "{code}");
        assert_eq!(agent.ended() == Some(SessionEnd::Replaced), code == CloseCode::REPLACED);
    }
}

#[tokio::test(start_paused = true)]
async fn violation_is_told_by_close_and_by_the_websocket_with_the_same_code() {
    let mut forbidden = BytesMut::new();
    MessageHead { number: 9, received: 0 }.encode(&mut forbidden);
    for (message, code) in [
        (Message::text("hello"), CloseCode::TEXT),
        (Message::binary(vec![0; 15]), CloseCode::MALFORMED),
        (Message::binary(vec![0; 80_000]), CloseCode::TOO_BIG),
        (Message::binary(forbidden.freeze()), CloseCode::FORBIDDEN),
    ] {
        let server = tunnel(Role::Server, &SessionConfig::default());
        let (near, far) = tokio::io::duplex(1 << 20);
        let driver = tokio::spawn(server.link_up(link(near, Side::Server), Epoch::new(1), 0).unwrap());
        let mut peer = WebSocketStream::from_raw_socket(far, WsRole::Client, None).await;
        peer.send(message).await.unwrap();
        let mut told = Vec::new();
        let closed = loop {
            match peer.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => told.extend(frames(bytes)),
                Message::Close(frame) => break frame.unwrap(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(u16::from(closed.code), code.number());
        assert!(matches!(told.last(), Some(Frame::Close { code: told, .. }) if *told == code), "{told:?}");
        drop(peer);
        assert_eq!(driver.await.unwrap(), LinkEnd::Violation(code));
        let Some(SessionEnd::Violation(violation)) = server.ended() else { panic!("not ended") };
        assert_eq!(violation.code(), code);
    }
}

#[tokio::test(start_paused = true)]
async fn flood_of_websocket_pings_is_a_violation() {
    let server = tunnel(Role::Server, &SessionConfig::default());
    let (near, far) = tokio::io::duplex(1 << 20);
    let driver = tokio::spawn(server.link_up(link(near, Side::Server), Epoch::new(1), 0).unwrap());
    let mut peer = WebSocketStream::from_raw_socket(far, WsRole::Client, None).await;
    for _ in 0..101 {
        peer.feed(Message::Ping(Bytes::new())).await.unwrap();
    }
    peer.flush().await.unwrap();
    let closed = loop {
        if let Message::Close(frame) = peer.next().await.unwrap().unwrap() {
            break frame.unwrap();
        }
    };
    assert_eq!(u16::from(closed.code), CloseCode::FLOOD.number());
    drop(peer);
    assert_eq!(driver.await.unwrap(), LinkEnd::Violation(CloseCode::FLOOD));
}

#[tokio::test(start_paused = true)]
async fn close_behind_many_messages_is_found_when_the_peer_takes_no_more() {
    let agent = tunnel(Role::Agent, &SessionConfig::default());
    let (near, far) = tokio::io::duplex(1 << 20);
    let driver = agent.link_up(link(near, Side::Client), Epoch::new(1), 0).unwrap();
    let mut peer = link(far, Side::Server);
    let mut nothing = BytesMut::new();
    MessageHead { number: 0, received: 0 }.encode(&mut nothing);
    let nothing = nothing.freeze();
    for _ in 0..200 {
        peer.send(nothing.clone()).await.unwrap();
    }
    peer.send(close_message(CloseCode::REPLACED, "")).await.unwrap();
    // From here on writes fail, and what was sent can still be read. The driver has DRAIN to write.
    drop(peer);
    agent.drain(CloseCode::DRAINED, Duration::ZERO, Duration::ZERO, "");
    assert_eq!(tokio::spawn(driver).await.unwrap(), LinkEnd::Closed(Some(CloseCode::REPLACED)));
    assert_eq!(agent.ended(), Some(SessionEnd::Replaced));
}

/// Both tunnels, the server's driver, which nobody polls, and the ends of an open stream.
async fn polled_by_hand() -> ([MuxTunnel; 2], Driver, [MuxStream; 2]) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let [server, agent] = [Role::Server, Role::Agent].map(|role| tunnel(role, &SessionConfig::default()));
    let mut driver = server.link_up(link(near, Side::Server), Epoch::new(1), 0).unwrap();
    tokio::spawn(agent.link_up(link(far, Side::Client), Epoch::new(1), 0).unwrap());
    let near = open_early(&server).await.unwrap();
    assert!(poll!(&mut driver).is_pending());
    let far = agent.incoming().await.unwrap().accept().unwrap();
    idle().await;
    // The answer and the first credit.
    assert!(poll!(&mut driver).is_pending());
    ([server, agent], driver, [near, far])
}

#[tokio::test(start_paused = true)]
async fn one_reader_gets_its_turn_with_a_full_message_unless_it_has_it_already() {
    let ([server, _agent], mut driver, [mut near, mut far]) = polled_by_hand().await;
    let mut byte = [0];
    assert!(poll!(pin!(near.read(&mut byte))).is_pending());
    let writer = tokio::spawn(async move { far.write_all(&[7; 300 * 1024]).await });
    idle().await;
    assert!(writer.is_finished(), "all of it is on its way");

    assert!(poll!(&mut driver).is_pending());
    assert_eq!(server.stats().unread_bytes, 64 * 1024);
    assert!(poll!(&mut driver).is_pending());
    assert_eq!(server.stats().unread_bytes, 300 * 1024, "nobody waits for a turn");
}

#[tokio::test(start_paused = true)]
async fn a_writer_in_bulk_has_a_turn_before_its_message_leaves() {
    let ([_server, agent], mut driver, [mut near, _far]) = polled_by_hand().await;
    tokio::spawn(async move { near.write_all(&[7; 300 * 1024]).await });
    idle().await;
    let mut arrived = Vec::new();
    for _ in 0..5 {
        assert!(poll!(&mut driver).is_pending());
        idle().await;
        arrived.push(agent.stats().unread_bytes / 1024);
    }
    assert_eq!(arrived, [0, 128, 128, 256, 300]);
}

#[tokio::test(start_paused = true)]
async fn dropped_driver_leaves_the_session_alive_without_a_link() {
    let pair = Pair::new();
    let (mut near, mut far) = pair.stream().await;
    pair.server_end.abort();
    idle().await;
    assert_eq!(pair.agent_end.await.unwrap(), LinkEnd::Lost);
    let due = |tunnel: &MuxTunnel| tunnel.shared().with(|state| state.session.poll_timeout());
    assert_eq!((due(&pair.server), due(&pair.agent)), (None, None), "both sessions know that the link is down");
    near.write_all(b"kept").await.unwrap();
    assert_eq!((pair.server.ended(), pair.agent.ended()), (None, None));

    // Another link carries on: this is what resuming stands on.
    let (near_io, far_io) = tokio::io::duplex(4096);
    let server = pair.server.link_up(link(near_io, Side::Server), Epoch::new(2), 1).unwrap();
    tokio::spawn(server);
    let agent = pair.agent.link_up(link(far_io, Side::Client), Epoch::new(2), 1).unwrap();
    tokio::spawn(agent);
    let mut kept = [0; 4];
    far.read_exact(&mut kept).await.unwrap();
    assert_eq!(&kept, b"kept");
}

#[tokio::test(start_paused = true)]
async fn panic_under_the_lock_ends_that_session_only() {
    let pair = Pair::new();
    let (mut near, _far) = pair.stream().await;
    let reader = tokio::spawn(async move { near.read(&mut [0; 1]).await });
    let opening = tokio::spawn(open(&pair.server));
    idle().await;
    let start = tokio::time::Instant::now();
    let panicked = catch_unwind(AssertUnwindSafe(|| pair.server.shared().with(|_| panic!("on purpose"))));
    assert!(panicked.is_err());
    let error = reader.await.unwrap().unwrap_err();
    assert_eq!(crate::error::Error::find(&error).unwrap().kind(), crate::error::ErrorKind::Internal);
    assert_eq!(opening.await.unwrap().unwrap_err().kind(), crate::error::ErrorKind::Internal);
    assert_eq!(start.elapsed(), Duration::ZERO, "they were woken by the panic, not by a later timer");
    assert_eq!(pair.server.ended(), Some(SessionEnd::Internal));
    assert_eq!(pair.server_end.await.unwrap(), LinkEnd::Local(CloseCode::INTERNAL));
    assert_eq!(pair.agent_end.await.unwrap(), LinkEnd::Closed(Some(CloseCode::INTERNAL)));
}

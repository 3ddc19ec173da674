//! What stays behind of a caller's future that is dropped at its n-th poll, for all n, with a link and without: nothing.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use revdial::{TargetName, TunnelStream, connector::RevDialConnector, proxy::Proxy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    time::sleep,
};
use tower::ServiceExt;

use crate::{
    leaks::Baseline,
    polled::{at_each_poll, polled},
    support::{Running, World, key, talk, until},
};

/// The session works, and nothing is left.
async fn works(world: &World, agent: &mut Running, before: &Baseline) {
    sleep(Duration::from_millis(200)).await;
    while agent.untaken() > 0 {
        agent.accepted().await;
    }
    let (mut here, mut there) = world.pair(agent).await;
    talk((&mut here, &mut there)).await;
    drop((here, there));
    world.settled(before).await;
}

#[tokio::test(start_paused = true)]
async fn a_dial_is_dropped_at_each_poll() {
    for early_data in [false, true] {
        let world = World::new();
        let mut agent = world.agent().await;
        let before = world.baseline().await;
        let dial = || world.connman.dial(&key(), &TargetName::default()).early_data(early_data);
        let polls = at_each_poll(dial, async |dialled| {
            drop(dialled.map(Result::unwrap));
            works(&world, &mut agent, &before).await;
        });
        assert!(polls.await >= 1);
        world.over([agent]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dial_in_a_grace_is_dropped_at_each_poll() {
    for with_return in [false, true] {
        let world = World::new();
        let mut agent = world.agent().await;
        let before = world.baseline().await;
        for times in 0..10 {
            world.pause().await;
            let dial = world.connman.dial(&key(), &TargetName::default());
            if with_return {
                // The first polls wait, the others find the agent back.
                let back = async {
                    sleep(Duration::from_millis(100)).await;
                    world.net.down(false);
                };
                let (dialled, ()) = tokio::join!(polled(dial, times), back);
                drop(dialled.map(Result::unwrap));
            } else {
                assert!(polled(dial, times).await.is_none());
                assert_eq!(world.connman.stats().pending_dials_total, 0, "at once");
                world.net.down(false);
            }
            agent.connected().await;
            assert_eq!(world.connman.stats().pending_dials_total, 0);
            works(&world, &mut agent, &before).await;
        }
        world.over([agent]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dial_whose_link_is_lost_is_dropped_at_each_poll() {
    let world = World::new();
    let mut agent = world.agent().await;
    let before = world.baseline().await;
    let dial = || {
        world.net.cut();
        world.connman.dial(&key(), &TargetName::default())
    };
    let polls = at_each_poll(dial, async |dialled| {
        drop(dialled.map(Result::unwrap));
        works(&world, &mut agent, &before).await;
    });
    assert!(polls.await >= 1);
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn a_connect_is_dropped_at_each_poll() {
    let world = World::new();
    let mut agent = world.agent().await;
    let before = world.baseline().await;
    let connector = RevDialConnector::new(world.connman.clone()).timeout(Duration::from_secs(5));
    let connect = || connector.clone().oneshot("http://a/".parse().unwrap());
    let polls = at_each_poll(connect, async |connected| {
        drop(connected.map(Result::unwrap));
        works(&world, &mut agent, &before).await;
    });
    assert!(polls.await >= 1);
    world.over([agent]).await;
}

/// Answers every request head on every stream.
async fn serve(mut stream: TunnelStream) {
    let mut seen = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        seen.push(byte);
        if seen.ends_with(b"\r\n\r\n") {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxied_call_is_dropped_at_each_poll() {
    for cut in [false, true] {
        let world = World::new();
        let (mut listener, run) = world.net.agent().listen();
        let running = tokio::spawn(run);
        tokio::spawn(async move {
            while let Some(stream) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        until("connected", || world.connman.stats().active_connections == 1).await;
        let before = world.baseline().await;
        let proxy = Proxy::<Empty<Bytes>>::new(world.connman.clone());
        let target = TargetName::default();
        let call = || async {
            let request = Request::get("/").body(Empty::new()).unwrap();
            if cut {
                world.net.cut();
            }
            let response = proxy.forward(&key(), &target, request).await;
            (response.status(), response.into_body().collect().await.unwrap().to_bytes())
        };
        let polls = at_each_poll(call, async |answer| {
            if let Some((status, body)) = answer {
                assert_eq!((status.as_u16(), &body[..]), (200, &b"hello"[..]));
            }
            // The client's idle connections are kept for 15 s.
            sleep(Duration::from_secs(20)).await;
            world.settled(&before).await;
        });
        assert!(polls.await >= 1);
        drop(proxy);
        running.abort();
        let _ = running.await;
        world.over([]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn reads_and_writes_are_dropped_at_each_poll_and_lose_and_double_nothing() {
    for cut in [false, true] {
        let world = World::new();
        let mut agent = world.agent().await;
        let before = world.baseline().await;
        let (here, there) = world.pair(&mut agent).await;
        let (here_read, mut write) = split(here);
        let (mut read, there_write) = split(there);
        let (mut sent, mut received) = (0_usize, 0_usize);
        for round in 0..300 {
            if cut && round % 7 == 0 {
                world.net.cut();
            }
            let chunk: Vec<u8> = (sent..sent + 10_000).map(|at| (at % 251) as u8).collect();
            if let Some(written) = polled(AsyncWriteExt::write(&mut write, &chunk), round % 3).await {
                sent += written.unwrap();
            }
            let mut buffer = [0; 7_000];
            if let Some(n) = polled(read.read(&mut buffer), round % 4).await {
                let n = n.unwrap();
                assert!(buffer[..n].iter().zip(received..).all(|(byte, at)| *byte == (at % 251) as u8));
                received += n;
            }
            let _ = polled(write.flush(), round % 2).await;
        }
        let _ = polled(write.shutdown(), 1).await;
        let mut rest = Vec::new();
        read.read_to_end(&mut rest).await.unwrap();
        assert!(rest.iter().zip(received..).all(|(byte, at)| *byte == (at % 251) as u8));
        assert_eq!(received + rest.len(), sent);
        drop((here_read, write, read, there_write));
        agent.connected().await;
        works(&world, &mut agent, &before).await;
        world.over([agent]).await;
    }
}

//! What a session bears while it comes back: links that break again during replay, that bring nothing, that are no links.

use std::time::Duration;

use bytes::Bytes;
use revdial::{
    Error, ErrorKind,
    frame::{CloseCode, MAX_MESSAGE},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    attach::{Scripted, back, welcomed},
    net::{
        TOKEN,
        relay::{Fault, Limit, Plan},
    },
    support::{World, talk},
    traffic::During,
};

#[tokio::test(start_paused = true)]
async fn b60_a_hello_that_is_too_large_or_too_slow_is_closed_and_touches_no_session() {
    let world = World::new();
    let mut one = Scripted::new(&world, "a", TOKEN).await;
    let mut large = world.raw().await;
    large.send_raw(Message::Binary(Bytes::from(vec![0; MAX_MESSAGE + 1]))).await;
    assert_eq!(large.closed().await, CloseCode::TOO_BIG);
    drop(large);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.counted.sum("revdial_protocol_errors_total{1009}"), 1);
    one.lives().await;

    let start = Instant::now();
    let mut slow = world.raw().await;
    assert_eq!(slow.closed().await, CloseCode::DEAD_PEER);
    assert_eq!(start.elapsed(), Duration::from_secs(10));
    drop(slow);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.counted.sum("revdial_handshake_timeout_total"), 1);
    one.lives().await;
    assert_eq!((world.events(), world.counted.resumes()), (vec!["connected"], vec![]));
    drop(one);
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn b61_the_eleventh_attach_in_a_row_that_brings_nothing_through_ends_the_session() {
    let world = World::new();
    let mut one = Scripted::new(&world, "a", TOKEN).await;
    one.lives().await;
    let (sent, received) = one.agent.counts();
    AsyncWriteExt::write_all(&mut one.stream, b"never acked").await.unwrap();
    let mut attempt = 0;
    // Nine, then one by which it is acked, then ten.
    for received in [[received; 9].as_slice(), &[received + 1], &[received + 1; 10]].concat() {
        if attempt == 10 {
            AsyncWriteExt::write_all(&mut one.stream, b"nor this").await.unwrap();
        }
        attempt += 1;
        let mut agent = world.raw().await;
        agent.attach(back(one.session, attempt), sent, received).await;
        assert!(welcomed(&mut agent).await, "attempt {attempt}");
        one.agent = agent;
    }
    let mut eleventh = world.raw().await;
    eleventh.attach(back(one.session, 21), sent, received + 1).await;
    assert_eq!(eleventh.closed().await, CloseCode::FLOOD);
    let error = one.stream.read_u8().await.unwrap_err();
    assert_eq!(Error::find(&error).unwrap().kind(), ErrorKind::SessionLost);
    assert_eq!(world.counted.sum("revdial_session_resumes_total{rate}"), 1);
    drop((one, eleventh));
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn b62_a_drop_during_replay_again_and_again_is_a_pause() {
    const CUTS: usize = 60;
    for during in [During::Download, During::Upload, During::BothWays] {
        let world = World::new();
        let mut agent = world.agent().await;
        let before = world.baseline().await;
        // Within heads, within frames, before and behind some whole ones.
        let plans = (0..CUTS).map(|nth| {
            let limit = Some(Limit::Bytes(70_000 + nth * 1_777));
            Plan { up: limit, down: limit }
        });
        world.net.plan(plans);
        during.run(&world, &mut agent, || world.net.cut()).await;
        let links = world.net.dials().len();
        assert!(links > 5, "{during:?}: {links} links");
        let replayed = world.counted.sum("revdial_replayed_bytes_total");
        assert!(replayed > 0 && replayed <= links as u64 * 2 * 8 * 1024 * 1024, "{during:?}: {replayed}");
        agent.connected().await;
        assert_eq!(world.info().reconnects as usize, links - 1, "{during:?}");
        world.settled(&before).await;
        world.over([agent]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_resume_that_is_cut_at_every_byte_of_its_first_kilobyte_is_a_pause() {
    for limits in [false, true] {
        let world = World::new();
        let mut agent = world.agent().await;
        let before = world.baseline().await;
        let (mut here, mut there) = world.pair(&mut agent).await;
        for at in 0..1000 {
            talk((&mut here, &mut there)).await;
            let limit = Some(Limit::Bytes(at));
            world.net.plan([if limits { Plan { up: limit, down: None } } else { Plan { up: None, down: limit } }]);
            world.net.cut();
        }
        talk((&mut here, &mut there)).await;
        drop((here, there));
        sleep(Duration::from_secs(1)).await;
        agent.connected().await;
        world.net.fault(Fault::Cut);
        world.settled(&before).await;
        world.over([agent]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_given_back_after_all_of_it() {
    let world = World::new();
    let mut agent = world.agent().await;
    let room = world.room(&mut agent).await;
    assert!(room > 7 * 1024 * 1024, "{room}");
    for during in During::ALL {
        during.run(&world, &mut agent, || world.net.cut()).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(world.room(&mut agent).await, room, "{during:?}");
    }
    world.over([agent]).await;
}

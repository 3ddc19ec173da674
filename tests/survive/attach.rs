//! Which link a session takes when several name it, or name it wrongly, and what each of the others is told.

use std::time::Duration;

use bytes::Bytes;
use revdial::{
    Error, ErrorKind, TunnelStream,
    connman::{ConnectionManager, KeyState},
    frame::{CloseCode, Frame, Hello, SessionId, StreamId},
    proto::SessionConfig,
};
use tokio::{io::AsyncReadExt, task::yield_now, time::Instant};

use crate::{
    net::{
        Net, TOKEN,
        relay::{Limit, Plan},
    },
    raw::{Arrived, RawAgent, hello},
    support::{World, end, key, layer, talk, until},
};

/// The HELLO of an agent that comes back.
pub(crate) fn back(session: SessionId, attempt: u64) -> Hello {
    let mut hello = hello(1);
    (hello.session, hello.attempt) = (session, attempt);
    hello
}

/// An agent under a script, with a stream that it has taken.
pub(crate) struct Scripted {
    pub(crate) agent: RawAgent,
    pub(crate) session: SessionId,
    pub(crate) id: StreamId,
    pub(crate) stream: TunnelStream,
}

impl Scripted {
    pub(crate) async fn new(world: &World, key: &str, token: &str) -> Self {
        let mut agent = world.raw_of(key, token).await;
        let session = agent.greet(hello(1)).await.1.session;
        let dialled = tokio::spawn(world.connman.dial(&key.parse().unwrap(), &"".parse().unwrap()));
        let (id, _) = agent.opened().await;
        agent.send(Frame::Accept { stream: id, credit: 64 * 1024 }).await;
        let stream = dialled.await.unwrap().unwrap();
        Self { agent, session, id, stream }
    }

    /// What the agent sends comes.
    pub(crate) async fn lives(&mut self) {
        self.agent.send(Frame::Data { stream: self.id, payload: Bytes::from_static(b"x") }).await;
        assert_eq!(self.stream.read_u8().await.unwrap(), b'x');
    }

    /// The same on another link.
    fn move_to(&mut self, agent: RawAgent) {
        self.agent = agent;
    }
}

/// The welcome back.
pub(crate) async fn welcomed(agent: &mut RawAgent) -> bool {
    match agent.recv().await {
        Arrived::Frames(_, frames) => match &frames[..] {
            [Frame::Welcome(welcome)] => welcome.resumed,
            _ => panic!("no WELCOME: {frames:?}"),
        },
        other => panic!("no WELCOME: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn b53_a_new_link_wins_over_one_that_is_trusted_and_what_comes_late_on_that_has_no_effect() {
    let world = World::new();
    let mut one = Scripted::new(&world, "a", TOKEN).await;
    one.lives().await;
    let (sent, received) = one.agent.counts();
    let mut new = world.raw().await;
    new.attach(back(one.session, 1), sent, received).await;
    assert!(welcomed(&mut new).await);
    // Late, and with a number that would be the next one.
    let mut old = std::mem::replace(&mut one.agent, new);
    old.send(Frame::Data { stream: one.id, payload: Bytes::from_static(b"late") }).await;
    one.lives().await;
    assert_eq!(old.recv().await, Arrived::Closed(Some(CloseCode::STALE)));
    assert_eq!(world.counted.resumes(), ["fenced 1"]);
    assert_eq!(world.events(), ["connected", "resumed"]);
    assert_eq!(world.counted.sum("revdial_duplicate_messages_total"), 0);
    drop((one, old));
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn b54_a_late_hello_is_closed_with_4409_and_nothing_else_happens() {
    let world = World::new();
    // Two attempts that are stuck behind their 101.
    let (mut older, mut oldest) = (world.raw().await, world.raw().await);
    let mut one = Scripted::new(&world, "a", TOKEN).await;
    let (sent, received) = one.agent.counts();
    let mut second = world.raw().await;
    second.attach(back(one.session, 5), sent, received).await;
    assert!(welcomed(&mut second).await);
    one.move_to(second);
    for attempt in [5, 4, 0] {
        let mut late = world.raw().await;
        late.attach(back(one.session, attempt), sent, received).await;
        assert_eq!(late.closed().await, CloseCode::STALE, "attempt {attempt}");
    }
    // An older link, whatever session it names and however high its attempt is.
    older.attach(back(one.session, 100), sent, received).await;
    assert_eq!(older.closed().await, CloseCode::STALE);
    oldest.send(Frame::Hello(hello(2))).await;
    assert_eq!(oldest.closed().await, CloseCode::STALE);
    one.lives().await;
    assert_eq!(world.counted.resumes(), ["fenced 1", "stale 5"]);
    assert_eq!((world.info().epoch.number(), world.info().state), (4, KeyState::Connected));
    drop(one);
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn b55_a_lost_welcome_is_asked_for_again_with_a_higher_attempt() {
    let world = World::new();
    let mut agent = world.agent().await;
    let before = world.baseline().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    talk((&mut here, &mut there)).await;
    let lost = Plan { down: Some(Limit::Frames(0)), ..Plan::default() };
    world.net.plan([lost; 5]);
    world.net.cut();
    until("five lost", || world.net.dials().len() == 7).await;
    agent.connected().await;
    talk((&mut here, &mut there)).await;
    // The server has taken each of them.
    assert_eq!(world.counted.resumes(), ["ok 6"]);
    assert_eq!(world.info().reconnects, 6);
    drop((here, there));
    world.settled(&before).await;
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn b55_lost_welcomes_do_not_prolong_the_grace() {
    let world = World::new();
    let mut agent = world.agent().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    talk((&mut here, &mut there)).await;
    world.net.plan([Plan { down: Some(Limit::Frames(0)), ..Plan::default() }; 1000]);
    world.net.cut();
    assert_eq!(end(&mut here).await, Some(ErrorKind::SessionLost));
    let grace = world.when("expired")[0] - world.when("lost")[0];
    assert_eq!(grace, Duration::from_secs(30));
    drop((here, there));
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn i1_b57_a_session_of_someone_else_is_refused_with_4403_and_is_untouched() {
    let world = World::of_many(ConnectionManager::builder());
    let mut one = Scripted::new(&world, "a", "alice").await;
    let (sent, received) = one.agent.counts();
    // Another principal, another key, both.
    for (key, token) in [("a", "mallory"), ("b", "alice"), ("b", "mallory")] {
        let mut other = world.raw_of(key, token).await;
        other.attach(back(one.session, 100), sent, received).await;
        assert_eq!(other.closed().await, CloseCode::FOREIGN, "{key} of {token}");
    }
    one.lives().await;
    // Also in the grace, which goes on.
    drop(one.agent);
    world.in_grace().await;
    let mut other = world.raw_of("a", "mallory").await;
    other.attach(back(one.session, 100), sent, received).await;
    assert_eq!(other.closed().await, CloseCode::FOREIGN);
    let mut agent = world.raw_of("a", "alice").await;
    agent.attach(back(one.session, 1), sent + 1, received).await;
    assert!(welcomed(&mut agent).await);
    one.agent = agent;
    one.lives().await;
    assert_eq!(world.counted.resumes(), ["identity 4", "ok 1"]);
    assert_eq!(world.connman.stats().active_connections, 1);
    drop(one);
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn b58_an_unknown_session_is_a_new_one_and_the_agent_fails_its_old_streams() {
    let world = World::new();
    let mut agent = world.agent().await;
    let (here, mut there) = world.pair(&mut agent).await;
    let restarted = ConnectionManager::new();
    world.net.lead_to(&Net::of(layer(&restarted, SessionConfig::default())));
    let start = Instant::now();
    world.net.cut();
    assert_eq!(end(&mut there).await, Some(ErrorKind::SessionLost));
    agent.connected().await;
    assert!(start.elapsed() <= Duration::from_millis(100), "{:?}", start.elapsed());
    assert_eq!(world.counted.resumes(), ["unknown 1"]);
    let dialled = tokio::spawn(restarted.dial(&key(), &"".parse().unwrap()));
    let mut new_there = agent.accepted().await;
    let mut new = dialled.await.unwrap().unwrap();
    talk((&mut new, &mut new_there)).await;
    drop((here, there, new, new_there));
    restarted.shutdown();
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn m32_what_a_resumed_hello_announces_is_checked_and_not_applied() {
    let world = World::new();
    let mut one = Scripted::new(&world, "a", TOKEN).await;
    one.lives().await;
    let (sent, received) = one.agent.counts();
    let mut smaller = back(one.session, 1);
    smaller.bounds.max_streams = 1;
    let mut agent = world.raw().await;
    agent.attach(smaller, sent, received).await;
    assert!(welcomed(&mut agent).await);
    one.move_to(agent);
    // The session is for as many streams as at first.
    let dialled = tokio::spawn(world.connman.dial(&key(), &"".parse().unwrap()));
    let (stream, _) = one.agent.opened().await;
    one.agent.send(Frame::Accept { stream, credit: 64 * 1024 }).await;
    drop(dialled.await.unwrap().unwrap());
    let (sent, received) = one.agent.counts();
    let mut absurd = back(one.session, 2);
    absurd.bounds.max_streams = 0;
    let mut agent = world.raw().await;
    agent.attach(absurd, sent, received).await;
    assert_eq!(agent.closed().await, CloseCode::FORBIDDEN);
    one.lives().await;
    drop(one);
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn b59_counts_that_cannot_be_end_the_session_and_no_other() {
    // Ahead of what was sent; behind what was forgotten.
    for (received, name) in [(100, "ahead"), (0, "behind")] {
        let world = World::new();
        let mut one = Scripted::new(&world, "a", TOKEN).await;
        let mut other = Scripted::new(&world, "b", TOKEN).await;
        one.lives().await;
        let (sent, _) = one.agent.counts();
        let mut wrong = world.raw().await;
        wrong.attach(back(one.session, 1), sent, received).await;
        assert_eq!(wrong.closed().await, CloseCode::FORBIDDEN, "{name}");
        let error = one.stream.read_u8().await.unwrap_err();
        assert_eq!(Error::find(&error).unwrap().kind(), ErrorKind::SessionLost, "{name}");
        other.lives().await;
        assert_eq!(world.counted.resumes(), ["mismatch 1"], "{name}");
        // The link before is not the session's any more, either.
        let Arrived::Closed(Some(code)) = last(&mut one.agent).await else { panic!("{name}: no close") };
        assert_ne!(code, CloseCode::REPLACED, "{name}: its agent may come back");
        until("gone", || world.connman.stats().active_connections == 1).await;
        let again = world.raw().await.greet(back(one.session, 2)).await;
        assert!(!again.1.resumed, "{name}");
        drop((one, other));
        world.over([]).await;
    }
}

/// The end of a link, behind CLOSE if there is one.
async fn last(agent: &mut RawAgent) -> Arrived {
    loop {
        match agent.recv().await {
            Arrived::Frames(..) => yield_now().await,
            closed => return closed,
        }
    }
}

//! What a request through a proxy is answered with where something fails for real: status, `Retry-After`, kind, metric.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use revdial::{
    TargetName,
    agent::Targets,
    connman::ConnectionManager,
    frame::{CloseCode, Frame, ResetCode, SessionId, StreamId},
    proto::SessionConfig,
    proxy::Proxy,
};
use tokio::{io::AsyncWriteExt, task::JoinHandle, time::Instant};

use crate::{
    attach::{Scripted, back, welcomed},
    net::TOKEN,
    raw::{Arrived, RawAgent, hello},
    support::{Running, World, builder, end, key, until},
};

/// An answer: its status, its `Retry-After`, its text, which is the kind.
type Answer = (u16, Option<String>, String);

/// A request to the default target of `a`.
fn ask(world: &World) -> JoinHandle<Answer> {
    ask_by(Proxy::new(world.connman.clone()))
}

/// The same by this proxy.
fn ask_by(proxy: Proxy<Empty<Bytes>>) -> JoinHandle<Answer> {
    let request = Request::post("/").body(Empty::new()).unwrap();
    tokio::spawn(async move {
        let response = proxy.forward(&key(), &TargetName::default(), request).await;
        let retry_after = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, retry_after, String::from_utf8(body.to_vec()).unwrap())
    })
}

/// The answer has this status, says when to come back if it is a 503, and tells this kind and no more.
#[track_caller]
fn is(answer: &Answer, status: u16, kind: &str) {
    let retry_after = (status == 503).then(|| "1".to_owned());
    assert_eq!(*answer, (status, retry_after, kind.to_owned()));
}

fn failures(world: &World, kind: &str) -> u64 {
    world.counted.sum(&format!("revdial_dial_failures_total{{{kind}}}"))
}

/// An agent under a script, to which a request has come.
struct Asked {
    agent: RawAgent,
    session: SessionId,
    stream: StreamId,
    answer: JoinHandle<Answer>,
}

impl Asked {
    /// A request that was not answered in any way yet.
    async fn opened(world: &World) -> Self {
        let mut agent = world.raw().await;
        let session = agent.greet(hello(1)).await.1.session;
        let answer = ask(world);
        let (stream, _) = agent.opened().await;
        Self { agent, session, stream, answer }
    }

    /// One that waits for the service.
    async fn accepted(world: &World) -> Self {
        let mut asked = Self::opened(world).await;
        asked.agent.send(Frame::Accept { stream: asked.stream, credit: 64 * 1024 }).await;
        // What the agent said has arrived once what it says next has.
        let before = world.connman.stats().received_bytes;
        asked.agent.send(Frame::Data { stream: asked.stream, payload: Bytes::from_static(b"H") }).await;
        until("the agent's answer begins", || world.connman.stats().received_bytes > before).await;
        asked
    }

    async fn reset(&mut self, code: ResetCode) {
        let (stream, reason) = (self.stream, "a text of the agent's".to_owned());
        self.agent.send(Frame::Reset { stream, code, reason }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn e5_e6_b31_b73_b74_b75_what_the_agent_refuses_is_told_by_its_kind_and_counted() {
    for (code, status, kind) in [
        (ResetCode::TARGET_UNKNOWN, 502, "target_unknown"),
        (ResetCode::TARGET_DENIED, 502, "target_denied"),
        (ResetCode::TARGET_REFUSED, 502, "target_refused"),
        (ResetCode::TARGET_TIMEOUT, 504, "target_timeout"),
        (ResetCode::TOO_MANY_STREAMS, 503, "overloaded"),
    ] {
        let world = World::new();
        let mut asked = Asked::opened(&world).await;
        asked.reset(code).await;
        is(&asked.answer.await.unwrap(), status, kind);
        assert_eq!(failures(&world, kind), 1, "{kind}");
        drop(asked.agent);
        world.over([]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn e5_b73_an_address_that_the_agents_rule_does_not_take_is_502() {
    let world = World::new();
    let targets = Targets::parse(["127.0.0.1:9"]).unwrap().allow(|_| false);
    let agent = world.net.build(builder());
    let (mut status, run) = (agent.status(), tokio::spawn(agent.forward(targets)));
    status.wait_for(revdial::agent::AgentStatus::is_connected).await.unwrap();
    is(&ask(&world).await.unwrap(), 502, "target_denied");
    assert_eq!(failures(&world, "target_denied"), 1);
    run.abort();
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn e6_b75_a_service_that_does_not_answer_the_connect_is_504_after_five_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("busy.sock");
    // Nobody accepts, and the backlog is full.
    let busy = tokio::net::UnixSocket::new_stream().unwrap();
    busy.bind(&path).unwrap();
    let _busy = busy.listen(1).unwrap();
    let mut waiting = Vec::new();
    while let Ok(socket) = tokio::net::UnixStream::connect(&path).await {
        waiting.push(socket);
    }
    let world = World::new();
    let agent = world.net.build(builder());
    let mut status = agent.status();
    let run = tokio::spawn(agent.forward(Targets::parse([format!("unix://{}", path.display())]).unwrap()));
    status.wait_for(revdial::agent::AgentStatus::is_connected).await.unwrap();
    let start = Instant::now();
    is(&ask(&world).await.unwrap(), 504, "target_timeout");
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!(failures(&world, "target_timeout"), 1);
    run.abort();
}

#[tokio::test(start_paused = true)]
async fn s1_e3_more_requests_than_may_wait_for_a_key_are_503() {
    let world = World::of(ConnectionManager::builder().max_pending_dials_per_key(1), SessionConfig::default());
    world.agent().await.kill().await;
    world.in_grace().await;
    let waits = ask(&world);
    world.waiting(1).await;
    is(&ask(&world).await.unwrap(), 503, "too_many_pending_dials");
    assert_eq!(failures(&world, "too_many_pending_dials"), 1);
    is(&waits.await.unwrap(), 503, "reconnect_timeout");
    assert_eq!(failures(&world, "reconnect_timeout"), 1);
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn s1_e8_b31_more_requests_than_the_agent_takes_streams_are_503() {
    let world = World::new();
    let mut agent = world.raw().await;
    let mut one_stream = hello(1);
    one_stream.bounds.max_streams = 1;
    agent.greet(one_stream).await;
    let runs = ask(&world);
    agent.opened().await;
    is(&ask(&world).await.unwrap(), 503, "overloaded");
    assert_eq!(failures(&world, "overloaded"), 1);
    runs.abort();
    drop(agent);
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn e4_b42_a_request_to_an_agent_that_takes_all_and_answers_nothing_is_504_at_the_deadline() {
    // With early data a dial ends well at once, and the answer is awaited on the stream, for as long as any open waits.
    for (early_data, seconds, ended) in [(true, 10, "ok"), (false, 5, "error")] {
        let world = World::new();
        let mut agent = world.raw().await;
        agent.greet(hello(1)).await;
        let proxy = Proxy::builder(world.connman.clone()).dial_timeout(Duration::from_secs(5));
        let start = Instant::now();
        is(&ask_by(proxy.early_data(early_data).build()).await.unwrap(), 504, "dial_timeout");
        assert_eq!(start.elapsed().as_secs(), seconds);
        assert_eq!(failures(&world, "dial_timeout"), 1, "early data: {early_data}");
        assert_eq!(world.counted.values(&format!("revdial_dial_duration_seconds{{{ended}}}")).len(), 1);
        drop(agent);
        world.over([]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn e8_b10_a_request_to_an_agent_that_is_replaced_is_502() {
    let drain = Duration::from_secs(5);
    let world = World::of(ConnectionManager::builder().replace_drain(drain), SessionConfig::default());
    let asked = Asked::accepted(&world).await;
    let start = Instant::now();
    let mut other = world.raw().await;
    other.greet(hello(2)).await;
    is(&asked.answer.await.unwrap(), 502, "replaced");
    assert_eq!(start.elapsed().as_secs(), drain.as_secs(), "what runs may finish within the drain");
    assert_eq!(world.counted.sum("revdial_key_conflicts_total{replaced}"), 1);
    assert_eq!(world.counted.sum("revdial_streams_errors_total{replaced}"), 1);
    drop((asked.agent, other));
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn e8_b26_a_request_to_an_agent_that_breaks_a_rule_is_502() {
    let world = World::new();
    let mut asked = Asked::accepted(&world).await;
    asked.agent.send(Frame::Unknown { kind: 0x41 }).await;
    is(&asked.answer.await.unwrap(), 502, "protocol");
    assert_eq!(world.counted.sum("revdial_protocol_errors_total{4420}"), 1);
    assert_eq!(world.counted.sum("revdial_streams_errors_total{protocol}"), 1);
    drop(asked.agent);
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn e7_b58_a_request_whose_session_expires_is_502_and_the_agent_that_comes_back_has_a_new_one() {
    let world = World::new();
    let asked = Asked::accepted(&world).await;
    let (sent, received) = asked.agent.counts();
    drop(asked.agent);
    is(&asked.answer.await.unwrap(), 502, "session_lost");
    assert_eq!(world.counted.sum("revdial_streams_errors_total{session_lost}"), 1);
    let mut agent = world.raw().await;
    agent.attach(back(asked.session, 1), sent, received).await;
    assert!(!welcomed(&mut agent).await, "it begins anew");
    assert_eq!(world.counted.resumes(), ["unknown 1"]);
    drop(agent);
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn e7_b59_a_request_whose_agent_comes_back_with_counts_that_cannot_be_is_502() {
    let world = World::new();
    let asked = Asked::accepted(&world).await;
    let mut wrong = world.raw().await;
    wrong.attach(back(asked.session, 1), asked.agent.counts().0, 100).await;
    is(&asked.answer.await.unwrap(), 502, "session_lost");
    assert_eq!(wrong.closed().await, CloseCode::FORBIDDEN);
    assert_eq!(world.counted.resumes(), ["mismatch 1"]);
    drop((asked.agent, wrong));
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn e7_b61_a_request_whose_agent_attaches_again_and_again_and_takes_nothing_is_502() {
    let world = World::new();
    let asked = Asked::opened(&world).await;
    let (sent, _) = asked.agent.counts();
    let mut links = vec![asked.agent];
    for attempt in 1..=10 {
        let mut agent = world.raw().await;
        // It has had nothing, OPEN neither.
        agent.attach(back(asked.session, attempt), sent, 0).await;
        assert!(welcomed(&mut agent).await, "attempt {attempt}");
        links.push(agent);
    }
    let mut eleventh = world.raw().await;
    eleventh.attach(back(asked.session, 11), sent, 0).await;
    is(&asked.answer.await.unwrap(), 502, "session_lost");
    assert_eq!(eleventh.closed().await, CloseCode::FLOOD);
    assert_eq!(world.counted.sum("revdial_session_resumes_total{rate}"), 1);
    drop((links, eleventh));
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn e7_b70_a_request_whose_session_holds_too_much_is_502_and_one_that_waits_503() {
    let world = World::of(ConnectionManager::builder().grace_memory(50 * 1024), SessionConfig::default());
    let mut one = Scripted::new(&world, "a", TOKEN).await;
    let runs = ask(&world);
    let (stream, _) = one.agent.opened().await;
    one.agent.send(Frame::Accept { stream, credit: 64 * 1024 }).await;
    one.lives().await;
    drop(one.agent);
    world.in_grace().await;
    AsyncWriteExt::write_all(&mut one.stream, &[7; 60 * 1024]).await.unwrap();
    is(&runs.await.unwrap(), 502, "session_lost");
    assert_eq!(end(&mut one.stream).await, Some(revdial::ErrorKind::SessionLost));
    assert_eq!(world.counted.sum("revdial_budget_refused_total{evict}"), 1);
    is(&ask(&world).await.unwrap(), 503, "reconnect_timeout");
    drop(one.stream);
    world.over([]).await;
}

#[tokio::test(start_paused = true)]
async fn e8_b84_requests_during_a_drain_and_behind_its_deadline_are_503() {
    let world = World::new();
    let mut agent: Running = world.agent().await;
    let runs = ask(&world);
    let there = agent.accepted().await;
    let connman = world.connman.clone();
    let drained = tokio::spawn(async move { connman.drain(Duration::from_secs(10)).await });
    until("it drains", || world.connman.stats().draining_sessions == 1).await;
    let start = Instant::now();
    let new = ask(&world);
    world.waiting(1).await;
    for answer in [runs, new] {
        is(&answer.await.unwrap(), 503, "shutdown");
        assert_eq!(start.elapsed().as_secs(), 10, "at the deadline");
    }
    drained.await.unwrap();
    is(&ask(&world).await.unwrap(), 503, "shutdown");
    assert_eq!(failures(&world, "shutdown"), 2);
    assert_eq!(world.counted.values("revdial_drain_seconds").len(), 1);
    drop(there);
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn e10_b76_b82_a_service_that_resets_before_the_head_is_502_and_its_text_is_not_told() {
    let world = World::new();
    let mut asked = Asked::accepted(&world).await;
    asked.reset(ResetCode::TARGET_RESET).await;
    is(&asked.answer.await.unwrap(), 502, "peer_reset");
    assert_eq!(world.counted.sum("revdial_streams_errors_total{peer_reset}"), 1);
    assert!(!matches!(asked.agent.recv().await, Arrived::Closed(_)), "the session goes on");
    drop(asked.agent);
    world.over([]).await;
}

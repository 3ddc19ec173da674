//! How programs end, are killed, come back and replace one another, and what their callers see of it.

use axum::body::Bytes;
use futures_util::{StreamExt, future::join_all};
use http::header;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use revdial::agent::Agent;
use tokio::time::{Duration, Instant, timeout};
use tokio_tungstenite::connect_async;

use crate::{
    Gateway, TOKEN,
    process::{DEADLINE, Program},
    service::Service,
    state, text,
};

/// "Within a few seconds", for programs that have streams running.
const A_FEW_SECONDS: Duration = Duration::from_secs(8);

/// A gateway, an agent `a`, and a response whose body is under way.
async fn running() -> (Gateway, Program, Service, Incoming) {
    let (gateway, mut service) = (Gateway::new().await, Service::new().await);
    let agent = gateway.connected("a", &format!("--forward {}", service.addr)).await;
    let mut body = gateway.get("/proxy/a/hold").await.into_body();
    assert_eq!(next(&mut body).await.unwrap().unwrap(), "begun");
    assert_eq!(service.held.recv().await, Some("begun"));
    (gateway, agent, service, body)
}

async fn next(body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
    let frame = timeout(DEADLINE, body.frame()).await.expect("something")?;
    Some(frame.map(|frame| frame.into_data().expect("data")))
}

async fn ends_with_0(program: &mut Program, signal: &str) {
    let asked = Instant::now();
    program.signal(signal).await;
    assert!(program.ended().await.success(), "{signal}");
    assert!(asked.elapsed() < A_FEW_SECONDS, "{signal}: {:?}", asked.elapsed());
}

#[tokio::test]
async fn the_gateway_ends_in_order_also_with_a_body_under_way() {
    for signal in ["TERM", "INT"] {
        let (mut gateway, _agent, _service, mut body) = running().await;
        ends_with_0(&mut gateway.program, signal).await;
        assert!(next(&mut body).await.unwrap().is_err(), "no clean end");
    }
}

#[tokio::test]
async fn an_agent_ends_in_order_also_with_a_body_under_way() {
    for signal in ["TERM", "INT"] {
        let (_gateway, mut agent, mut service, mut body) = running().await;
        ends_with_0(&mut agent, signal).await;
        assert!(next(&mut body).await.unwrap().is_err(), "no clean end");
        assert_eq!(timeout(DEADLINE, service.held.recv()).await, Ok(Some("given up")));
    }
}

#[tokio::test]
async fn a_sandbox_ends_in_order_also_with_a_viewer() {
    for signal in ["TERM", "INT"] {
        let gateway = Gateway::new().await;
        let mut sandbox = Program::start(&format!("sandbox --server http://{} --key a --token {TOKEN}", gateway.addr));
        sandbox.logs("connected").await;
        let (mut viewer, _) = connect_async(format!("ws://{}/proxy/a/ws/stream", gateway.addr)).await.unwrap();
        assert!(timeout(DEADLINE, viewer.next()).await.unwrap().unwrap().is_ok());
        ends_with_0(&mut sandbox, signal).await;
        let rest = async { while let Some(Ok(_)) = viewer.next().await {} };
        timeout(DEADLINE, rest).await.expect("an end for the viewer");
    }
}

#[tokio::test]
async fn programs_that_have_nobody_end_in_order_too() {
    let mut agent = Program::start("agent --server http://127.0.0.1:1 --key a --token t --forward 127.0.0.1:1");
    agent.logs("retry_in").await;
    ends_with_0(&mut agent, "TERM").await;
    let mut gateway = Gateway::new().await;
    ends_with_0(&mut gateway.program, "TERM").await;
}

#[tokio::test]
async fn a_second_agent_replaces_the_first_which_says_so() {
    let (gateway, one, two) = (Gateway::new().await, Service::new().await, Service::new().await);
    let mut first = gateway.connected("a", &format!("--forward {}", one.addr)).await;
    let mut second = gateway.agent("a", &format!("--forward two={}", two.addr));
    assert_eq!(first.ended().await.code(), Some(3));
    first.logs("the agent was replaced").await;
    assert_eq!(gateway.text("/proxy/two~a/").await.0, 200);
    assert_eq!(gateway.text("/proxy/a/").await.0, 502);
    ends_with_0(&mut second, "TERM").await;
}

#[tokio::test]
async fn requests_wait_for_an_agent_that_was_killed_and_comes_back() {
    let (gateway, mut agent, service, mut body) = running().await;
    agent.kill().await;
    gateway.until(|stats| state(stats, "a") == Some("grace")).await;
    let requests = join_all((0..5).map(|_| gateway.text("/proxy/a/")));
    let returned = async {
        let waiting = |stats: &serde_json::Value| stats["pending_dials_total"] == 5 && stats["pending_dials_keys"] == 1;
        let stats = gateway.until(waiting).await;
        assert_eq!((&stats["active_connections"], &stats["grace_period_entries"]), (&0.into(), &1.into()));
        gateway.agent("a", &format!("--forward {}", service.addr))
    };
    let (answers, _agent) = tokio::join!(requests, returned);
    for (status, _) in answers {
        assert_eq!(status, 200);
    }
    // What ran in the process that was killed cannot go on: it fails as soon as that is known, not after the grace.
    assert!(next(&mut body).await.unwrap().is_err(), "a body under way ends in an error");
    assert_eq!(gateway.stats().await["agents"][0]["reconnects"], 1);
    let (_, metrics) = gateway.text("/metrics").await;
    for line in [
        "revdial_active_connections 1",
        "revdial_reconnection_grace_period_entries 0",
        "revdial_reconnection_success_total 1",
        "revdial_pending_dials_current 0",
        "revdial_pending_dials_total 5",
        "revdial_close_total",
    ] {
        assert!(metrics.contains(line), "no {line:?} in:\n{metrics}");
    }
}

#[tokio::test]
async fn a_request_for_an_agent_that_does_not_come_back_fails_when_the_grace_ends() {
    let gateway = Gateway::with("--grace 1s").await;
    let mut agent = gateway.connected("a", "--forward 127.0.0.1:1").await;
    agent.kill().await;
    gateway.until(|stats| state(stats, "a") == Some("grace")).await;
    for kind in ["reconnect_timeout", "no_connection"] {
        let answer = gateway.get("/proxy/a/").await;
        assert!(answer.headers().contains_key(header::RETRY_AFTER), "{kind}");
        let (status, said) = text(answer).await;
        assert_eq!((status.as_u16(), said.as_str()), (503, kind));
        assert_eq!(gateway.stats().await["grace_period_entries"], 0);
    }
    let (_, metrics) = gateway.text("/metrics").await;
    assert!(metrics.contains("revdial_reconnection_timeout_total 1"), "{metrics}");
}

#[tokio::test]
async fn an_agent_finds_back_to_a_gateway_that_was_killed() {
    let (mut gateway, service) = (Gateway::new().await, Service::new().await);
    let agent = gateway.connected("a", &format!("--forward {}", service.addr)).await;
    gateway.program.kill().await;
    agent.logs("retry_in").await;
    let gateway = Gateway::at(&gateway.addr.to_string(), "").await;
    gateway.until(|stats| state(stats, "a") == Some("connected")).await;
    assert_eq!(gateway.text("/proxy/a/").await.0, 200);
}

#[tokio::test]
async fn an_agent_that_answers_no_open_costs_the_dial_timeout_and_no_more() {
    let gateway = Gateway::with("--dial-timeout 200ms").await;
    let agent = Agent::builder(format!("http://{}", gateway.addr), "mute").token(TOKEN).build().unwrap();
    let (_listener, run) = agent.listen(); // takes nothing
    let _run = tokio::spawn(run);
    gateway.until(|stats| state(stats, "mute") == Some("connected")).await;
    let asked = Instant::now();
    let (status, said) = gateway.text("/proxy/mute/").await;
    assert_eq!((status.as_u16(), said.as_str()), (504, "dial_timeout"));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    gateway.until(|stats| stats["streams"] == 0).await;
}

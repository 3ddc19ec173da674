//! The failures that operators know, each produced for real: the doctor names them.

use serde_json::Value;
use tokio::net::TcpListener;

use super::{
    assert_fault, assert_well, at, probe, sandbox,
    servers::{answering, pretending, refusing},
    step,
};
use crate::{
    Gateway, TOKEN,
    chaos::Chaos,
    plan::{How, Way},
    process::Program,
    service::Service,
    state,
};

#[tokio::test]
async fn a_sandbox_that_is_not_connected_is_no_connection() {
    let gateway = Gateway::new().await;
    let ended = probe(&gateway, &format!("doctor --key desktop-1 --token {TOKEN}")).await;
    let next = format!("RUNNER_TOKEN=… probe doctor --key desktop-1 --server http://{}", gateway.addr);
    assert_fault(&ended, 16, "tunnel", &["no connection: no sandbox is connected as desktop-1", "not running", &next]);
    assert!(ended.stdout.contains("not come to: target, round trip\n"), "{ended:?}");
}

#[tokio::test]
async fn a_sandbox_that_was_lost_is_no_connection_for_now() {
    let gateway = Gateway::new().await;
    let mut agent = gateway.connected("a", "--forward 127.0.0.1:1").await;
    agent.kill().await;
    gateway.until(|stats| state(stats, "a") == Some("grace")).await;
    let ended = probe(&gateway, "doctor --key a").await;
    assert_fault(&ended, 16, "tunnel", &["no connection now: a is in state grace", "callers wait", "the agent's log"]);
    // Who looks for longer than it took the gateway to know is told the same, and not of a desktop that hangs.
    let mut desktop = sandbox(&gateway, "desktop-1").await;
    desktop.kill().await;
    gateway.until(|stats| state(stats, "desktop-1") == Some("grace")).await;
    for look in ["screenshot 1", "stream 1"] {
        let ended = probe(&gateway, &format!("{look} --timeout 500ms")).await;
        assert_eq!(ended.status.code(), Some(16), "{ended:?}");
        assert!(ended.stderr.starts_with("no connection now: desktop-1 is in state grace for "), "{ended:?}");
    }
}

/// What the doctor says of a tunnel that is dead without anybody knowing.
const DEAD: [&str; 3] = ["time-out: a counts as connected", "the gateway has not noticed yet", "in the sandbox: "];

#[tokio::test]
async fn a_tunnel_that_is_dead_and_not_detected_is_a_time_out() {
    let (gateway, service) = (Gateway::with("--dial-timeout 1s --grace 200ms").await, Service::new().await);
    // The process hangs.
    for protocol in ["native", "dialback"] {
        let mut agent = gateway.connected("a", &format!("--forward {} --protocol {protocol}", service.addr)).await;
        assert_well(&probe(&gateway, "doctor --key a").await);
        agent.signal("STOP").await;
        // With dial-back the gateway may ask on a connection that it has from before, and no dial times out there.
        assert_fault(&probe(&gateway, "doctor --key a --timeout 3s").await, 17, "tunnel", &DEAD);
        agent.signal("CONT").await;
        assert_well(&probe(&gateway, "doctor --key a").await);
        agent.kill().await;
        gateway.until(|stats| state(stats, "a").is_none()).await;
    }
    // The line is silent.
    let chaos = Chaos::start(gateway.addr, None).await;
    let command = format!("agent --server http://{} --key a --token {TOKEN} --forward {}", chaos.addr, service.addr);
    let _agent = Program::start(&command);
    gateway.until(|stats| state(stats, "a") == Some("connected")).await;
    chaos.cut_now(How::Silence(Way::Both));
    chaos.until(|counts| counts.cuts == 1).await;
    assert_fault(&probe(&gateway, "doctor --key a").await, 17, "tunnel", &DEAD);
    // The gateway's patience is longer than the probe's.
    let ended = probe(&gateway, "doctor --key a --timeout 300ms").await;
    assert_fault(&ended, 17, "tunnel", &["time-out: a counts as connected", "answers within 300 ms", "--timeout 60s"]);
}

#[tokio::test]
async fn a_tunnel_that_is_lost_between_two_looks_is_told_by_what_the_second_one_shows() {
    for (status, kind, body, code, says) in [
        (503, "text/plain; charset=utf-8", "no_connection", 16, "no connection: no sandbox is connected as a"),
        (503, "text/plain; charset=utf-8", "reconnect_timeout", 16, "reconnect timeout: a lost its link"),
        // By a middlebox with less patience than the gateway's.
        (504, "text/html", "<h1>504</h1>", 17, "time-out: a counts as connected"),
    ] {
        let server = pretending(status, kind, body).await;
        let ended = at(&format!("http://{server}"), "doctor --key a").await;
        assert_fault(&ended, code, "tunnel", &[says]);
    }
}

#[tokio::test]
async fn a_key_is_found_among_more_than_a_gateway_tells_of_at_once() {
    let server = pretending(502, "text/plain; charset=utf-8", "target_unknown").await;
    for key in ["a", "a0", "a-0", "desktop-9", "z"] {
        let ended = at(&format!("http://{server}/many"), &format!("doctor --key {key} --json")).await;
        assert_eq!(step(&ended, "tunnel")["verdict"], "ok", "{ended:?}");
    }
    let ended = at(&format!("http://{server}/many"), "doctor --key no").await;
    assert_fault(&ended, 16, "tunnel", &["no connection: no sandbox is connected as no"]);
}

#[tokio::test]
async fn too_many_failed_log_ins_are_told_from_a_wrong_token() {
    let answer = "HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\ncontent-length: 0\r\n\r\n";
    let limited = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 30\r\ncontent-length: 0\r\n\r\n";
    let server = refusing(answer, limited).await;
    let ended = at(&format!("http://{server}"), "doctor --token wrong").await;
    assert_fault(&ended, 15, "auth", &["429: too many failed log-ins", "RUNNER_TOKEN", "again in 30 s"]);
    assert!(ended.stdout.contains("ok    upgrade     gets through"), "{ended:?}");
    let busy = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
    let server = refusing(answer, busy).await;
    let ended = at(&format!("http://{server}"), "doctor --token t").await;
    assert_fault(&ended, 14, "upgrade", &["503 Service Unavailable, Retry-After: 1", "no room"]);
}

#[tokio::test]
async fn a_wrong_token_is_401_and_about_the_runner_token() {
    let gateway = Gateway::new().await;
    let agent =
        Program::start(&format!("agent --server http://{} --key a --token wrong --forward 127.0.0.1:1", gateway.addr));
    agent.logs("401").await;
    let ended = probe(&gateway, "doctor --key a --token wrong").await;
    assert_fault(
        &ended,
        15,
        "auth",
        &["401: the gateway does not accept this token", "RUNNER_TOKEN is wrong", "sha256sum"],
    );
    assert!(ended.stdout.contains("FAIL  tunnel      no connection"), "what follows from it is told too: {ended:?}");
    let command = format!("probe doctor --server http://{}", gateway.addr);
    let ended = Program::run(&command, &[("NO_PROXY", "*"), ("RUNNER_TOKEN", "hunter2")]).await;
    assert_fault(&ended, 15, "auth", &["401"]);
    assert!(!ended.stdout.contains("hunter2"), "{ended:?}");
}

#[tokio::test]
async fn a_service_that_is_not_ready_on_its_socket_is_connection_refused() {
    let gateway = Gateway::new().await;
    let _agent = gateway.connected("a", "--forward 127.0.0.1:1 --forward docker=unix:///nowhere/docker.sock").await;
    for target in ["", "--target docker"] {
        let ended = probe(&gateway, &format!("doctor --key a {target} --token {TOKEN}")).await;
        let says = ["connection refused: the service behind a is not ready on its socket", "--forward", "ss -ltnx"];
        assert_fault(&ended, 18, "target", &says);
        assert!(ended.stdout.contains("ok    tunnel      connected"), "{ended:?}");
        assert!(ended.stdout.contains("ok    round trip  "), "{ended:?}");
    }
}

#[tokio::test]
async fn targets_that_there_are_not_and_services_that_hang_are_told_apart() {
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::new().await;
    let _agent = gateway.connected("a", &format!("--forward {}", hangs.local_addr().unwrap())).await;
    let ended = probe(&gateway, "doctor --key a --target vnc").await;
    assert_fault(&ended, 18, "target", &["has no target named vnc", "denied", "--forward vnc="]);
    let ended = probe(&gateway, "doctor --key a --timeout 1s").await;
    assert_fault(&ended, 18, "target", &["no answer within 1.0 s", "hangs", "curl -v"]);
}

#[tokio::test]
async fn a_callers_token_that_is_missing_or_wrong_is_told_from_the_sandboxes() {
    let gateway = Gateway::with("--caller-token callers-secret").await;
    let sandbox = sandbox(&gateway, "desktop-1").await;
    let good = format!("--key desktop-1 --token {TOKEN}");
    let ended = probe(&gateway, &format!("doctor {good}")).await;
    assert_fault(&ended, 15, "tunnel", &["401 for callers", "it asks callers for a token", "CALLER_TOKEN=…"]);
    let ended = probe(&gateway, &format!("doctor {good} --caller-token hunter2")).await;
    assert_fault(&ended, 15, "tunnel", &["401 for callers", "the callers' token is wrong", "--caller-token"]);
    for command in ["stats", "screenshot 1", "stream 1"] {
        let ended = probe(&gateway, command).await;
        assert_eq!(ended.status.code(), Some(15), "{ended:?}");
        assert!(ended.stderr.contains("CALLER_TOKEN"), "{ended:?}");
    }
    let ended = probe(&gateway, &format!("doctor {good} --caller-token callers-secret --json")).await;
    assert_eq!(step(&ended, "tunnel")["verdict"], "ok", "{ended:?}");
    assert_eq!(ended.status.code(), Some(0));
    drop(sandbox);
    let limited = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
    let ended = at(&format!("http://{}", answering(limited).await), "stats --caller-token t").await;
    assert_eq!(ended.status.code(), Some(15), "{ended:?}");
    for says in ["429 for callers", "whatever is shown now", "the same again in 7 s"] {
        assert!(ended.stderr.contains(says), "{ended:?}");
    }
}

#[tokio::test]
async fn faults_are_in_the_json_with_their_cause_and_the_next_command() {
    let gateway = Gateway::new().await;
    let ended = probe(&gateway, "doctor --key a --json").await;
    assert_eq!(ended.status.code(), Some(16), "{ended:?}");
    let tunnel = step(&ended, "tunnel");
    assert_eq!((&tunnel["verdict"], &tunnel["exit_code"]), (&"fail".into(), &16.into()));
    assert!(["what", "cause", "next"].iter().all(|field| tunnel[field].as_str().is_some_and(|text| !text.is_empty())));
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&report["first_fault"], &report["exit_code"]), (&"tunnel".into(), &16.into()));
    assert_eq!(report["not_come_to"], serde_json::json!(["target", "round trip"]));
}

//! The doctor where nothing is wrong, and that it disturbs nobody.

use std::net::SocketAddr;

use axum::{Router, extract::Request, http::header, middleware::map_request};
use revdial::{
    agent::{Agent, AgentStatus},
    connman::ConnectionManager,
    server::{Grant, RevDialLayer, requested_key},
};
use tokio::{net::TcpListener, time::timeout};

use super::{assert_unseen, assert_well, at, probe, sandbox, step};
use crate::{
    Gateway, TOKEN,
    process::{DEADLINE, Program},
    state,
};

#[tokio::test]
async fn the_doctor_finds_no_fault_where_there_is_none() {
    let gateway = Gateway::new().await;
    let _sandbox = sandbox(&gateway, "desktop-ses_1").await;
    let command = format!("doctor --key desktop-ses_1 --path /screenshot --token {TOKEN}");
    let ended = probe(&gateway, &command).await;
    assert_well(&ended);
    for line in [
        "ok    upgrade     gets through",
        "ok    auth        the token is good for desktop-ses_1\n",
        "ok    tunnel      connected for ",
        "ok    target      the service answers 200 OK",
        "ok    round trip  ",
    ] {
        assert!(ended.stdout.contains(line), "no {line:?}: {ended:?}");
    }
    assert!(!ended.stdout.contains(TOKEN), "{ended:?}");
    let ended = probe(&gateway, &format!("{command} --json")).await;
    for name in ["tcp", "proxy", "middlebox", "upgrade", "auth", "tunnel", "target", "round trip"] {
        assert_eq!(step(&ended, name)["verdict"], "ok", "{ended:?}");
    }
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&report["exit_code"], &report["first_fault"]), (&0.into(), &serde_json::Value::Null));
}

#[tokio::test]
async fn without_a_key_the_doctor_says_which_there_are() {
    let gateway = Gateway::new().await;
    let _sandbox = sandbox(&gateway, "desktop-ses_1").await;
    let ended = probe(&gateway, "doctor").await;
    assert_well(&ended);
    assert!(ended.stdout.contains("skip  tunnel      no --key; there are desktop-ses_1\n"), "{ended:?}");
    assert!(ended.stdout.contains("not come to: target, round trip\n"), "{ended:?}");
}

#[tokio::test]
async fn the_doctor_takes_nobodys_place() {
    let gateway = Gateway::new().await;
    for protocol in ["native", "dialback"] {
        let agent = gateway.connected(protocol, &format!("--forward {} --protocol {protocol}", gateway.addr)).await;
        // What the gateway answers to whoever comes through its own tunnel is as good as any service's answer.
        let ended = probe(&gateway, &format!("doctor --key {protocol} --token {TOKEN} --path /stats")).await;
        assert_well(&ended);
        let stats = gateway.stats().await;
        assert_eq!(state(&stats, protocol), Some("connected"));
        let agents = stats["agents"].as_array().unwrap();
        let agent_is = agents.iter().find(|agent| agent["key"] == protocol).unwrap();
        assert_eq!((&agent_is["reconnects"], &agent_is["last_cause"]), (&0.into(), &serde_json::Value::Null));
        drop(agent);
    }
}

/// A server of another make: it lets anybody in, has no `/stats`, and stands behind what takes subprotocols out, as
/// some middleboxes do, so that every upgrade looks like one of dial-back.
async fn open_server() -> (SocketAddr, ConnectionManager) {
    let connman = ConnectionManager::new();
    let anybody = |parts: &http::request::Parts| Ok(Grant::new(requested_key(parts)?, "anybody"));
    let strip = async |mut request: Request| {
        request.headers_mut().remove(header::SEC_WEBSOCKET_PROTOCOL);
        request
    };
    let app = Router::new().layer(RevDialLayer::new(connman.clone(), anybody)).layer(map_request(strip));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, app).into_future());
    (addr, connman)
}

#[tokio::test]
async fn nobody_is_displaced_either_where_all_are_let_in_and_subprotocols_do_not_arrive() {
    let (addr, connman) = open_server().await;
    let agent = Agent::builder(format!("http://{addr}"), "a").token("t").build().unwrap();
    let mut status = agent.status();
    let (_listener, run) = agent.listen();
    let _run = tokio::spawn(run);
    timeout(DEADLINE, status.wait_for(AgentStatus::is_connected)).await.unwrap().unwrap();
    let before = connman.list();
    for key in ["a", "b"] {
        let ended = at(&format!("http://{addr}"), &format!("doctor --key {key} --token wrong")).await;
        assert_unseen(&ended, "tunnel, target"); // it may not even be there
        assert!(ended.stdout.contains("ok    auth        nobody is asked for a token\n"), "{ended:?}");
        assert!(ended.stdout.contains("skip  tunnel      the gateway has no /stats\n"), "{ended:?}");
    }
    let after = connman.list();
    assert_eq!(after.len(), 1, "{after:?}");
    assert_eq!((after[0].epoch, after[0].reconnects), (before[0].epoch, 0));
}

#[tokio::test]
async fn a_server_without_the_gateways_routes_is_well_and_says_nothing_of_what_is_behind_it() {
    let (addr, _connman) = open_server().await;
    let server = format!("http://{addr}");
    assert_well(&at(&server, "doctor").await);
    let ended = at(&server, "doctor --key b --json").await;
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&report["exit_code"], &report["first_fault"]), (&20.into(), &serde_json::Value::Null), "{report}");
    assert_eq!(report["not_looked_at"], serde_json::json!(["tunnel", "target"]), "{report}");
    let ended = at(&server, "doctor --token any --idle-up-to 1s").await;
    assert_unseen(&ended, "idle");
    assert!(ended.stdout.contains("skip  idle        404: the gateway has no /proxy"), "{ended:?}");
}

#[tokio::test]
async fn the_exit_codes_are_in_the_help_and_wrong_command_lines_end_with_2() {
    let ended = Program::run("probe --help", &[]).await;
    assert!(ended.status.success());
    for line in [
        "10  name:",
        "16  tunnel: no connection",
        "17  tunnel: time-out",
        "18  target: connection refused",
        "20  no fault",
    ] {
        assert!(ended.stdout.contains(line), "no {line:?}: {ended:?}");
    }
    for (command, named) in [
        ("doctor --server 127.0.0.1:1", "--server"),
        ("doctor --server http://user:hunter2@127.0.0.1:1", "--server"),
        ("doctor --server http://h/?token=hunter2", "--server"),
        ("doctor --key _a", "--key"),
        ("doctor --path x", "--path"),
        ("doctor --token=", "--token"),
        ("doctor --token hunter2\u{7}", "--token"),
        ("stats --caller-token hunter2\u{7}", "--caller-token"),
        ("doctor --timeout 0", "--timeout"),
        ("doctor --server https://h --ca /nowhere", "--ca /nowhere"),
        ("stream 1 --duration 2h", "--duration"),
        ("screenshot a/b", "a/b"),
        ("stats --no-such", "--no-such"),
    ] {
        let ended = Program::run(&format!("probe {command}"), &[]).await;
        assert_eq!(ended.status.code(), Some(2), "{command}: {ended:?}");
        assert!(ended.stderr.contains(named), "{command}: {ended:?}");
        assert_eq!(ended.stdout, "", "{command}");
        assert!(!ended.stderr.contains("hunter2"), "{command}: {ended:?}");
    }
}

//! Who may use the gateway's other routes, and what it tells about itself.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use axum::body::Body;
use http::{Method, header};
use serde_json::Value;

use crate::{Gateway, process::Program, raw, service::Service, text};

const GATED: [&str; 5] =
    ["/stats", "/metrics", "/proxy/a/", "/api/v1/external-agents/a/screenshot", "/api/v1/external-agents/a/ws/stream"];

#[tokio::test]
async fn callers_show_the_callers_token_and_sandboxes_never_see_it() {
    let (gateway, service) = (Gateway::with("--caller-token callers-secret").await, Service::new().await);
    let _agent = gateway.agent("a", &format!("--forward {}", service.addr));
    let ask = async |path: &str, credentials: &str| {
        let request = gateway.build(Method::GET, path).header(header::AUTHORIZATION, credentials);
        gateway.request(request.body(Body::empty()).unwrap()).await
    };
    _agent.logs("connected").await;
    for path in GATED {
        let answer = gateway.get(path).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["www-authenticate"]),
            (401, &"Bearer".parse().unwrap())
        );
        for wrong in ["Bearer wrong", "Basic callers-secret", "Bearer agents-secret"] {
            assert_eq!(ask(path, wrong).await.status(), 401, "{path}");
        }
    }
    assert_eq!(ask("/stats", "Bearer callers-secret").await.status(), 200);
    let (status, seen) = text(ask("/proxy/a/", "Bearer callers-secret").await).await;
    assert_eq!(status, 200);
    assert!(!seen.contains("authorization") && !seen.contains("callers-secret"), "{seen}");
}

#[tokio::test]
async fn tokens_come_from_the_environment_too_and_no_help_shows_them() {
    let env = [("RUNNER_TOKEN", "agents-secret"), ("CALLER_TOKEN", "callers-secret")];
    let gateway = Gateway::of(Program::start_with("gateway --listen 127.0.0.1:0", &env)).await;
    assert_eq!(gateway.get("/stats").await.status(), 401);
    let request = gateway.build(Method::GET, "/stats").header(header::AUTHORIZATION, "Bearer callers-secret");
    assert_eq!(gateway.request(request.body(Body::empty()).unwrap()).await.status(), 200);
    let help = Program::run("gateway --help", &env).await.stdout;
    assert!(help.contains("CALLER_TOKEN") && !help.contains("secret"), "{help}");
}

#[tokio::test]
async fn without_a_callers_token_credentials_are_the_services_matter() {
    let (gateway, service) = (Gateway::new().await, Service::new().await);
    let _agent = gateway.connected("a", &format!("--forward {}", service.addr)).await;
    let request = gateway.build(Method::GET, "/proxy/a/").header(header::AUTHORIZATION, "Basic YTpi");
    let (_, seen) = text(gateway.request(request.body(Body::empty()).unwrap()).await).await;
    assert!(seen.contains("Basic YTpi"), "{seen}");
}

#[tokio::test]
async fn without_a_callers_token_only_callers_from_this_machine_are_answered() {
    let gateway = Gateway::at("0.0.0.0:0", "").await;
    let local = SocketAddr::from(([127, 0, 0, 1], gateway.addr.port()));
    let Some(outside) = outside_address() else {
        eprintln!("this machine has the loopback address only: half of the test is left out");
        return;
    };
    let outside = SocketAddr::new(outside, gateway.addr.port());
    for (path, here) in GATED.into_iter().zip(["200", "200", "503", "503", "503"]) {
        for (addr, status) in [(local, here), (outside, "403")] {
            let answer = raw(addr, &format!("GET {path} HTTP/1.1\r\nhost: gateway\r\n\r\n")).await;
            assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{path} on {addr}: {answer}");
        }
    }
    // The tunnel's route asks for its own credentials and for nothing else.
    let answer = raw(
        outside,
        "GET /api/v1/revdial?runnerid=a HTTP/1.1\r\nhost: gateway\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    );
    assert!(answer.await.starts_with("http/1.1 401 "));
}

/// An address of this machine that is not loopback. Nothing is sent.
fn outside_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[tokio::test]
async fn stats_have_their_fields_and_metrics_are_prometheus_text() {
    let (gateway, service) = (Gateway::new().await, Service::new().await);
    let _agent = gateway.connected("zebra", &format!("--forward {}", service.addr)).await;
    assert_eq!(gateway.text("/proxy/zebra/").await.0, 200);
    assert_eq!(gateway.text("/proxy/nobody/").await.0, 503);
    assert!(gateway.raw("POST /api/v1/revdial HTTP/1.1\r\nhost: gateway\r\n\r\n").await.starts_with("http/1.1 405 "));

    let stats = gateway.stats().await;
    for (name, value) in
        [("active_connections", 1), ("grace_period_entries", 0), ("pending_dials_total", 0), ("pending_dials_keys", 0)]
    {
        assert_eq!(stats[name], value, "{name}");
    }
    let Value::Array(agents) = &stats["agents"] else { panic!("{stats}") };
    let [agent] = &agents[..] else { panic!("{stats}") };
    assert_eq!((&agent["key"], &agent["state"]), (&"zebra".into(), &"connected".into()));
    assert_eq!((&agent["protocol"], &agent["reconnects"]), (&"revdial.v1".into(), &0.into()));
    assert!(agent["version"].as_str().is_some_and(|version| version.starts_with("revdial-agent/")), "{agent}");
    assert!(agent["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{agent}");
    assert!(agent["sent_bytes"].as_u64() > Some(0) && agent["received_bytes"].as_u64() > Some(0), "{agent}");

    let (status, metrics) = gateway.text("/metrics").await;
    assert_eq!(status, 200);
    for name in [
        "revdial_active_connections 1\n",
        "revdial_dial_duration_seconds_count{outcome=\"ok\"} 1\n",
        "revdial_dial_failures_total{kind=\"no_connection\"} 1\n",
        "revdial_handshake_rejected_total{reason=\"method\"} 1\n",
        "revdial_streams_open ",
        "revdial_stream_bytes_total{direction=\"sent\"} ",
        "revdial_stream_bytes_total{direction=\"received\"} ",
        "process_open_fds ",
        "process_max_fds ",
    ] {
        assert!(metrics.contains(&format!("\n{name}")), "no {name:?} in:\n{metrics}");
    }
    for line in metrics.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        let is_known = name.starts_with("revdial_") || name.starts_with("process_");
        assert!(is_known && value.parse::<f64>().is_ok(), "{line}");
    }
    assert!(!metrics.contains("zebra"), "keys are no labels");
}

//! What the gateway tells of its fleet: the page, `/stats` by pages, `/events`, and whether it serves.

use axum::body::Body;
use futures_util::StreamExt;
use http::{Method, Response, StatusCode, header};
use http_body_util::BodyStream;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::timeout;

use crate::{Gateway, process::DEADLINE, text};

/// The events of an answer of `/events`.
struct Events {
    body: BodyStream<Incoming>,
    text: String,
}

impl Events {
    async fn of(gateway: &Gateway) -> Self {
        let answer = gateway.get("/events").await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()[header::CONTENT_TYPE]),
            (200, &"text/event-stream".parse().unwrap())
        );
        let mut events = Self { body: BodyStream::new(answer.into_body()), text: String::new() };
        assert_eq!(events.next().await.expect("a greeting").0, "listening");
        events
    }

    /// The next event's name and data; `None` at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
                let told = field("event: ").zip(field("data: "));
                self.text = rest.to_owned();
                match told {
                    Some((name, data)) => return Some((name, serde_json::from_str(&data).expect("JSON"))),
                    None => continue, // a comment, to keep the connection
                }
            }
            let frame = timeout(DEADLINE, self.body.next()).await.expect("in time")?;
            let data = frame.expect("a whole frame").into_data().expect("data");
            self.text.push_str(std::str::from_utf8(&data).expect("text"));
        }
    }

    /// Skips to an event of this name and key.
    async fn until(&mut self, name: &str, key: &str) -> Value {
        loop {
            let (found, data) = self.next().await.unwrap_or_else(|| panic!("no {name} of {key}"));
            if found == name && data["key"] == key {
                return data;
            }
        }
    }
}

#[tokio::test]
async fn the_page_comes_with_a_policy_that_lets_in_nothing_else() {
    let gateway = Gateway::new().await;
    for (path, kind, has) in [
        ("/", "text/html; charset=utf-8", "/.gateway/status.js"),
        ("/.gateway/status.js", "text/javascript; charset=utf-8", "EventSource"),
        ("/.gateway/status.css", "text/css; charset=utf-8", "prefers-color-scheme: dark"),
    ] {
        let answer = gateway.get(path).await;
        let headers = answer.headers().clone();
        assert_eq!(headers[header::CONTENT_TYPE], kind);
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob: data:",
            "connect-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.split("; ").any(|found| found == part), "{path}: {policy}");
        }
        assert_eq!(headers["cross-origin-resource-policy"], "same-origin");
        let (status, body) = text(answer).await;
        assert!(status == 200 && body.contains(has), "{path}");
        for never in ["innerHTML", "insertAdjacentHTML", "document.write", "eval(", "https://", " style=", " onclick="]
        {
            assert!(!body.contains(never), "{path} has {never}");
        }
    }
}

#[tokio::test]
async fn events_tell_what_happens_to_sandboxes_as_it_happens() {
    let gateway = Gateway::with("--grace 300ms").await;
    let mut events = Events::of(&gateway).await;
    let mut agent = gateway.connected("a", "--forward 127.0.0.1:1").await;
    let connected = events.until("connected", "a").await;
    assert!(connected["version"].as_str().is_some_and(|version| version.starts_with("revdial-agent/")), "{connected}");
    agent.kill().await;
    let lost = events.until("lost", "a").await;
    assert_eq!((&lost["epoch"], &lost["grace_seconds"]), (&connected["epoch"], &0.3.into()));
    assert!(lost["cause"].is_string(), "{lost}");
    let expired = events.until("expired", "a").await;
    assert_eq!(expired["epoch"], connected["epoch"]);
    assert_eq!(expired["reason"], "the agent did not return in its grace");

    let mut agent = gateway.connected("b", "--forward 127.0.0.1:1").await;
    agent.signal("TERM").await;
    agent.ended().await;
    assert_eq!(events.until("expired", "b").await["reason"], "the agent had drained");
}

#[tokio::test]
async fn a_listener_that_does_not_read_holds_up_nobody() {
    let gateway = Gateway::new().await;
    let _deaf = gateway.get("/events").await;
    let mut events = Events::of(&gateway).await;
    for round in 0..3 {
        let key = format!("a{round}");
        let _agent = gateway.connected(&key, "--forward 127.0.0.1:1").await;
        events.until("connected", &key).await;
    }
}

#[tokio::test]
async fn listeners_beyond_the_limit_are_asked_to_come_again() {
    let gateway = Gateway::new().await;
    let mut listeners = Vec::new();
    for _ in 0..100 {
        listeners.push(Events::of(&gateway).await);
    }
    let refused = gateway.get("/events").await;
    assert_eq!((refused.status().as_u16(), &refused.headers()[header::RETRY_AFTER]), (503, &"5".parse().unwrap()));
    listeners.pop();
    let freed = async {
        while gateway.get("/events").await.status() != 200 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, freed).await.expect("a place that was left is free");
}

#[tokio::test]
async fn stats_come_by_pages_and_by_choice() {
    let gateway = Gateway::new().await;
    let mut agents = Vec::new();
    for key in ["ada", "bob", "cyd"] {
        agents.push(gateway.connected(key, "--forward 127.0.0.1:1").await);
    }
    agents.remove(1).kill().await;
    gateway.until(|stats| stats["grace_period_entries"] == 1).await;
    let ask = async |query: &str| {
        let (status, text) = gateway.text(&format!("/stats?{query}")).await;
        assert_eq!(status, 200, "{text}");
        let stats: Value = serde_json::from_str(&text).unwrap();
        let keys = stats["agents"].as_array().unwrap().iter().map(|agent| agent["key"].as_str().unwrap().to_owned());
        assert_eq!(stats["active_connections"], 2, "counts are of the whole fleet");
        (keys.collect::<Vec<_>>().join(" "), stats["next"].as_str().map(str::to_owned), stats["matching"].as_u64())
    };
    assert_eq!(ask("").await, ("ada bob cyd".into(), None, Some(3)));
    assert_eq!(ask("limit=2").await, ("ada bob".into(), Some("bob".into()), Some(3)));
    assert_eq!(ask("limit=2&after=bob").await, ("cyd".into(), None, Some(3)));
    assert_eq!(ask("limit=1&state=connected").await, ("ada".into(), Some("ada".into()), Some(2)));
    assert_eq!(ask("state=grace").await, ("bob".into(), None, Some(1)));
    assert_eq!(ask("state=draining").await, (String::new(), None, Some(0)));
    assert_eq!(ask("q=YD").await, ("cyd".into(), None, Some(1)));
    assert_eq!(ask("q=revdial-agent").await, ("ada bob cyd".into(), None, Some(3)));
    for bad in ["limit=x", "limit=-1", "state=odd"] {
        assert_eq!(gateway.text(&format!("/stats?{bad}")).await.0, 400, "{bad}");
    }
}

#[tokio::test]
async fn stats_tell_who_is_waited_for() {
    let gateway = Gateway::new().await;
    let mut agent = gateway.connected("a", "--forward 127.0.0.1:1").await;
    agent.kill().await;
    gateway.until(|stats| stats["grace_period_entries"] == 1).await;
    let waits = async { gateway.get("/proxy/a/").await.status() };
    let seen = gateway.until(|stats| stats["agents"][0]["pending_dials"] == 1);
    tokio::select! {
        status = waits => panic!("it does not wait: {status}"),
        seen = seen => assert_eq!((&seen["pending_dials_total"], &seen["pending_dials_keys"]), (&1.into(), &1.into())),
    }
}

#[tokio::test]
async fn a_gateway_that_drains_says_so_and_lets_its_listeners_go() {
    let mut gateway = Gateway::with("--drain 20s --caller-token callers-secret").await;
    // Whoever balances load has no token.
    assert_eq!(gateway.text("/healthz").await, (StatusCode::OK, "ok\n".into()));
    assert_eq!(gateway.text("/readyz").await, (StatusCode::OK, "ready\n".into()));
    let ask = async |path: &str| -> Response<Incoming> {
        let request = gateway.build(Method::GET, path).header(header::AUTHORIZATION, "Bearer callers-secret");
        gateway.request(request.body(Body::empty()).unwrap()).await
    };
    let service = crate::service::Service::new().await;
    let agent = gateway.agent("a", &format!("--forward {}", service.addr));
    agent.logs("connected").await;
    let running = ask("/proxy/a/hold").await;
    assert_eq!(running.status(), 200);
    let mut listening = Events { body: BodyStream::new(ask("/events").await.into_body()), text: String::new() };
    listening.next().await.expect("a greeting");
    gateway.program.signal("TERM").await;
    listening.until("draining", "a").await;
    drop(running);
    while listening.next().await.is_some() {}
    assert!(gateway.program.ended().await.success());
}

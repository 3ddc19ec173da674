//! Connections and the sessions that they belong to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::Request as AxumRequest, extract::State, routing::any};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use hyper::{body::Incoming, server::conn::http1 as server};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use revdial::{
    Blame, Error, ErrorKind, TargetName, TunnelStream,
    agent::Listener,
    connman::{ConnectionManager, FixedGrace},
    proxy::{MaxWait, Proxy, ProxyBody},
};
use tokio::{io::AsyncWriteExt, sync::mpsc, task::JoinHandle, time::Instant};
use tower::util::MapRequest;

use super::support::{
    EMPTY, agent, get, head, host, key, manager, send, serve_http, serve_raw, serve_streams, text, to,
};

/// Serves `name` and counts the streams.
fn named(listener: Listener, name: &'static str) -> Arc<AtomicUsize> {
    let streams = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&streams);
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
    serve_streams(listener, move |mut stream: TunnelStream| {
        count.fetch_add(1, Ordering::SeqCst);
        let answer = answer.clone();
        async move {
            while !head(&mut stream).await.is_empty() {
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    });
    streams
}

async fn ask(proxy: &Proxy<Empty<Bytes>>) -> String {
    let request = Request::get("/").body(Empty::new()).unwrap();
    text(proxy.forward(&key(), &TargetName::default(), request).await.into_body()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_used_again_for_15_seconds() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    let streams = named(listener, "one");
    let proxy = builder.build();
    for _ in 0..3 {
        assert_eq!(ask(&proxy).await, "one");
        tokio::time::sleep(Duration::from_secs(14)).await;
    }
    assert_eq!(streams.load(Ordering::SeqCst), 1);
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert_eq!(ask(&proxy).await, "one");
    assert_eq!(streams.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_replaced_session_gets_no_new_request() {
    let (connman, builder) = manager();
    let (listener, _old) = agent(&connman).await;
    named(listener, "old");
    let proxy = builder.build();
    assert_eq!(ask(&proxy).await, "old");
    let (listener, _new) = agent(&connman).await;
    let streams = named(listener, "new");
    assert_eq!(ask(&proxy).await, "new");
    assert_eq!(streams.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn p4_b64_a_request_in_the_grace_waits_and_its_connection_is_not_used_again() {
    let connman = ConnectionManager::builder().grace(FixedGrace::secs(30)).build();
    let (listener, running) = agent(&connman).await;
    named(listener, "old");
    let proxy: Proxy<Empty<Bytes>> = Proxy::new(connman.clone());
    assert_eq!(ask(&proxy).await, "old");
    running.kill().await;
    while connman.epoch(&key()).is_some() {
        tokio::task::yield_now().await;
    }
    let back = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        let (listener, running) = agent(&connman).await;
        (named(listener, "back"), running)
    };
    let (answer, (streams, _running)) = tokio::join!(ask(&proxy), back);
    assert_eq!(answer, "back");
    // By a connection of the new session's own.
    assert_eq!((ask(&proxy).await, ask(&proxy).await), ("back".to_owned(), "back".to_owned()));
    assert_eq!(streams.load(Ordering::SeqCst), 2);
}

/// Serves nothing, and tells the first line of each request that comes.
fn silent(listener: Listener) -> mpsc::UnboundedReceiver<String> {
    let (seen, lines) = mpsc::unbounded_channel();
    serve_streams(listener, move |mut stream: TunnelStream| {
        let seen = seen.clone();
        async move {
            let head = head(&mut stream).await;
            let _ = seen.send(head.lines().next().unwrap_or_default().to_owned());
            std::future::pending::<()>().await;
        }
    });
    lines
}

/// A proxy, and a request of this method that has reached a service when its agent dies.
async fn caught(
    method: &'static str,
    body: Full<Bytes>,
) -> (ConnectionManager, JoinHandle<Result<Response<ProxyBody>, Error>>) {
    let connman = ConnectionManager::builder().grace(FixedGrace::secs(30)).build();
    let (listener, running) = agent(&connman).await;
    let mut lines = silent(listener);
    let proxy = Proxy::new(connman.clone());
    let request = Request::builder().method(method).uri("/p?q").body(body).unwrap();
    let answer = tokio::spawn(async move { proxy.try_forward(&key(), &TargetName::default(), request).await });
    assert_eq!(lines.recv().await.unwrap(), format!("{method} /p?q HTTP/1.1"));
    running.kill().await;
    (connman, answer)
}

#[tokio::test(start_paused = true)]
async fn a_safe_request_whose_session_is_lost_before_the_head_waits_for_the_next_one() {
    for method in ["GET", "HEAD", "OPTIONS"] {
        let (connman, answer) = caught(method, Full::default()).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(!answer.is_finished());
        let (listener, _back) = agent(&connman).await;
        let mut heads = serve_raw(listener, EMPTY);
        assert_eq!(answer.await.unwrap().unwrap().status(), 200);
        let head = heads.recv().await.unwrap();
        assert!(head.starts_with(&format!("{method} /p?q HTTP/1.1\r\n")) && head.contains("host: a\r\n"), "{head}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_repeated_once_and_no_more() {
    let (connman, answer) = caught("GET", Full::default()).await;
    let (listener, running) = agent(&connman).await;
    let mut lines = silent(listener);
    lines.recv().await.unwrap();
    running.kill().await;
    assert_eq!(answer.await.unwrap().unwrap_err().kind(), ErrorKind::SessionLost);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_something_or_has_a_body_is_not_repeated() {
    for (method, body) in [("POST", ""), ("PUT", ""), ("DELETE", ""), ("TRACE", ""), ("GET", "x")] {
        let (_connman, answer) = caught(method, Full::from(body)).await;
        assert_eq!(answer.await.unwrap().unwrap_err().kind(), ErrorKind::SessionLost, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_nobody_accepts_fails_in_time_with_and_without_early_data() {
    for early_data in [false, true] {
        let (connman, builder) = manager();
        // Nobody accepts.
        let (_listener, _agent) = agent(&connman).await;
        let proxy: Proxy<Empty<Bytes>> = builder.early_data(early_data).build();
        let request = Request::get("/").body(Empty::new()).unwrap();
        let (key, target) = (key(), TargetName::default());
        let answer = proxy.try_forward(&key, &target, request);
        let answer = tokio::time::timeout(Duration::from_secs(11), answer).await.expect("within ten seconds");
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::DialTimeout);
    }
}

#[tokio::test(start_paused = true)]
async fn the_dial_timeout_is_over_the_agents_answer_only_where_the_dial_waits_for_that() {
    for (early_data, seconds, blame) in [(true, 10, Blame::Agent), (false, 5, Blame::Caller)] {
        let (connman, builder) = manager();
        // Nobody accepts.
        let (_listener, _agent) = agent(&connman).await;
        let proxy: Proxy<Empty<Bytes>> = builder.dial_timeout(Duration::from_secs(5)).early_data(early_data).build();
        let asked = Instant::now();
        let (key, target) = (key(), TargetName::default());
        let failed = proxy.try_forward(&key, &target, Request::get("/").body(Empty::new()).unwrap()).await;
        let error = failed.expect_err("there is no answer");
        assert_eq!((error.blame(), proxy.answer(&error).status().as_u16()), (blame, 504));
        assert_eq!(asked.elapsed().as_secs(), seconds, "early data: {early_data}");
    }
}

/// The open is under way, and not answered, when its agent is lost.
#[tokio::test(start_paused = true)]
async fn b64_what_a_request_says_of_its_wait_bounds_its_open_too() {
    for (is_upgrade, most) in [(false, 0), (false, 3), (true, 0), (true, 3)] {
        let connman = ConnectionManager::builder().grace(FixedGrace::secs(30)).build();
        let (_listener, running) = agent(&connman).await;
        let proxy = Proxy::builder(connman.clone()).early_data(false).build();
        let proxy = to(proxy, TargetName::default());
        let proxy = MapRequest::new(proxy, move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(MaxWait::new(Duration::from_secs(most)));
            request
        });
        let (near, far) = tokio::io::duplex(64 * 1024);
        let host = server::Builder::new().serve_connection(TokioIo::new(far), TowerToHyperService::new(proxy));
        tokio::spawn(host.with_upgrades());
        let mut request = get("/");
        if is_upgrade {
            request.headers_mut().insert("connection", "upgrade".parse().unwrap());
            request.headers_mut().insert("upgrade", "websocket".parse().unwrap());
        }
        let start = Instant::now();
        let (response, ()) = tokio::join!(send(near, request), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            running.kill().await;
        });
        assert_eq!(response.status(), 503);
        let kind = text(response.into_body()).await.unwrap();
        assert_eq!(kind, "reconnect_timeout", "{is_upgrade} {most}: {:?}", start.elapsed());
        // And as long as the dial timeout lets an agent take for its answer.
        let most = Duration::from_secs(most + 10);
        assert!(start.elapsed() <= most, "{is_upgrade} {most:?}: {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn works_in_an_axum_handler_and_in_plain_hyper() {
    async fn handler(State(proxy): State<Proxy<Body>>, request: AxumRequest) -> Response<ProxyBody> {
        proxy.forward(&key(), &TargetName::default(), request).await
    }
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    serve_http(listener, |request: Request<Incoming>| async move {
        Response::new(Full::new(Bytes::from(request.uri().to_string())))
    });
    let app = Router::new().route("/axum/{*rest}", any(handler)).with_state(builder.clone().build());
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(server::Builder::new().serve_connection(TokioIo::new(far), TowerToHyperService::new(app)));
    assert_eq!(text(send(near, get("/axum/x?y=%20")).await.into_body()).await.unwrap(), "/axum/x?y=%20");
    assert_eq!(text(send(host(&builder.build()), get("/hyper")).await.into_body()).await.unwrap(), "/hyper");
}

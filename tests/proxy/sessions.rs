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
    ErrorKind, TargetName, TunnelStream,
    agent::Listener,
    connman::{ConnectionManager, FixedGrace},
    proxy::{Proxy, ProxyBody},
};
use tokio::io::AsyncWriteExt;

use super::support::{agent, get, head, host, key, manager, send, serve_http, serve_streams, text};

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
async fn b64_a_request_in_the_grace_waits_and_its_connection_is_not_used_again() {
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

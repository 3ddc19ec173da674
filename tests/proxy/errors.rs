//! What failures are to a client.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use revdial::{
    ErrorKind, TargetName, TunnelStream,
    connman::{ConnectionManager, FixedGrace},
    proxy::{Destination, MaxWait, Proxy, ProxyBody},
};
use tokio::{io::AsyncWriteExt, time::Instant};
use tower::{Service, ServiceExt};

use super::support::{EMPTY, agent, get, head, host, key, manager, send, serve_raw, serve_streams, verdict};

/// The answer to a request of `a`'s default target.
async fn ask(proxy: &Proxy<Empty<Bytes>>, target: &str) -> (u16, bool, String) {
    let response: Response<ProxyBody> =
        proxy.forward(&key(), &target.parse().unwrap(), Request::get("/").body(Empty::new()).unwrap()).await;
    verdict(response).await
}

fn answer(status: u16, retry_after: bool, text: &str) -> (u16, bool, String) {
    (status, retry_after, text.to_owned())
}

#[test]
fn the_proxy_is_what_hosts_ask_for() {
    fn service<S>(_: &S)
    where
        S: Service<Request<Incoming>, Response = Response<ProxyBody>, Future: Send> + Clone + Send + Sync + 'static,
    {
    }
    fn body<B: hyper::body::Body<Data = Bytes> + Default + Send + Unpin + 'static>() {}
    service(&Proxy::new(ConnectionManager::new()));
    body::<ProxyBody>();
    let _: axum::Router =
        axum::Router::new().route_service("/", Proxy::<axum::body::Body>::new(ConnectionManager::new()));
}

#[tokio::test(start_paused = true)]
async fn b72_an_unknown_key_is_503_with_retry_after_or_404() {
    let (_connman, builder) = manager();
    let start = Instant::now();
    assert_eq!(ask(&builder.clone().build(), "").await, answer(503, true, "no_connection"));
    assert_eq!(ask(&builder.absent_is_not_found(true).build(), "").await, answer(404, false, "no_connection"));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn e1_e13_a_key_that_is_gone_is_503_with_retry_after_also_where_one_that_never_came_is_404() {
    let (connman, builder) = manager();
    let proxy = builder.absent_is_not_found(true).build();
    assert_eq!(ask(&proxy, "").await, answer(404, false, "no_connection"));
    let (_listener, running) = agent(&connman).await;
    assert!(connman.disconnect(&key()));
    assert_eq!(ask(&proxy, "").await, answer(503, true, "no_connection"), "and nothing of why");
    let mut patient = Request::get("/").body(Empty::new()).unwrap();
    patient.extensions_mut().insert(MaxWait::new(Duration::from_secs(1)));
    let response = proxy.forward(&key(), &TargetName::default(), patient).await;
    assert_eq!(verdict(response).await, answer(503, true, "no_connection"));

    running.kill().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(ask(&proxy, "").await, answer(404, false, "no_connection"), "nobody remembers it");
}

#[tokio::test(start_paused = true)]
async fn b73_to_b75_refusals_are_502_and_counted_once() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    for early_data in [true, false] {
        let (connman, builder) = manager();
        let (listener, _agent) = agent(&connman).await;
        let _heads = serve_raw(listener, EMPTY);
        let proxy = builder.early_data(early_data).build();
        assert_eq!(ask(&proxy, "vnc").await, answer(502, false, "target_unknown"));
    }
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    drop(listener);
    assert_eq!(ask(&builder.build(), "").await, answer(502, false, "target_refused"));

    let counted = |kind: &str| -> u64 {
        let values = snapshotter.snapshot().into_vec().into_iter().filter_map(|(key, _, _, value)| {
            let key = key.key();
            let is = key.name() == "revdial_dial_failures_total" && key.labels().any(|label| label.value() == kind);
            match value {
                DebugValue::Counter(n) if is => Some(n),
                _ => None,
            }
        });
        values.sum()
    };
    assert_eq!(counted("target_unknown"), 2);
}

#[tokio::test(start_paused = true)]
async fn s1_e2_e4_a_key_in_grace_is_waited_for_until_the_deadline_or_the_grace_ends() {
    let connman = ConnectionManager::builder().grace(FixedGrace::secs(30)).build();
    let (_listener, running) = agent(&connman).await;
    running.kill().await;
    while connman.epoch(&key()).is_some() {
        tokio::task::yield_now().await;
    }
    let builder = Proxy::builder(connman.clone());
    let start = Instant::now();
    let proxy = builder.clone().dial_timeout(Duration::from_secs(2)).build();
    assert_eq!(ask(&proxy, "").await, answer(504, false, "dial_timeout"));
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    assert_eq!(ask(&builder.clone().build(), "").await, answer(503, true, "reconnect_timeout"));
    assert_eq!(ask(&builder.clone().build(), "").await, answer(503, true, "no_connection"));
    connman.shutdown();
    assert_eq!(ask(&builder.build(), "").await, answer(503, true, "shutdown"));
}

#[tokio::test(start_paused = true)]
async fn b63_a_session_lost_before_the_head_is_502_and_after_it_a_body_that_fails() {
    for after_head in [false, true] {
        let (connman, builder) = manager();
        let (listener, running) = agent(&connman).await;
        let (at, mut was_at) = tokio::sync::mpsc::channel(1);
        serve_streams(listener, move |mut stream: TunnelStream| {
            let at = at.clone();
            async move {
                head(&mut stream).await;
                if after_head {
                    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf").await.unwrap();
                }
                at.send(()).await.unwrap();
                std::future::pending::<()>().await;
            }
        });
        let proxy: Proxy<Empty<Bytes>> = builder.build();
        let request = {
            let proxy = proxy.clone();
            tokio::spawn(async move {
                let request = Request::post("/").body(Empty::new()).unwrap();
                proxy.try_forward(&key(), &TargetName::default(), request).await
            })
        };
        was_at.recv().await.unwrap();
        if after_head {
            let mut body = request.await.unwrap().unwrap().into_body();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
            running.kill().await;
            assert_eq!(body.frame().await.unwrap().unwrap_err().kind(), ErrorKind::SessionLost);
        } else {
            running.kill().await;
            let error = request.await.unwrap().unwrap_err();
            assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::SessionLost, false));
            assert_eq!(verdict(proxy.answer(&error)).await, answer(502, false, "session_lost"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn b77_a_request_that_meets_a_closing_connection_is_502_and_not_sent_again() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&requests);
    serve_streams(listener, move |mut stream: TunnelStream| {
        let seen = Arc::clone(&seen);
        async move {
            // One answer, then the end as the second request arrives.
            head(&mut stream).await;
            seen.fetch_add(1, Ordering::SeqCst);
            stream.write_all(EMPTY.as_bytes()).await.unwrap();
            head(&mut stream).await;
            seen.fetch_add(1, Ordering::SeqCst);
        }
    });
    let proxy = builder.build();
    assert_eq!(ask(&proxy, "").await, answer(200, false, ""));
    assert_eq!(ask(&proxy, "").await, answer(502, false, "peer_reset"));
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    // The next one gets a connection of its own.
    assert_eq!(ask(&proxy, "").await, answer(200, false, ""));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_http_or_switches_unasked_is_502() {
    for bytes in ["SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", ""]
    {
        let (connman, builder) = manager();
        let (listener, _agent) = agent(&connman).await;
        serve_streams(listener, move |mut stream: TunnelStream| async move {
            head(&mut stream).await;
            stream.write_all(bytes.as_bytes()).await.unwrap();
        });
        assert_eq!(ask(&builder.build(), "").await, answer(502, false, "peer_reset"), "{bytes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_body_fails_is_the_callers_fault() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    serve_streams(listener, |mut stream: TunnelStream| async move {
        head(&mut stream).await;
        std::future::pending::<()>().await;
    });
    let frames = [Ok(hyper::body::Frame::data(Bytes::from_static(b"x"))), Err(std::io::Error::other("too long"))];
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
    let proxy = builder.build();
    let error = proxy.try_forward(&key(), &TargetName::default(), Request::post("/").body(body).unwrap()).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_destination_is_the_hosts_fault() {
    let (_connman, builder) = manager();
    let proxy: Proxy<Full<Bytes>> = builder.build();
    let response = proxy.clone().oneshot(get("/")).await.unwrap();
    assert_eq!(verdict(response).await, answer(500, false, "internal"));
    let mut request = get("/");
    request.extensions_mut().insert(Destination::new(key(), TargetName::default()));
    assert_eq!(verdict(proxy.oneshot(request).await.unwrap()).await, answer(503, true, "no_connection"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_failure_keeps_the_clients_connection() {
    let (_connman, builder) = manager();
    let response = send(host(&builder.build()), get("/")).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["content-length"], "13");
    assert!(!response.headers().contains_key("connection"));
}

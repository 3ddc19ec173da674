//! Callers with deadlines, and callers that lose interest: the local service is told.

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use revdial::{TunnelStream, connector::RevDialConnector, connman::ConnectionManager};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::{Instant, timeout},
};
use tower::ServiceExt;

use super::{
    askers::Asker,
    counted::Counted,
    support::{agent, head, serve_streams},
};

/// What a caller gives itself.
const DEADLINE: Duration = Duration::from_secs(2);

/// Until when the service has been told.
const PROMPT: Duration = Duration::from_millis(100);

/// Tells when a request has come, and when its caller neither writes nor reads any more.
fn serve(listener: revdial::agent::Listener, answer: &'static str) -> mpsc::UnboundedReceiver<(&'static str, Instant)> {
    let (tell, told) = mpsc::unbounded_channel();
    serve_streams(listener, move |mut stream: TunnelStream| {
        let tell = tell.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
            tell.send(("begun", Instant::now())).unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
            std::future::poll_fn(|cx| stream.poll_stopped(cx)).await;
            tell.send(("over", Instant::now())).unwrap();
        }
    });
    told
}

#[tokio::test(start_paused = true)]
async fn b79_a_deadline_before_the_head_or_in_the_body_reaches_the_service_within_100_ms() {
    let counted = Counted::new();
    let mut left = 0;
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", "HTTP/1.1 200 OK\r\n\r\nhalf"] {
        for (method, body) in [(Method::GET, ""), (Method::POST, "question")] {
            for which in [0, 1] {
                let connman = ConnectionManager::new();
                let (listener, _agent) = agent(&connman).await;
                let mut told = serve(listener, answer);
                let [proxy, client] = Asker::both(&connman);
                let asker = if which == 0 { proxy } else { client };
                let whole = async { asker.ask(method.clone(), body).await.unwrap().into_body().collect().await };
                let start = Instant::now();
                assert!(timeout(DEADLINE, whole).await.is_err());
                let (begun, over) = (told.recv().await.unwrap(), told.recv().await.unwrap());
                assert_eq!((begun.0, over.0), ("begun", "over"));
                let after = over.1 - start;
                assert!((DEADLINE..=DEADLINE + PROMPT).contains(&after), "{answer} {method} {asker:?}: {after:?}");
                left += 1;
                assert_eq!(counted.sum("revdial_streams_total{cancelled}"), left, "{answer} {method} {asker:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn b79_a_stream_that_is_dropped_is_over_for_the_service_within_100_ms() {
    let counted = Counted::new();
    let connman = ConnectionManager::new();
    let (listener, _agent) = agent(&connman).await;
    let mut told = serve(listener, "SSH-2.0-ours\r\n");
    let mut stream = RevDialConnector::new(connman).oneshot("http://a/".parse().unwrap()).await.unwrap();
    stream.write_all(b"SSH-2.0-theirs\r\n\r\n").await.unwrap();
    assert_eq!(told.recv().await.unwrap().0, "begun");
    let start = Instant::now();
    drop(stream);
    let (what, at) = told.recv().await.unwrap();
    assert_eq!(what, "over");
    assert!(at - start <= PROMPT);
    assert_eq!(counted.sum("revdial_streams_total{cancelled}"), 1);
}

/// hyper-util's client keeps a connect going that is no longer waited for, to have it for the next request.
#[tokio::test(start_paused = true)]
async fn b79_a_deadline_in_a_connect_leaves_nothing_behind_that_waits() {
    let connman = ConnectionManager::new();
    let (_listener, running) = agent(&connman).await;
    running.kill().await;
    while connman.epoch(&super::support::key()).is_some() {
        tokio::task::yield_now().await;
    }
    let connecting = RevDialConnector::new(connman.clone()).oneshot("http://a/".parse().unwrap());
    assert!(timeout(DEADLINE, connecting).await.is_err());
    assert_eq!(connman.stats().pending_dials_total, 0);
}

//! HTTP/2 with prior knowledge inside a stream: many requests in one, each with its own flow and its own end.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{future::join_all, stream};
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use revdial::{agent::Listener, connector::RevDialConnector, connman::ConnectionManager};
use tokio::{sync::mpsc, time::timeout};

use super::support::{agent, serve_streams};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Serves HTTP/2 on each stream, and counts the streams.
fn serve<F, A, B>(listener: Listener, service: F) -> Arc<AtomicUsize>
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<B>> + Send + 'static,
    B: hyper::body::Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let streams = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&streams);
    serve_streams(listener, move |stream| {
        count.fetch_add(1, Ordering::SeqCst);
        let service = service.clone();
        let service = service_fn(move |request| {
            let response = service(request);
            async move { Ok::<_, Infallible>(response.await) }
        });
        async move { drop(http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await) }
    });
    streams
}

fn client(connman: ConnectionManager) -> Client<RevDialConnector, Body> {
    Client::builder(TokioExecutor::new()).http2_only(true).build(RevDialConnector::new(connman))
}

fn body(chunks: Vec<Bytes>, trailers: HeaderMap) -> Body {
    let frames = chunks.into_iter().map(Frame::data).chain([Frame::trailers(trailers)]);
    StreamBody::new(stream::iter(frames.map(Ok).collect::<Vec<_>>())).boxed_unsync()
}

#[tokio::test(start_paused = true)]
async fn requests_at_once_share_one_stream_and_keep_bodies_and_trailers_apart() {
    let connman = ConnectionManager::new();
    let (listener, _agent) = agent(&connman).await;
    let streams = serve(listener, |request: Request<Incoming>| async move {
        assert_eq!((request.version(), request.uri().host()), (Version::HTTP_2, Some("a")));
        Response::builder().header("x-path", request.uri().path()).body(request.into_body()).unwrap()
    });
    let client = client(connman);
    let exchanges = (0..20_u8).map(|n| {
        let client = client.clone();
        async move {
            let chunks = vec![Bytes::from(vec![n; 20_000]); 5];
            let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), u16::from(n).into())]);
            let request = Request::post(format!("http://a/{n}")).body(body(chunks.clone(), trailers.clone())).unwrap();
            let response = client.request(request).await.unwrap();
            assert_eq!((response.version(), response.status().as_u16()), (Version::HTTP_2, 200));
            assert_eq!(response.headers()["x-path"], format!("/{n}"));
            let back = response.into_body().collect().await.unwrap();
            assert_eq!(back.trailers(), Some(&trailers));
            assert!(back.to_bytes() == chunks.concat());
        }
    });
    timeout(Duration::from_secs(10), join_all(exchanges)).await.expect("all exchanges end");
    assert_eq!(streams.load(Ordering::SeqCst), 1);
}

/// Says when it is dropped.
struct Tell(&'static str, mpsc::UnboundedSender<&'static str>);

impl Drop for Tell {
    fn drop(&mut self) {
        let _ = self.1.send(self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn b79_a_request_that_is_given_up_ends_within_100_ms_and_those_beside_it_do_not() {
    let connman = ConnectionManager::new();
    let (listener, _agent) = agent(&connman).await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let streams = serve(listener, move |request: Request<Incoming>| {
        let tell = tell.clone();
        async move {
            if request.uri().path() == "/hangs" {
                let _end = Tell("ended", tell.clone());
                tell.send("begun").unwrap();
                std::future::pending::<()>().await;
            }
            Response::new(request.into_body())
        }
    });
    let client = client(connman);
    let (more, chunks) = mpsc::channel(1);
    let chunks = stream::unfold(chunks, |mut chunks| async { Some((Ok(Frame::data(chunks.recv().await?)), chunks)) });
    let beside = client.request(Request::post("http://a/beside").body(StreamBody::new(chunks).boxed_unsync()).unwrap());
    let mut beside = beside.await.unwrap().into_body();

    let hanging = client.get("http://a/hangs".parse().unwrap());
    assert!(timeout(Duration::from_secs(1), hanging).await.is_err());
    assert_eq!(told.recv().await, Some("begun"));
    assert_eq!(timeout(Duration::from_millis(100), told.recv()).await, Ok(Some("ended")));

    more.send(Bytes::from_static(b"still here")).await.unwrap();
    assert_eq!(beside.frame().await.unwrap().unwrap().into_data().unwrap(), "still here");
    assert_eq!(streams.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn b63_a_lost_session_is_an_error_of_all_its_requests_and_the_next_one_gets_a_stream_of_the_next() {
    let connman = ConnectionManager::builder().grace(revdial::connman::NoGrace).build();
    let (listener, running) = agent(&connman).await;
    serve(listener, |_: Request<Incoming>| std::future::pending::<Response<Incoming>>());
    let client = client(connman.clone());
    let requests = [1, 2].map(|n| tokio::spawn(client.get(format!("http://a/{n}").parse().unwrap())));
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.kill().await;
    for request in requests {
        let ended = timeout(Duration::from_millis(100), request).await.expect("at once").unwrap();
        assert!(ended.is_err());
    }
    let (listener, _next) = agent(&connman).await;
    serve(listener, |request: Request<Incoming>| async move { Response::new(request.into_body()) });
    assert_eq!(client.get("http://a/".parse().unwrap()).await.unwrap().status(), 200);
}

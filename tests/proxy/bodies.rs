//! Bodies: streamed both ways, whole or seen not to be.

use std::{
    convert::Infallible,
    hash::{DefaultHasher, Hasher},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, Incoming};
use revdial::{
    ErrorKind, TargetName, TunnelStream,
    connman::{ConnectionManager, NoGrace},
    proxy::Proxy,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Notify, mpsc},
    time::{Instant, timeout},
};

use super::{
    counted::Counted,
    support::{EMPTY, agent, exchange, get, head, host, key, manager, send, serve_http, serve_streams, text, verdict},
};

const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 512;

/// 32 MiB that differ from chunk to chunk, of unknown length.
fn big() -> impl Body<Data = Bytes, Error = Infallible> + Send {
    StreamBody::new(stream::iter(0..CHUNKS).map(|n| Ok(Frame::data(chunk(n)))))
}

fn chunk(n: usize) -> Bytes {
    (0..CHUNK).map(|at| (at.wrapping_mul(31) ^ n.wrapping_mul(7)) as u8).collect()
}

/// Length and hash of a body.
async fn digest<B>(body: B) -> (usize, u64)
where
    B: Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let mut body = std::pin::pin!(body);
    let (mut length, mut hasher) = (0, DefaultHasher::new());
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        length += data.len();
        // By byte, since the hash of slices depends on where they are cut.
        data.iter().for_each(|byte| hasher.write_u8(*byte));
    }
    (length, hasher.finish())
}

fn boxed<B>(body: B) -> UnsyncBoxBody<Bytes, Infallible>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    body.boxed_unsync()
}

#[tokio::test(start_paused = true)]
async fn p1_b80_32_mib_of_unknown_length_go_up_and_down_whole() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    serve_http(listener, |request: Request<Incoming>| async move {
        let (length, hash) = digest(request.into_body()).await;
        Response::builder().header("x-digest", format!("{length} {hash}")).body(boxed(big())).unwrap()
    });
    let request = Request::post("/").header("host", "gateway").body(big()).unwrap();
    let response = send(host(&builder.build()), request).await;
    let (length, hash) = digest(big()).await;
    assert_eq!(length, CHUNK * CHUNKS);
    assert_eq!(response.headers()["x-digest"], format!("{length} {hash}"));
    assert_eq!(digest(response.into_body()).await, (length, hash));
}

#[tokio::test(start_paused = true)]
async fn b80_a_get_with_a_body_of_unknown_length_keeps_it() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    serve_http(listener, |request: Request<Incoming>| async move {
        Response::new(Full::new(request.into_body().collect().await.unwrap().to_bytes()))
    });
    let mut io = host(&builder.build());
    let request = "GET / HTTP/1.1\r\nhost: gateway\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    assert!(exchange(&mut io, request).await.contains("content-length: 4\r\n"));
    let mut body = [0; 4];
    io.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"body");
}

#[tokio::test(start_paused = true)]
async fn a_length_beside_a_transfer_coding_cuts_no_answer() {
    for length in [5, 50] {
        let (connman, builder) = manager();
        let (listener, _agent) = agent(&connman).await;
        serve_streams(listener, move |mut stream: TunnelStream| async move {
            head(&mut stream).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(b"a\r\n0123456789\r\n0\r\n\r\n").await.unwrap();
        });
        let response = send(host(&builder.build()), get("/")).await;
        assert!(!response.headers().contains_key("content-length"));
        assert_eq!(text(response.into_body()).await.unwrap(), "0123456789");
    }
}

/// A host's own server may leave both in a head, unlike hyper's.
#[tokio::test(start_paused = true)]
async fn a_length_beside_a_transfer_coding_cuts_no_request() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    serve_http(listener, |request: Request<Incoming>| async move {
        assert!(!request.headers().contains_key("content-length"));
        Response::new(Full::new(request.into_body().collect().await.unwrap().to_bytes()))
    });
    let body = StreamBody::new(stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"0123456789")))]));
    let request = Request::post("/").header("content-length", "5").header("transfer-encoding", "chunked");
    let response = builder.build().try_forward(&key(), &TargetName::default(), request.body(body).unwrap()).await;
    assert_eq!(text(response.unwrap().into_body()).await.unwrap(), "0123456789");
}

#[tokio::test(start_paused = true)]
async fn b80_trailers_go_both_ways() {
    fn with_trailers(value: HeaderValue) -> UnsyncBoxBody<Bytes, Infallible> {
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), value)]);
        let frames = [Frame::data(Bytes::from_static(b"data")), Frame::trailers(trailers)];
        boxed(StreamBody::new(stream::iter(frames.map(Ok))))
    }
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    serve_http(listener, |request: Request<Incoming>| async move {
        let body = request.into_body().collect().await.unwrap();
        let value = body.trailers().unwrap()["x-sum"].clone();
        Response::builder().header("trailer", "x-sum").body(with_trailers(value)).unwrap()
    });
    let request = Request::post("/").header("host", "gateway").header("te", "trailers").header("trailer", "x-sum");
    let request = request.body(with_trailers(HeaderValue::from_static("42"))).unwrap();
    let response = send(host(&builder.build()), request).await;
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "42");
}

#[tokio::test(start_paused = true)]
async fn server_sent_events_come_at_once() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    let (events, receiver) = mpsc::channel::<Bytes>(1);
    let receiver = Arc::new(tokio::sync::Mutex::new(Some(receiver)));
    serve_http(listener, move |_: Request<Incoming>| {
        let receiver = Arc::clone(&receiver);
        async move {
            let receiver = receiver.lock().await.take().unwrap();
            let events = stream::unfold(receiver, |mut receiver| async {
                receiver.recv().await.map(|event| (Ok::<_, Infallible>(Frame::data(event)), receiver))
            });
            Response::builder().header("content-type", "text/event-stream").body(StreamBody::new(events)).unwrap()
        }
    });
    let mut body = send(host(&builder.build()), get("/")).await.into_body();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        let start = Instant::now();
        events.send(event.into()).await.unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), event);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
    drop(events);
    assert!(body.frame().await.is_none());
}

const EXPECTING: &str = "PUT / HTTP/1.1\r\nhost: gateway\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn b80_a_100_comes_when_the_service_says_it() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    let told = Arc::new(Notify::new());
    let tell = Arc::clone(&told);
    serve_streams(listener, move |mut stream: TunnelStream| {
        let told = Arc::clone(&told);
        async move {
            assert!(head(&mut stream).await.contains("expect: 100-continue\r\n"));
            told.notified().await;
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            let mut body = [0; 4];
            stream.read_exact(&mut body).await.unwrap();
            assert_eq!(&body, b"body");
            stream.write_all(EMPTY.as_bytes()).await.unwrap();
        }
    });
    let mut io = host(&builder.build());
    io.write_all(EXPECTING.as_bytes()).await.unwrap();
    let early = timeout(Duration::from_millis(900), io.read_u8()).await;
    assert!(early.is_err(), "a 100 of nobody's");
    tell.notify_one();
    assert_eq!(head(&mut io).await, "HTTP/1.1 100 Continue\r\n\r\n");
    io.write_all(b"body").await.unwrap();
    assert!(head(&mut io).await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test(start_paused = true)]
async fn b80_an_answer_instead_of_a_100_comes_alone_and_the_stream_is_given_up() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    let (ended, mut end) = mpsc::unbounded_channel();
    serve_streams(listener, move |mut stream: TunnelStream| {
        let ended = ended.clone();
        async move {
            head(&mut stream).await;
            let answer = b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno";
            stream.write_all(answer).await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            ended.send(rest).unwrap();
        }
    });
    let mut io = host(&builder.build());
    let answer = exchange(&mut io, EXPECTING).await;
    assert!(answer.starts_with("HTTP/1.1 417 Expectation Failed\r\n"), "{answer}");
    let mut body = Vec::new();
    timeout(Duration::from_millis(100), io.read_to_end(&mut body)).await.unwrap().unwrap();
    assert_eq!(body, b"no");
    let rest = timeout(Duration::from_millis(100), end.recv()).await.unwrap().unwrap();
    assert!(rest.is_empty());
}

#[tokio::test(start_paused = true)]
async fn b80_a_service_that_ignores_an_expectation_gets_the_body_after_a_second() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    serve_streams(listener, |mut stream: TunnelStream| async move {
        head(&mut stream).await;
        let mut body = [0; 4];
        stream.read_exact(&mut body).await.unwrap();
        stream.write_all(EMPTY.as_bytes()).await.unwrap();
    });
    let mut io = host(&builder.build());
    let start = Instant::now();
    assert_eq!(exchange(&mut io, EXPECTING).await, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(start.elapsed(), Duration::from_secs(1));
    io.write_all(b"body").await.unwrap();
    assert!(head(&mut io).await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test(start_paused = true)]
async fn b79_a_client_that_leaves_is_gone_for_the_service_within_100_ms() {
    // Before the head of an answer, in its body, and while it sends.
    let put = "PUT / HTTP/1.1\r\nhost: gateway\r\ncontent-length: 9\r\n\r\nbody";
    let plain = "GET / HTTP/1.1\r\nhost: gateway\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n";
    for (request, answer) in [(plain, ""), (plain, chunked), (put, "")] {
        let (connman, builder) = manager();
        let (listener, _agent) = agent(&connman).await;
        let (at, mut was_at) = mpsc::unbounded_channel();
        serve_streams(listener, move |mut stream: TunnelStream| {
            let at = at.clone();
            async move {
                head(&mut stream).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
                at.send("served").unwrap();
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.unwrap();
                at.send("ended").unwrap();
                std::future::poll_fn(|cx| stream.poll_stopped(cx)).await;
                at.send("stopped").unwrap();
            }
        });
        let mut io = host(&builder.build());
        io.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(was_at.recv().await, Some("served"));
        if !answer.is_empty() {
            head(&mut io).await;
            io.read_u8().await.unwrap();
        }
        drop(io);
        for event in ["ended", "stopped"] {
            let seen = timeout(Duration::from_millis(100), was_at.recv()).await;
            assert_eq!(seen, Ok(Some(event)), "{request} {answer}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn b82_a_body_without_length_ends_with_its_stream_and_only_cleanly_so() {
    enum End {
        Clean,
        Reset,
        SessionLost,
    }
    for (end, kind) in
        [(End::Clean, None), (End::Reset, Some(ErrorKind::PeerReset)), (End::SessionLost, Some(ErrorKind::SessionLost))]
    {
        let connman = ConnectionManager::builder().grace(NoGrace).build();
        let (listener, running) = agent(&connman).await;
        let (give, mut given) = mpsc::channel(1);
        serve_streams(listener, move |mut stream: TunnelStream| {
            let give = give.clone();
            async move {
                head(&mut stream).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall of it").await.unwrap();
                give.send(stream).await.unwrap();
            }
        });
        let proxy: Proxy<Full<Bytes>> = Proxy::new(connman.clone());
        let response = proxy.try_forward(&key(), &TargetName::default(), get("/")).await.unwrap();
        let mut body = response.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "all of it");
        let stream = given.recv().await.unwrap();
        match end {
            End::Clean => drop(stream),
            End::Reset => stream.reset(),
            End::SessionLost => running.kill().await,
        }
        let rest = body.frame().await;
        assert_eq!(rest.map(|frame| frame.unwrap_err().kind()), kind);
    }
}

#[tokio::test(start_paused = true)]
async fn b76_a_service_that_resets_or_ends_too_early_is_a_502_before_the_head_and_a_failed_body_after_it() {
    let counted = Counted::new();
    let mut resets = 0;
    for is_reset in [true, false] {
        for said in ["", "HTTP/1.1 200 OK\r\ncontent-le", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"] {
            let (connman, builder) = manager();
            let (listener, _agent) = agent(&connman).await;
            let (give, mut given) = mpsc::channel(1);
            serve_streams(listener, move |mut stream: TunnelStream| {
                let give = give.clone();
                async move {
                    head(&mut stream).await;
                    stream.write_all(said.as_bytes()).await.unwrap();
                    give.send(stream).await.unwrap();
                }
            });
            let ends = async {
                let stream = given.recv().await.unwrap();
                // A reset takes back what was not delivered.
                tokio::time::sleep(Duration::from_millis(10)).await;
                if is_reset { stream.reset() } else { drop(stream) }
            };
            let proxy: Proxy<Full<Bytes>> = builder.build();
            let (key, target) = (key(), TargetName::default());
            let (answer, ()) = tokio::join!(proxy.try_forward(&key, &target, get("/")), ends);
            match answer {
                Ok(response) => {
                    assert!(said.ends_with("half"));
                    let mut body = response.into_body();
                    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
                    let error = body.frame().await.unwrap().unwrap_err();
                    assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::PeerReset, false));
                }
                Err(error) => {
                    assert!(!said.ends_with("half"));
                    assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::PeerReset, false));
                    assert_eq!(verdict(proxy.answer(&error)).await, (502, false, "peer_reset".to_owned()));
                }
            }
            // An early end is one for the stream, and a fault only for who knows HTTP.
            resets += u64::from(is_reset);
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(counted.sum("revdial_streams_errors_total{peer_reset}"), resets, "{is_reset} {said}");
            assert_eq!(counted.sum("revdial_streams_total{peer_reset}"), resets);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn b76_a_service_that_fails_in_a_body_cuts_the_clients_connection() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    serve_streams(listener, |mut stream: TunnelStream| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
    });
    let mut io = host(&builder.build());
    assert!(exchange(&mut io, "GET / HTTP/1.1\r\nhost: gateway\r\n\r\n").await.contains("content-length: 10\r\n"));
    let mut body = Vec::new();
    io.read_to_end(&mut body).await.unwrap();
    assert_eq!(body, b"half");
}

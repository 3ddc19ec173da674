//! How an agent comes, is refused, comes back, gives up and stops.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use revdial::{
    Error, ErrorKind, TargetName,
    agent::{Agent, AgentStatus, Listener, Run},
    connman::ConnectionManager,
    frame::CloseCode,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use crate::{
    connected,
    counted::Counted,
    dial, echo, echoing, key,
    net::{Net, TOKEN},
    round_trip, setback,
};

#[test]
fn a_run_can_be_spawned_and_a_listener_shared() {
    fn send<T: Send + Unpin + 'static>() {}
    send::<Run>();
    send::<Listener>();
    send::<Agent>();
}

#[tokio::test(start_paused = true)]
async fn a6_a_stream_goes_through_and_the_server_sees_who_it_is() {
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let builder = Agent::builder("ws://gateway/base?x=1", "A").token(TOKEN).label("os", "linux");
    let agent = net.build(builder.agent_version("test/1"));
    let mut status = agent.status();
    let (listener, run) = agent.listen();
    let run = tokio::spawn(run);
    tokio::spawn(echo(listener));
    // The server's layer is at its default path, so that one below `/base` is not its.
    assert!(setback(&mut status).await.3.contains("404"));
    assert_eq!(net.uris()[0], "http://gateway/base/api/v1/revdial?x=1&runnerid=a");
    run.abort();

    let agent =
        net.build(Agent::builder("ws://gateway", "A").token(TOKEN).label("os", "linux").agent_version("test/1"));
    let mut status = agent.status();
    let (listener, run) = agent.listen();
    tokio::spawn(run);
    tokio::spawn(echo(listener));
    connected(&mut status).await;
    round_trip(&mut dial(&connman, "").await.unwrap()).await;
    let info = connman.list().pop().unwrap();
    assert_eq!((info.key, info.agent_version.as_str()), (key(), "test/1"));
    assert_eq!(info.labels, [("os".to_owned(), "linux".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a1_statuses_are_refusals_or_failures_and_paced_so() {
    let table = [
        (401, ErrorKind::Auth, true),
        (403, ErrorKind::Forbidden, true),
        (409, ErrorKind::KeyInUse, true),
        (426, ErrorKind::Version, true),
        (200, ErrorKind::Handshake, false),
        (301, ErrorKind::Handshake, false),
        (302, ErrorKind::Handshake, false),
        (404, ErrorKind::Handshake, false),
        (500, ErrorKind::Handshake, false),
        (503, ErrorKind::Handshake, false),
    ];
    for (code, kind, slow) in table {
        let net = Net::answering(code, &[("location", "http://elsewhere/")]);
        paced(&net, kind, slow, &code.to_string()).await;
        assert!(net.uris().iter().all(|uri| uri.host() == Some("gateway")), "{code}: a redirect was followed");
    }
}

#[tokio::test(start_paused = true)]
async fn close_codes_are_refusals_or_failures_and_paced_so() {
    let table = [
        (1000, ErrorKind::Shutdown, true),
        (1008, ErrorKind::Forbidden, true),
        (4401, ErrorKind::Auth, true),
        (4403, ErrorKind::Forbidden, true),
        (4411, ErrorKind::KeyInUse, true),
        (4426, ErrorKind::Version, true),
        (1001, ErrorKind::Shutdown, false),
        (1011, ErrorKind::SessionLost, false),
        (1012, ErrorKind::Shutdown, false),
        (1013, ErrorKind::Overloaded, false),
        (4408, ErrorKind::SessionLost, false),
        (4409, ErrorKind::SessionLost, false),
        (4413, ErrorKind::Overloaded, false),
        (4420, ErrorKind::Protocol, false),
        (4999, ErrorKind::SessionLost, false),
    ];
    for (code, kind, slow) in table {
        for with_frame in [true, false] {
            paced(&Net::closing(CloseCode::new(code), with_frame), kind, slow, &code.to_string()).await;
        }
    }
}

/// Runs an agent into five setbacks of one kind. What it is doing between two of them may pass unseen.
async fn paced(net: &Net, kind: ErrorKind, slow: bool, named: &str) {
    let agent = net.agent();
    let mut status = agent.status();
    let (_listener, run) = agent.listen();
    let run = tokio::spawn(run);
    for attempt in 1..=5_u32 {
        let (cause, wait, refused, text) = setback(&mut status).await;
        assert_eq!((cause, refused), (kind, slow), "{text}");
        assert!(text.contains(named) && !text.contains("because") && !text.contains("html"), "{text}");
        let bound = if slow { 60_000 } else { 125 << attempt };
        assert!(wait <= Duration::from_millis(bound), "{named}: attempt {attempt} is {wait:?} away");
        assert!(!slow || wait >= Duration::from_secs(30), "{named}: attempt {attempt} is {wait:?} away");
        let (told, due) = (status.borrow().clone(), Instant::now() + wait);
        assert_eq!(net.dials().len(), attempt as usize);
        status.wait_for(|status| *status != told && *status != AgentStatus::Connecting).await.unwrap();
        let late = net.dials()[attempt as usize].duration_since(due);
        assert!(late <= Duration::from_millis(2), "{named}: attempt {attempt} was {late:?} late");
    }
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    assert_eq!(*status.borrow(), AgentStatus::Stopped);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_a_minimum() {
    let date = ("date", "Wed, 21 Oct 2026 07:28:00 GMT");
    for (retry_after, date) in [("7", date), ("Wed, 21 Oct 2026 07:28:07 GMT", date)] {
        let net = Net::answering(503, vec![("retry-after", retry_after), date].leak());
        let agent = net.agent();
        let mut status = agent.status();
        let (_listener, run) = agent.listen();
        tokio::spawn(run);
        let (_, wait, _, _) = setback(&mut status).await;
        assert!((7000..=7250).contains(&wait.as_millis()), "{retry_after}: {wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_be_reached_is_tried_ever_more_slowly() {
    let net = Net::answering(200, &[]);
    net.down(true);
    let (mut status, _run) = echoing(&net);
    let (cause, _, refused, text) = setback(&mut status).await;
    assert_eq!((cause, refused), (ErrorKind::Handshake, false));
    assert!(text.contains("cannot be reached") && text.contains("refused"), "{text}");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let dials = net.dials();
    // A mean of 15 s in the end.
    assert!((150..400).contains(&dials.len()), "{}", dials.len());
    assert!(dials.windows(2).all(|pair| pair[1] - pair[0] <= Duration::from_millis(30_002)));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_left() {
    let net = Net::new(|io| {
        tokio::spawn(async move {
            let _io = io;
            std::future::pending::<()>().await;
        });
    });
    let (mut status, _run) = echoing(&net);
    let start = Instant::now();
    let (cause, _, _, text) = setback(&mut status).await;
    assert_eq!(cause, ErrorKind::Handshake);
    assert!(text.contains("in time") && start.elapsed() <= Duration::from_secs(21), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_link_that_was_used_is_dialled_at_once() {
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let (mut status, _run) = echoing(&net);
    connected(&mut status).await;
    let mut stream = dial(&connman, "").await.unwrap();
    round_trip(&mut stream).await;
    net.cut();
    let lost = Instant::now();
    round_trip(&mut stream).await;
    // Waits in the grace, and for nothing else.
    round_trip(&mut dial(&connman, "").await.unwrap()).await;
    assert!(lost.elapsed() <= Duration::from_millis(5), "{:?}", lost.elapsed());
    assert_eq!(net.dials().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_breaks_again_and_again_is_no_storm() {
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let (mut status, _run) = echoing(&net);
    connected(&mut status).await;
    let start = Instant::now();
    let mut stream = dial(&connman, "").await.unwrap();
    while net.dials().len() < 1000 {
        round_trip(&mut stream).await;
        net.cut();
    }
    // 125 at once and 25 a second; of the rest, which waits for the jitter, some.
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(20) && took <= Duration::from_secs(40), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_link_that_was_not_used_waits_for_the_jitter() {
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let (mut status, _run) = echoing(&net);
    connected(&mut status).await;
    net.cut();
    let (cause, wait, refused, _) = setback(&mut status).await;
    assert_eq!((cause, refused), (ErrorKind::SessionLost, false));
    assert!(wait <= Duration::from_millis(250));
    connected(&mut status).await;
}

#[tokio::test(start_paused = true)]
async fn a8_a_second_agent_ends_the_first_with_replaced() {
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let (mut status, run) = echoing(&net);
    connected(&mut status).await;
    let (mut second, _run) = echoing(&net);
    connected(&mut second).await;
    assert_eq!(run.await.unwrap().unwrap_err().kind(), ErrorKind::Replaced);
    assert_eq!(*status.borrow(), AgentStatus::Stopped);
    round_trip(&mut dial(&connman, "").await.unwrap()).await;
    assert_eq!(net.dials().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a2_m38_the_token_is_asked_at_each_attempt() {
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let asked = Arc::new(AtomicUsize::new(0));
    let source = Arc::clone(&asked);
    let agent = net.build(Agent::builder("http://gateway", "a").token_source(move || {
        let attempt = source.fetch_add(1, Ordering::Relaxed);
        async move {
            match attempt {
                0 => Err("no vault"),
                1 => Ok("old".to_owned()),
                _ => Ok(TOKEN.to_owned()),
            }
        }
    }));
    let mut status = agent.status();
    let (_listener, run) = agent.listen();
    tokio::spawn(run);
    let (cause, _, refused, text) = setback(&mut status).await;
    assert_eq!((cause, refused, text.contains("no vault")), (ErrorKind::Auth, false, true));
    status.wait_for(|status| matches!(status, AgentStatus::Refused { cause: ErrorKind::Auth, .. })).await.unwrap();
    connected(&mut status).await;
    assert_eq!((asked.load(Ordering::Relaxed), net.dials().len()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a5_a_listener_takes_the_targets_that_it_names_and_no_other() {
    let connman = ConnectionManager::new();
    let agent = Net::to(&connman).agent();
    let mut status = agent.status();
    let (listener, run) = agent.listen();
    tokio::spawn(run);
    connected(&mut status).await;
    let names: Vec<TargetName> = vec!["vnc".parse().unwrap(), "web".parse().unwrap()];
    let mut listener = listener.targets(names);
    let taken = tokio::spawn(async move {
        let stream = listener.accept().await.unwrap();
        (listener.addr_of(&stream).to_string(), listener.addr().to_string(), listener, stream)
    });
    for target in ["", "other"] {
        assert_eq!(dial(&connman, target).await.unwrap_err().kind(), ErrorKind::TargetUnknown);
    }
    let _stream = dial(&connman, "vnc").await.unwrap();
    let (addr, own, listener, _taken) = taken.await.unwrap();
    assert_eq!((addr.as_str(), own.as_str()), ("vnc~a", "a"));
    drop(listener);
    assert_eq!(dial(&connman, "vnc").await.unwrap_err().kind(), ErrorKind::TargetRefused);
}

#[tokio::test(start_paused = true)]
async fn a_listener_ends_with_its_agent() {
    let connman = ConnectionManager::new();
    let agent = Net::to(&connman).agent();
    let (mut listener, run) = agent.listen();
    drop(run);
    assert!(listener.accept().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a7_a_shutdown_lets_what_runs_finish_and_opens_nothing_new() {
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let agent = net.agent();
    let (mut status, shutdown) = (agent.status(), agent.shutdown_handle());
    let (listener, run) = agent.listen();
    tokio::spawn(echo(listener));
    let run = tokio::spawn(run);
    connected(&mut status).await;
    let mut stream = dial(&connman, "").await.unwrap();
    round_trip(&mut stream).await;
    shutdown.shutdown(Duration::from_secs(60));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(dial(&connman, "").await.is_err());
    round_trip(&mut stream).await;
    AsyncWriteExt::shutdown(&mut stream).await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    drop(stream);
    let asked = Instant::now();
    run.await.unwrap().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert_eq!((status.borrow().clone(), net.dials().len()), (AgentStatus::Stopped, 1));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_what_does_not_finish() {
    let connman = ConnectionManager::new();
    let agent = Net::to(&connman).agent();
    let (mut status, shutdown) = (agent.status(), agent.shutdown_handle());
    let (listener, run) = agent.listen();
    tokio::spawn(echo(listener));
    let run = tokio::spawn(run);
    connected(&mut status).await;
    let mut stream = dial(&connman, "").await.unwrap();
    let asked = Instant::now();
    shutdown.shutdown(Duration::from_secs(60));
    shutdown.shutdown(Duration::from_secs(10));
    let error = stream.read_u8().await.unwrap_err();
    assert!(Error::find(&error).is_some(), "{error:?}");
    run.await.unwrap().unwrap();
    let took = asked.elapsed();
    assert!((Duration::from_secs(10)..Duration::from_secs(16)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_the_wait_for_the_next_attempt() {
    let net = Net::answering(401, &[]);
    let agent = net.agent();
    let (mut status, shutdown) = (agent.status(), agent.shutdown_handle());
    let (_listener, run) = agent.listen();
    let run = tokio::spawn(run);
    setback(&mut status).await;
    let asked = Instant::now();
    shutdown.shutdown(Duration::from_secs(60));
    run.await.unwrap().unwrap();
    assert_eq!(asked.elapsed(), Duration::ZERO);
}

/// A connector that panics the first time, at one of its steps, and then connects by a [`Net`].
#[derive(Clone)]
struct Clumsy {
    net: Net,
    in_ready: bool,
    calls: Arc<AtomicUsize>,
}

impl tower::Service<http::Uri> for Clumsy {
    type Response = <Net as tower::Service<http::Uri>>::Response;
    type Error = <Net as tower::Service<http::Uri>>::Error;
    type Future = <Net as tower::Service<http::Uri>>::Future;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        assert!(!self.in_ready || self.calls.fetch_add(1, Ordering::Relaxed) > 0, "on purpose");
        self.net.poll_ready(cx)
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        assert!(self.in_ready || self.calls.fetch_add(1, Ordering::Relaxed) > 0, "on purpose");
        self.net.call(uri)
    }
}

#[tokio::test(start_paused = true)]
async fn b86_a_panic_of_the_connector_or_the_token_source_is_a_failed_attempt_and_counted() {
    let counted = Counted::new();
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let clumsy = |in_ready| Clumsy { net: net.clone(), in_ready, calls: Arc::default() };
    let builder = || Agent::builder("http://gateway", "a");
    // Before its future is there, and in it.
    let source = |before: bool| {
        let asked = AtomicUsize::new(0);
        builder().token_source(move || {
            let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
            assert!(!(first && before), "on purpose");
            async move {
                assert!(!first, "on purpose");
                Ok::<_, std::io::Error>(TOKEN.to_owned())
            }
        })
    };
    for (agent, named) in [
        (builder().token(TOKEN).build_with(clumsy(true)).unwrap(), "connector"),
        (builder().token(TOKEN).build_with(clumsy(false)).unwrap(), "connector"),
        (net.build(source(true)), "token source"),
        (net.build(source(false)), "token source"),
    ] {
        let mut status = agent.status();
        let (_listener, run) = agent.listen();
        let run = tokio::spawn(run);
        let (cause, wait, refused, text) = setback(&mut status).await;
        assert_eq!((cause, refused), (ErrorKind::Internal, false), "{text}");
        assert!(text.contains(named) && wait <= Duration::from_millis(250), "{text}: {wait:?}");
        connected(&mut status).await;
        run.abort();
    }
    assert_eq!(counted.sum("revdial_callback_failures_total"), 4);
    assert_eq!(counted.sum("revdial_agent_connect_failures_total{internal}"), 4);
}

#[tokio::test(start_paused = true)]
async fn b86_a_token_source_that_hangs_is_a_failed_attempt_after_ten_seconds_and_counted() {
    let counted = Counted::new();
    let net = Net::to(&ConnectionManager::new());
    let asked = AtomicUsize::new(0);
    let agent = net.build(Agent::builder("http://gateway", "a").token_source(move || {
        let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            if first {
                std::future::pending::<()>().await;
            }
            Ok::<_, std::io::Error>(TOKEN.to_owned())
        }
    }));
    let (start, mut status) = (Instant::now(), agent.status());
    let (_listener, run) = agent.listen();
    let run = tokio::spawn(run);
    let (cause, _, refused, text) = setback(&mut status).await;
    assert_eq!((cause, refused), (ErrorKind::Internal, false), "{text}");
    assert!(text.contains("token"), "{text}");
    assert_eq!(start.elapsed().as_secs(), 10);
    assert_eq!(counted.sum("revdial_callback_failures_total"), 1);
    connected(&mut status).await;
    run.abort();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_run_cuts_its_streams() {
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let agent = net.agent();
    let mut status = agent.status();
    let (mut listener, run) = agent.listen();
    let run = tokio::spawn(run);
    connected(&mut status).await;
    let (theirs, ours) = tokio::join!(dial(&connman, ""), listener.accept());
    run.abort();
    for mut stream in [theirs.unwrap(), ours.unwrap()] {
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(Error::find(&error).unwrap().kind(), ErrorKind::SessionLost);
    }
    assert!(status.borrow().is_stopped());
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn tls_that_is_not_valid_is_a_refusal() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", server.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = server.accept().await.unwrap();
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let agent = Agent::builder(url, "a").token(TOKEN).build().unwrap();
    let mut status = agent.status();
    let (_listener, run) = agent.listen();
    tokio::spawn(run);
    let (cause, wait, refused, text) = setback(&mut status).await;
    assert_eq!((cause, refused), (ErrorKind::Tls, true), "{text}");
    assert!(wait >= Duration::from_secs(29));
}

#[cfg(feature = "axum")]
#[tokio::test(start_paused = true)]
async fn a_listener_serves_an_axum_router() {
    use axum::{Router, extract::ConnectInfo, routing::get};
    use http_body_util::{BodyExt, Empty};
    use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    use revdial::{agent::AgentAddr, connector::RevDialConnector};

    let connman = ConnectionManager::new();
    let agent = Net::to(&connman).agent();
    let mut status = agent.status();
    let (listener, run) = agent.listen();
    let listener = listener.targets([TargetName::default(), "app".parse().unwrap()]);
    let handler = |ConnectInfo(addr): ConnectInfo<AgentAddr>| async move { format!("at {addr}") };
    let app = Router::new().route("/", get(handler)).into_make_service_with_connect_info::<AgentAddr>();
    tokio::spawn(run);
    tokio::spawn(async move { axum::serve(listener, app).await });
    connected(&mut status).await;
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<bytes::Bytes>>(RevDialConnector::new(connman));
    for (uri, text) in [("http://a/", "at a"), ("http://app~a/", "at app~a")] {
        let response = client.get(uri.parse().unwrap()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), text);
    }
}

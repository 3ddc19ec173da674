//! How an agent comes, takes streams, gives up and stops.

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
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use crate::{
    connected, dial, echo, echoing, key,
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

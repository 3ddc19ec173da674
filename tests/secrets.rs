//! Does any output show a secret, at any level: over the whole life of an agent of either protocol, and of requests to
//! it? By itself, since a subscriber is for a whole process.
#![cfg(all(feature = "proxy", feature = "agent"))]

#[path = "support/net.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod net;
#[path = "support/raw.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod raw;

use std::{
    fmt::Debug,
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use metrics_util::debugging::DebuggingRecorder;
use net::Net;
use raw::{Arrived, PATH, RawAgent, hello, upgrade};
use revdial::{
    Error, ErrorKind, TargetName,
    agent::{Agent, AgentStatus, Listener, ProtocolChoice},
    connector::RevDialConnector,
    connman::{ConnectionManager, TunnelEvent},
    frame::{CloseCode, Frame, ResetCode, SessionId},
    proxy::Proxy,
    server::{KeyedBearer, RevDialLayer, SharedBearer},
};
use tokio::time::sleep;

const SECRET: &str = "marked-9f27c1-secret";
const WRONG: &str = "marked-77ab03-wrong";
/// What a user of a service shows to it.
const USERS: &str = "marked-5e880d-user";
const COOKIE: &str = "marked-c4f1aa-cookie";

/// What nothing takes that is not stuck: virtual time.
const LONG: Duration = Duration::from_secs(120);

/// Everything that was put out.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(&mut *self.0.lock().unwrap(), bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    /// From here on the log, down to the details.
    fn of_the_log() -> Self {
        let output = Self::default();
        let writer = output.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
            .with_writer(move || writer.clone())
            .init();
        output
    }

    fn show(&mut self, what: impl Debug) {
        write!(self, "{what:?} {what:#?}").unwrap();
    }

    /// An error as logs have it: with all its causes.
    fn show_error(&mut self, error: &Error) {
        self.show(error);
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = next {
            write!(self, "{error} {error:?}").unwrap();
            next = error.source();
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// Serves HTTP on the streams of an agent, and says nothing of what it is told.
fn serve(mut listener: Listener) {
    tokio::spawn(async move {
        while let Some(stream) = listener.accept().await {
            let answer = service_fn(|_: Request<Incoming>| async {
                let answer = Response::builder().header(header::SET_COOKIE, COOKIE);
                answer.body(Full::new(Bytes::from_static(b"hello")))
            });
            tokio::spawn(http1::Builder::new().serve_connection(stream, answer));
        }
    });
}

/// A request of a user who is known to the service behind.
fn request() -> Request<Full<Bytes>> {
    let request = Request::get(format!("/?token={USERS}"))
        .header(header::HOST, "gateway")
        .header(header::AUTHORIZATION, format!("Bearer {USERS}"))
        .header(header::COOKIE, COOKIE);
    request.body(Full::default()).unwrap()
}

async fn answered(proxy: &Proxy<Full<Bytes>>, key: &str, target: &str) -> u16 {
    let (key, target) = (key.parse().unwrap(), target.parse().unwrap());
    let response = proxy.forward(&key, &target, request()).await;
    let status = response.status().as_u16();
    let _ = response.into_body().collect().await;
    status
}

/// An agent whose token is wrong is refused.
async fn refused(net: &Net, output: &mut Output) {
    let agent = net.build(Agent::builder("http://gateway", "a").token(WRONG));
    let mut status = agent.status();
    let refused = tokio::spawn(agent.listen().1);
    let told = status.wait_for(|status| matches!(status, AgentStatus::Refused { .. })).await.unwrap().clone();
    output.show(told);
    refused.abort();
    for token in ["", "not\na header"] {
        match Agent::builder("http://gateway", "a").token(format!("{token}{WRONG}\n")).build_with(net.clone()) {
            Ok(agent) => drop(agent),
            Err(error) => output.show_error(&error),
        }
    }
}

/// The whole life of an agent: comes, is dialled, is asked for what it has not, is cut off and comes back, is shut down.
async fn life(net: &Net, connman: &ConnectionManager, protocol: ProtocolChoice, output: &mut Output) {
    let agent = net.build(Agent::builder("http://gateway", "a").token(SECRET).protocol(protocol));
    output.show(&agent);
    let (mut status, shutdown) = (agent.status(), agent.shutdown_handle());
    let (listener, run) = agent.listen();
    output.show((&listener, &run));
    let run = tokio::spawn(run);
    status.wait_for(AgentStatus::is_connected).await.unwrap();
    serve(listener);

    let proxy: Proxy<Full<Bytes>> = Proxy::new(connman.clone());
    assert_eq!(answered(&proxy, "a", "").await, 200);
    assert_eq!(answered(&proxy, "a", "nothing-there").await, 502);
    assert_eq!(answered(&proxy, "nobody", "").await, 503);
    let stream = connman.dial(&"a".parse().unwrap(), &TargetName::default()).await.unwrap();
    output.show((&stream, connman.list(), connman.stats(), connman));
    net.cut();
    sleep(Duration::from_secs(1)).await;
    status.wait_for(AgentStatus::is_connected).await.unwrap();
    assert_eq!(answered(&proxy, "a", "").await, 200);
    drop(stream);
    shutdown.shutdown(Duration::from_secs(1));
    run.await.unwrap().unwrap();
    sleep(LONG).await;
}

/// An agent under a script that refuses, misbehaves and comes back with the session that it was given.
async fn scripted(net: &Net, connman: &ConnectionManager, output: &mut Output) -> SessionId {
    let open = || {
        let request = upgrade(&format!("{PATH}?runnerid=b")).header(header::AUTHORIZATION, format!("Bearer {SECRET}"));
        RawAgent::open(net.open(), request)
    };
    let mut agent = open().await;
    let (_, welcome) = agent.greet(hello(1)).await;
    output.show((&welcome, welcome.session));
    let dial = tokio::spawn(connman.dial(&"b".parse().unwrap(), &TargetName::default()));
    let (stream, _) = agent.opened().await;
    agent.send(Frame::Reset { stream, code: ResetCode::TARGET_REFUSED, reason: "refused".into() }).await;
    output.show_error(&dial.await.unwrap().unwrap_err());
    let mut back = open().await;
    let mut again = hello(1);
    (again.session, again.attempt) = (welcome.session, 1);
    output.show(&again);
    back.attach(again, 1, 1).await;
    assert!(matches!(back.recv().await, Arrived::Frames(..)), "WELCOME");
    back.send(Frame::Hello(hello(1))).await;
    assert_eq!(back.closed().await, CloseCode::FORBIDDEN);
    welcome.session
}

#[tokio::test(start_paused = true)]
async fn t3_no_output_shows_a_secret_at_any_level_in_all_of_a_life() {
    let mut output = Output::of_the_log();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _here = metrics::set_default_local_recorder(&recorder);

    let events = output.clone();
    let connman = ConnectionManager::builder().observer(move |event: &TunnelEvent| events.clone().show(event)).build();
    let bearer = SharedBearer::new(SECRET).unwrap();
    output.show((&bearer, KeyedBearer::new(SECRET).unwrap()));
    let layer = RevDialLayer::new(connman.clone(), bearer);
    output.show((&layer, RevDialConnector::new(connman.clone()), Proxy::builder(connman.clone())));
    let net = Net::of(layer);

    refused(&net, &mut output).await;
    life(&net, &connman, ProtocolChoice::Native, &mut output).await;
    life(&net, &connman, ProtocolChoice::Dialback, &mut output).await;
    let session = scripted(&net, &connman, &mut output).await;
    for kind in [ErrorKind::Auth, ErrorKind::NoConnection] {
        output.show_error(&Error::new(kind));
    }
    sleep(LONG).await;
    for (key, ..) in snapshotter.snapshot().into_vec() {
        output.show(key);
    }

    let text = output.text();
    for said in [
        "TRACE",
        "tunnel resumed",
        "dial-back link up",
        "tunnel refused",
        "stream ended",
        "broke a rule",
        "revdial_streams_total",
    ] {
        assert!(text.contains(said), "all of it was told: no {said:?} in\n{text}");
    }
    let session = session_bytes(session);
    let mut secrets = vec![SECRET, WRONG, USERS, COOKIE, "9f27c1", "77ab03", "5e880d", "c4f1aa"];
    secrets.extend(session.iter().map(String::as_str));
    // Whoever knows these of a dial-back dial, and a token, could take its place.
    let uris = net.uris();
    let ids: Vec<_> = uris
        .iter()
        .filter_map(|uri| uri.query())
        .flat_map(|query| query.split('&'))
        .filter_map(|parameter| parameter.strip_prefix("revdial.req=").or(parameter.strip_prefix("revdial.dialer=")))
        .collect();
    assert!(ids.len() > 2 && ids.iter().all(|id| id.len() == 32), "{uris:?}");
    secrets.extend(ids);
    for secret in secrets {
        let line = text.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} is shown: {line:?}");
    }
}

/// The id as an output might show it.
fn session_bytes(session: SessionId) -> [String; 2] {
    let bytes = session.as_bytes();
    let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let list: Vec<_> = bytes.iter().map(u8::to_string).collect();
    [hex, list.join(", ")]
}

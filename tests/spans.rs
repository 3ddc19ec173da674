//! What a subscriber is told: which spans there are, with which fields, and how little a healthy run prints.
#![cfg(all(feature = "server", feature = "agent"))]

#[path = "support/net.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod net;
#[path = "support/raw.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod raw;
#[path = "support/told.rs"]
mod told;

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::header;
use net::{Net, TOKEN};
use raw::{PATH, RawAgent, hello, upgrade};
use revdial::{
    TunnelStream,
    agent::{Agent, AgentStatus, Listener},
    connman::ConnectionManager,
    frame::{CloseCode, Frame, ResetCode},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};
use told::Told;
use tracing::Level;
use tracing_subscriber::{filter::LevelFilter, util::SubscriberInitExt};

/// What nothing takes that is not stuck: virtual time.
const LONG: Duration = Duration::from_secs(120);

/// A stream to the agent `a`, at both of its ends.
async fn stream(connman: &ConnectionManager, listener: &mut Listener) -> (TunnelStream, TunnelStream) {
    let (key, target) = ("a".parse().unwrap(), "vnc".parse().unwrap());
    let (here, there) = tokio::join!(connman.dial(&key, &target), listener.accept());
    (here.unwrap(), there.unwrap())
}

async fn say(from: &mut TunnelStream, to: &mut TunnelStream) {
    AsyncWriteExt::write_all(from, b"word").await.unwrap();
    let mut word = [0; 4];
    timeout(LONG, to.read_exact(&mut word)).await.expect("a word in time").unwrap();
}

#[tokio::test(start_paused = true)]
async fn t2_a_healthy_run_prints_at_info_one_line_when_a_tunnel_comes_and_one_when_it_goes() {
    let told = Told::down_to(LevelFilter::INFO);
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let agent = net.agent();
    let (mut status, shutdown) = (agent.status(), agent.shutdown_handle());
    let (listener, run) = agent.listen();
    let mut listener = listener.targets(["vnc".parse().unwrap()]);
    let run = tokio::spawn(run);
    status.wait_for(AgentStatus::is_connected).await.unwrap();
    // Either side has its own.
    assert_eq!(told.texts(), ["tunnel connected", "connected"]);
    for _ in 0..50 {
        let (mut here, mut there) = stream(&connman, &mut listener).await;
        say(&mut here, &mut there).await;
        say(&mut there, &mut here).await;
    }
    sleep(Duration::from_secs(600)).await;
    assert_eq!(told.texts(), [""; 0], "of streams, pings and the passing of time");
    shutdown.shutdown(Duration::from_secs(5));
    timeout(LONG, run).await.expect("an end in time").unwrap().unwrap();
    sleep(LONG).await;
    assert_eq!(told.texts(), ["shut down", "tunnel expired"]);
    assert_eq!(told.names(), ["revdial.handshake", "revdial.link", "revdial.session"]);
    let is_open = |name: &str| told.spans(name).iter().any(|span| span.is_open);
    assert!(!told.names().into_iter().any(is_open), "{:?}", told.spans("revdial.session"));
}

#[tokio::test(start_paused = true)]
async fn t2_links_sessions_and_streams_have_spans_with_the_stated_fields() {
    let told = Told::down_to(LevelFilter::TRACE);
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let agent = net.agent();
    let mut status = agent.status();
    let (listener, run) = agent.listen();
    let mut listener = listener.targets(["vnc".parse().unwrap()]);
    let run = tokio::spawn(run);
    status.wait_for(AgentStatus::is_connected).await.unwrap();
    let (mut here, mut there) = stream(&connman, &mut listener).await;
    say(&mut here, &mut there).await;
    net.cut();
    say(&mut there, &mut here).await;

    let fields = |name: &str| -> Vec<String> {
        let shown = |span: &told::Span| {
            let fields: Vec<_> = span.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("{} {} {}", span.level, span.parent.unwrap_or("-"), fields.join(" "))
        };
        let mut shown: Vec<_> = told.spans(name).iter().map(shown).collect();
        shown.sort();
        shown
    };
    // The agent counts the links of a session from 0, the server those of a key from 1.
    assert_eq!(fields("revdial.link"), ["0", "1", "1", "2"].map(|epoch| format!("INFO - epoch={epoch} key=a")));
    assert_eq!(fields("revdial.session"), ["INFO - key=a session=1"; 2]);
    assert_eq!(fields("revdial.stream"), ["DEBUG revdial.session stream=1 target=vnc"; 2]);
    assert!(told.spans("revdial.session").iter().all(|span| span.is_open), "over both links");

    told.lines();
    drop(here);
    assert!(there.read_u8().await.is_err());
    drop(there);
    let lines = told.lines();
    let mut ends: Vec<_> = lines.iter().filter(|line| line.text == "stream ended").collect();
    ends.sort_by_key(|line| &line.fields["outcome"]);
    assert_eq!(
        ends.iter().map(|line| line.fields["outcome"].as_str()).collect::<Vec<_>>(),
        ["\"cancelled\"", "\"ok\""]
    );
    assert!(ends.iter().all(|line| (line.span, line.level) == (Some("revdial.stream"), Level::DEBUG)), "{ends:?}");
    assert!(told.spans("revdial.stream").iter().all(|span| !span.is_open));
    run.abort();
}

/// A log that has come to a stand: whoever writes to it does not go on.
struct Blocked(Arc<AtomicBool>);

impl Write for Blocked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!self.0.load(Ordering::SeqCst), "waits for the log: {}", String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn b88_a_log_that_has_come_to_a_stand_holds_up_no_stream() {
    let blocked = Arc::new(AtomicBool::new(false));
    let writer = Arc::clone(&blocked);
    let subscriber = tracing_subscriber::fmt().with_writer(move || Blocked(Arc::clone(&writer)));
    let _here = subscriber.with_max_level(LevelFilter::INFO).set_default();
    let connman = ConnectionManager::new();
    let agent = Net::to(&connman).agent();
    let mut status = agent.status();
    let (listener, run) = agent.listen();
    let mut listener = listener.targets(["vnc".parse().unwrap()]);
    let run = tokio::spawn(run);
    status.wait_for(AgentStatus::is_connected).await.unwrap();
    blocked.store(true, Ordering::SeqCst);
    for _ in 0..10 {
        let (mut here, mut there) = stream(&connman, &mut listener).await;
        let bytes = vec![7; 4 << 20];
        let writing = async { AsyncWriteExt::write_all(&mut here, &bytes).await };
        let mut arrived = vec![0; bytes.len()];
        let (written, read) = tokio::join!(writing, there.read_exact(&mut arrived));
        written.unwrap();
        read.unwrap();
        there.reset();
        assert!(here.read_u8().await.is_err());
    }
    sleep(LONG).await;
    assert!(!run.is_finished());
    blocked.store(false, Ordering::SeqCst);
}

/// A connected agent `a` under a script.
async fn scripted(net: &Net) -> RawAgent {
    let request = upgrade(&format!("{PATH}?runnerid=a")).header(header::AUTHORIZATION, format!("Bearer {TOKEN}"));
    RawAgent::connect(net.open(), request, 1).await
}

#[tokio::test(start_paused = true)]
async fn t2_a_broken_rule_is_a_warning_in_the_span_of_its_link() {
    let told = Told::down_to(LevelFilter::INFO);
    let connman = ConnectionManager::new();
    let mut agent = scripted(&Net::to(&connman)).await;
    agent.send(Frame::Hello(hello(1))).await;
    assert_eq!(agent.closed().await, CloseCode::FORBIDDEN);
    let lines = told.lines();
    let [warning] = &lines.iter().filter(|line| line.level == Level::WARN).collect::<Vec<_>>()[..] else {
        panic!("one: {lines:?}")
    };
    assert_eq!((warning.text.as_str(), warning.span), ("the peer broke a rule of the protocol", Some("revdial.link")));
    assert_eq!(warning.fields["code"], "4420");
    assert!(warning.fields["rule"].contains("HELLO"), "{warning:?}");
}

#[tokio::test(start_paused = true)]
async fn t2_what_a_server_or_an_agent_says_is_escaped_and_cut_in_every_line() {
    let told = Told::down_to(LevelFilter::TRACE);
    let evil = format!("\u{1b}[31m\r\nERROR fake{}", "x".repeat(240));
    // An agent's words: of a refusal and of the end.
    let connman = ConnectionManager::new();
    let mut agent = scripted(&Net::to(&connman)).await;
    let dial = tokio::spawn(connman.dial(&"a".parse().unwrap(), &"".parse().unwrap()));
    let (stream, _) = agent.opened().await;
    agent.send(Frame::Reset { stream, code: ResetCode::INTERNAL, reason: evil.clone() }).await;
    let error = dial.await.unwrap().unwrap_err();
    assert!(!error.to_string().contains("fake"));
    agent.send(Frame::Close { code: CloseCode::RESTART, reason: evil.clone() }).await;
    while agent.recv().await != raw::Arrived::Closed(Some(CloseCode::RESTART)) {}
    // A server's: a page of a portal, and a close.
    let portal = Net::new(move |mut io| {
        let page = format!("\u{1b}[31m\r\nERROR fake{}", "y".repeat(10_000));
        tokio::spawn(async move {
            let answer = format!("HTTP/1.1 302 Found\r\ncontent-length: {}\r\n\r\n{page}", page.len());
            let _ = io.write_all(answer.as_bytes()).await;
            sleep(LONG).await;
        });
    });
    for net in [portal, Net::closing(CloseCode::DRAINED, true)] {
        let agent = net.build(Agent::builder("http://gateway", "a").token(TOKEN));
        let run = tokio::spawn(agent.listen().1);
        sleep(LONG).await;
        run.abort();
    }
    let lines = told.lines();
    assert!(lines.iter().any(|line| format!("{line:?}").contains("fake")), "it is told somewhere");
    for line in &lines {
        for text in line.fields.values().chain([&line.text]) {
            assert!(!text.contains(['\u{1b}', '\r', '\n']) && text.len() < 1000, "{line:?}");
        }
    }
}

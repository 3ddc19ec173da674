//! What servers and services may do to an agent, by the rows of the table of bad inputs.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use revdial::{
    Error, ErrorKind,
    agent::{Agent, Targets},
    connman::{ConnectionManager, TunnelEvent},
    frame::{CloseCode, InstanceId},
};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep, timeout},
};

use crate::{
    connected,
    counted::Counted,
    dial, echo, key,
    net::{Net, TOKEN},
    setback,
};

/// What all agents of this process log. One log for all: a subscriber of a thread misses what another thread was first to log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(&mut *self.0.lock().unwrap(), bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn begin() -> &'static Self {
        static LOG: LazyLock<Log> = LazyLock::new(|| {
            let log = Log::default();
            let writer = log.clone();
            tracing_subscriber::fmt().with_writer(move || writer.clone()).init();
            log
        });
        &LOG
    }

    /// How many warnings there are of this key.
    fn warnings(&self, key: &str) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(" WARN ") && line.contains(&format!("key={key} "))).count()
    }
}

/// Runs an agent against a server for an hour: it is refused, slowly, loudly, and counted by its kind each time.
async fn is_slow_and_loud(net: &Net, key: &str, kind: ErrorKind) {
    let (counted, log) = (Counted::new(), Log::begin());
    let agent = net.build(Agent::builder("http://gateway", key).token(TOKEN));
    let mut status = agent.status();
    let (_listener, run) = agent.listen();
    let run = tokio::spawn(run);
    let (cause, wait, refused, text) = setback(&mut status).await;
    assert_eq!((cause, refused), (kind, true), "{text}");
    assert!((30..=60).contains(&wait.as_secs()), "{wait:?}");
    sleep(Duration::from_secs(3600)).await;
    let dials = net.dials();
    assert!((60..=121).contains(&dials.len()), "{} in an hour", dials.len());
    assert!(dials.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(30)));
    run.abort();
    let failures = counted.sum(&format!("revdial_agent_connect_failures_total{{{}}}", kind.as_str()));
    assert_eq!((failures as usize, log.warnings(key)), (dials.len(), dials.len()));
}

#[tokio::test(start_paused = true)]
async fn b5_b90_a_server_without_a_common_version_is_tried_slowly_and_loudly() {
    let answering = Net::answering(426, &[("sec-websocket-protocol", "other.v9")]);
    is_slow_and_loud(&answering, "b5-426", ErrorKind::Version).await;
    for (with_frame, key) in [(true, "b5-close"), (false, "b5-closed")] {
        is_slow_and_loud(&Net::closing(CloseCode::VERSION, with_frame), key, ErrorKind::Version).await;
    }
}

#[tokio::test(start_paused = true)]
async fn b7_credentials_that_are_not_taken_are_shown_slowly_and_loudly() {
    is_slow_and_loud(&Net::answering(401, &[("www-authenticate", "Bearer")]), "b7-401", ErrorKind::Auth).await;
    is_slow_and_loud(&Net::closing(CloseCode::CREDENTIALS, true), "b7-close", ErrorKind::Auth).await;
}

#[tokio::test(start_paused = true)]
async fn b20_a_captive_portal_is_named_by_its_status_and_not_followed() {
    let table = [
        (200, "200 OK"),
        (204, "204 No Content"),
        (301, "301 Moved Permanently"),
        (302, "302 Found"),
        (303, "303 See Other"),
        (307, "307 Temporary Redirect"),
        (308, "308 Permanent Redirect"),
        (511, "511 Network Authentication Required"),
    ];
    for (status, named) in table {
        let counted = Counted::new();
        let net = Net::answering(status, &[("location", "http://portal.example/login"), ("content-type", "text/html")]);
        let agent = net.agent();
        let mut status = agent.status();
        let (_listener, run) = agent.listen();
        let run = tokio::spawn(run);
        let (cause, wait, refused, text) = setback(&mut status).await;
        assert_eq!((cause, refused), (ErrorKind::Handshake, false), "{text}");
        assert!(text.contains(named) && !text.contains("html") && !text.contains("portal"), "{text}");
        assert!(wait <= Duration::from_millis(250));
        sleep(Duration::from_secs(600)).await;
        run.abort();
        let uris = net.uris();
        assert!(uris.len() >= 20 && uris.iter().all(|uri| uri.host() == Some("gateway")), "{uris:?}");
        assert_eq!(counted.sum("revdial_agent_connect_failures_total{handshake}"), uris.len() as u64);
    }
}

#[tokio::test(start_paused = true)]
async fn b14_b15_a_busy_server_says_when_and_is_not_asked_sooner() {
    for (status, kind, refused) in
        [(503, ErrorKind::Handshake, false), (429, ErrorKind::Overloaded, false), (401, ErrorKind::Auth, true)]
    {
        let net = Net::answering(status, &[("retry-after", "100")]);
        let agent = net.agent();
        let mut told = agent.status();
        let (_listener, run) = agent.listen();
        let run = tokio::spawn(run);
        let (cause, wait, is_refused, _) = setback(&mut told).await;
        assert_eq!((cause, is_refused), (kind, refused), "{status}");
        let shortest = if refused { 130 } else { 100 };
        assert!(wait >= Duration::from_secs(shortest), "{status}: {wait:?}");
        sleep(Duration::from_secs(1000)).await;
        let dials = net.dials();
        assert!(dials.len() >= 5, "{status}: {}", dials.len());
        let pauses = dials.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(pauses.min() >= Some(Duration::from_secs(shortest)), "{status}: {dials:?}");
        run.abort();
    }
}

/// An agent that forwards to these targets, and what may dial it.
async fn forwarding(targets: Targets) -> (ConnectionManager, impl Drop) {
    struct Aborts(tokio::task::JoinHandle<Result<(), Error>>);
    impl Drop for Aborts {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
    let connman = ConnectionManager::new();
    let agent = Net::to(&connman).agent();
    let mut status = agent.status();
    let run = Aborts(tokio::spawn(agent.forward(targets)));
    connected(&mut status).await;
    (connman, run)
}

#[tokio::test]
async fn b73_b78_a_name_that_comes_to_mean_an_address_that_is_not_allowed_is_refused_on_what_is_dialled() {
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = service.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&asked);
    // Allowed once; from then on, as if the name had changed its meaning.
    let rule = move |address: SocketAddr| {
        let mut asked = told.lock().unwrap();
        asked.push(address);
        asked.iter().filter(|asked| **asked == here).count() == 1 && address == here
    };
    let targets = Targets::parse([format!("localhost:{}", here.port())]).unwrap().allow(rule);
    let (connman, _run) = forwarding(targets).await;
    let counted = Counted::new();
    let (_stream, _socket) = tokio::join!(dial(&connman, ""), service.accept());
    let start = Instant::now();
    let denied = dial(&connman, "").await.unwrap_err();
    assert_eq!((denied.kind(), denied.is_retry_safe()), (ErrorKind::TargetDenied, true));
    assert!(start.elapsed() < Duration::from_secs(2), "at once: {:?}", start.elapsed());
    assert_eq!(counted.sum("revdial_dial_failures_total{target_denied}"), 1);
    assert!(timeout(Duration::from_millis(50), service.accept()).await.is_err(), "the service was not asked");
    let asked: BTreeSet<_> = asked.lock().unwrap().iter().copied().collect();
    assert!(asked.contains(&here) && asked.iter().all(|address| address.ip().is_loopback()), "{asked:?}");
}

#[tokio::test]
async fn b74_a_service_that_refuses_is_told_at_once() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (connman, _run) = forwarding(Targets::parse([nobody.to_string()]).unwrap()).await;
    let counted = Counted::new();
    let start = Instant::now();
    let refused = dial(&connman, "").await.unwrap_err();
    assert_eq!((refused.kind(), refused.is_retry_safe()), (ErrorKind::TargetRefused, true));
    assert!(start.elapsed() < Duration::from_secs(2), "at once: {:?}", start.elapsed());
    assert_eq!(counted.sum("revdial_dial_failures_total{target_refused}"), 1);
}

#[tokio::test(start_paused = true)]
async fn a10_an_agent_that_comes_back_is_told_by_its_instance_from_one_that_takes_its_place() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&events);
    let observer = move |event: &TunnelEvent| {
        told.lock().unwrap().push(match event {
            TunnelEvent::Connected { .. } => "connected",
            TunnelEvent::Reconnected { .. } => "reconnected",
            TunnelEvent::Resumed { .. } => "resumed",
            TunnelEvent::Lost { .. } => "lost",
            TunnelEvent::Replaced { .. } => "replaced",
            _ => "other",
        });
    };
    let connman = ConnectionManager::builder().observer(observer).build();
    let net = Net::to(&connman);
    let agent = |instance: u8| {
        let instance = InstanceId::new([instance; 16]);
        net.build(Agent::builder("http://gateway", "a").token(TOKEN).instance(instance))
    };
    let instance = || connman.list().pop().map(|info| info.instance);
    let first = agent(1);
    let mut status = first.status();
    let (listener, run) = first.listen();
    tokio::spawn(echo(listener));
    let run = tokio::spawn(run);
    connected(&mut status).await;
    assert_eq!(instance(), Some(InstanceId::new([1; 16])));

    net.cut();
    status.wait_for(|status| !status.is_connected()).await.unwrap();
    connected(&mut status).await;
    assert_eq!(instance(), Some(InstanceId::new([1; 16])));
    assert_eq!(*events.lock().unwrap(), ["connected", "lost", "resumed"]);
    assert!(!run.is_finished());

    let second = agent(2);
    let mut status = second.status();
    let (listener, second) = second.listen();
    tokio::spawn(echo(listener));
    tokio::spawn(second);
    connected(&mut status).await;
    assert_eq!(run.await.unwrap().unwrap_err().kind(), ErrorKind::Replaced);
    assert_eq!(instance(), Some(InstanceId::new([2; 16])));
    assert!(events.lock().unwrap()[3..].contains(&"replaced"), "{:?}", events.lock().unwrap());
    assert!(connman.epoch(&key()).is_some());
}

//! Who speaks what with whom: our server and our agent with each other, by each setting and through proxies that take
//! headers out, and what moving over from the one protocol to the other does to a key.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{HeaderMap, Request, Response, header::SEC_WEBSOCKET_PROTOCOL};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use revdial::{
    Error, ErrorKind, Protocol, TargetName, TunnelStream,
    agent::{Agent, AgentStatus, ProtocolChoice},
    connman::ConnectionManager,
    server::{KeyedBearer, NoBody, RevDialLayer, SharedBearer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    task::JoinHandle,
};
use tower::ServiceBuilder;

use crate::{
    classic::soon,
    net::{Net, TOKEN},
    until,
    world::{hear, say},
};

/// What a proxy on the way takes out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strips {
    Nothing,
    Offer,
    Choice,
}

/// A net to a real server, through a proxy.
fn through(strips: Strips, connman: &ConnectionManager) -> Net {
    let layer = RevDialLayer::new(connman.clone(), SharedBearer::new(TOKEN).unwrap());
    let strip = move |when: Strips, headers: &mut HeaderMap| {
        if strips == when {
            headers.remove(SEC_WEBSOCKET_PROTOCOL);
        }
    };
    let service = ServiceBuilder::new()
        .map_request(move |mut request: Request<hyper::body::Incoming>| {
            strip(Strips::Offer, request.headers_mut());
            request
        })
        .map_response(move |mut response: Response<NoBody>| {
            strip(Strips::Choice, response.headers_mut());
            response
        })
        .service(layer.into_service());
    Net::new(move |io| {
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(io), TowerToHyperService::new(service.clone()));
        tokio::spawn(connection.with_upgrades());
    })
}

/// An agent at work that sends back what comes.
struct Running {
    status: watch::Receiver<AgentStatus>,
    run: JoinHandle<Result<(), Error>>,
}

impl Running {
    fn start(net: &Net, choice: ProtocolChoice, token: &str) -> Self {
        let agent = net.build(Agent::builder("http://gateway", "a").token(token).protocol(choice));
        let status = agent.status();
        let (mut listener, run) = agent.listen();
        tokio::spawn(async move {
            while let Some(stream) = listener.accept().await {
                let (mut read, mut write) = tokio::io::split(stream);
                tokio::spawn(async move { tokio::io::copy(&mut read, &mut write).await });
            }
        });
        Self { status, run: tokio::spawn(run) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.run.abort();
    }
}

async fn dial(connman: &ConnectionManager) -> TunnelStream {
    soon(connman.dial(&"a".parse().unwrap(), &TargetName::default())).await.unwrap()
}

async fn works(connman: &ConnectionManager) {
    let mut stream = dial(connman).await;
    say(&mut stream, b"there and back").await;
    hear(&mut stream, b"there and back").await;
}

fn spoken(connman: &ConnectionManager) -> Option<Protocol> {
    connman.list().first().map(|agent| agent.protocol)
}

/// What is logged on this thread from here on.
fn logged() -> (Arc<Mutex<Vec<u8>>>, impl Drop) {
    #[derive(Clone)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let log = Arc::new(Mutex::new(Vec::new()));
    let writer = Log(Arc::clone(&log));
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    (log, tracing_subscriber::util::SubscriberInitExt::set_default(subscriber))
}

#[tokio::test(start_paused = true)]
async fn ours_speak_the_native_protocol_unless_told_otherwise_or_kept_from_it_of_which_the_agent_warns() {
    use ProtocolChoice::{Auto, Dialback, Native};
    let table = [
        (Strips::Nothing, Auto, Protocol::Native, false),
        (Strips::Nothing, Native, Protocol::Native, false),
        (Strips::Nothing, Dialback, Protocol::Dialback, false),
        (Strips::Offer, Auto, Protocol::Dialback, true),
        (Strips::Choice, Auto, Protocol::Native, true),
        (Strips::Choice, Native, Protocol::Native, true),
        (Strips::Choice, Dialback, Protocol::Dialback, false),
    ];
    for (strips, choice, expected, warns) in table {
        let (log, _guard) = logged();
        let connman = ConnectionManager::new();
        let agent = Running::start(&through(strips, &connman), choice, TOKEN);
        until("connected", || spoken(&connman).is_some()).await;
        assert_eq!(spoken(&connman), Some(expected), "{choice:?}");
        works(&connman).await;
        assert!(agent.status.borrow().is_connected());
        let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
        assert_eq!(log.contains("takes Sec-WebSocket-Protocol out"), warns, "{choice:?}: {log}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_wants_the_native_protocol_only_refuses_the_other_slowly() {
    let connman = ConnectionManager::new();
    let mut agent = Running::start(&through(Strips::Offer, &connman), ProtocolChoice::Native, TOKEN);
    let refused = |status: &AgentStatus| matches!(status, AgentStatus::Refused { cause: ErrorKind::Version, .. });
    soon(agent.status.wait_for(refused)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert!(refused(&agent.status.borrow()));
}

/// A token for each key, against which a pick-up can be judged although it does not name one.
#[tokio::test(start_paused = true)]
async fn tokens_of_their_own_open_pick_ups_too() {
    let bearer = KeyedBearer::new("secret").unwrap();
    let connman = ConnectionManager::new();
    let net = Net::of(RevDialLayer::new(connman.clone(), bearer.clone()));
    let token = bearer.token_for(&"a".parse().unwrap());
    let _agent = Running::start(&net, ProtocolChoice::Dialback, &token);
    until("connected", || spoken(&connman).is_some()).await;
    works(&connman).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_goes_over_to_the_other_protocol_under_its_key_and_back() {
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let mut earlier = Running::start(&net, ProtocolChoice::Dialback, TOKEN);
    until("connected", || spoken(&connman).is_some()).await;
    for (choice, protocol) in [
        (ProtocolChoice::Auto, Protocol::Native),
        (ProtocolChoice::Dialback, Protocol::Dialback),
        (ProtocolChoice::Native, Protocol::Native),
    ] {
        let mut running = dial(&connman).await;
        let next = Running::start(&net, choice, TOKEN);
        until("the next has the key", || spoken(&connman) == Some(protocol)).await;
        works(&connman).await;
        // What runs at the earlier one may finish, within the time that it has.
        say(&mut running, b"still").await;
        hear(&mut running, b"still").await;
        let error = soon(&mut earlier.run).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Replaced);
        let cut = soon(running.read(&mut [0; 8])).await;
        assert!(!matches!(cut, Ok(n) if n > 0), "{cut:?}");
        earlier = next;
    }
}

/// The server is exchanged for one of the deployed kind, and back.
#[tokio::test(start_paused = true)]
async fn an_agent_follows_its_server() {
    let (native, classic) = (ConnectionManager::new(), ConnectionManager::new());
    let (new, old) = (through(Strips::Nothing, &native), through(Strips::Offer, &classic));
    let net = through(Strips::Nothing, &native);
    let _agent = Running::start(&net, ProtocolChoice::Auto, TOKEN);
    for (server, connman, protocol) in [(&old, &classic, Protocol::Dialback), (&new, &native, Protocol::Native)] {
        until("connected", || [&native, &classic].iter().any(|connman| spoken(connman).is_some())).await;
        let mut lost = dial(if protocol == Protocol::Dialback { &native } else { &classic }).await;
        net.lead_to(server);
        net.cut();
        until("connected to the other", || {
            connman.stats().active_connections == 1 && spoken(connman) == Some(protocol)
        })
        .await;
        works(connman).await;
        let _ = AsyncWriteExt::write_all(&mut lost, b"lost").await;
    }
}

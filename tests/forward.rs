//! How a forwarding agent joins streams and local services: names, refusals, half-closes, and each kind of end.
#![cfg(all(feature = "agent", feature = "proxy"))]

#[path = "support/counted.rs"]
#[expect(dead_code, reason = "each test uses its part")]
mod counted;
#[path = "support/net.rs"]
#[expect(dead_code, reason = "each test uses its part")]
mod net;

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use counted::Counted;
use net::Net;
use revdial::{
    AgentKey, Error, ErrorKind, TunnelStream,
    agent::{AgentStatus, ShutdownHandle, Targets},
    connman::{ConnectionManager, NoGrace},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

/// What an event may take to get through.
const PROMPT: Duration = Duration::from_millis(100);

/// A running agent `a`.
struct World {
    connman: ConnectionManager,
    net: Net,
    shutdown: ShutdownHandle,
    run: JoinHandle<Result<(), Error>>,
}

impl World {
    async fn new(targets: &[String]) -> Self {
        Self::under(ConnectionManager::new(), targets).await
    }

    async fn under(connman: ConnectionManager, targets: &[String]) -> Self {
        Self::with(connman, Targets::parse(targets).unwrap()).await
    }

    async fn with(connman: ConnectionManager, targets: Targets) -> Self {
        let net = Net::to(&connman);
        let agent = net.agent();
        let (mut status, shutdown) = (agent.status(), agent.shutdown_handle());
        let run = tokio::spawn(agent.forward(targets));
        status.wait_for(AgentStatus::is_connected).await.unwrap();
        Self { connman, net, shutdown, run }
    }

    async fn dial(&self, target: &str) -> Result<TunnelStream, Error> {
        let key: AgentKey = "a".parse().unwrap();
        self.connman.dial(&key, &target.parse().unwrap()).await
    }
}

/// An agent with one TCP target, a stream to it, and the service's end of that.
async fn joined() -> (World, TunnelStream, TcpStream) {
    joined_in(ConnectionManager::new()).await
}

async fn joined_in(connman: ConnectionManager) -> (World, TunnelStream, TcpStream) {
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::under(connman, &[service.local_addr().unwrap().to_string()]).await;
    let (stream, local) = tokio::join!(world.dial(""), service.accept());
    (world, stream.unwrap(), local.unwrap().0)
}

async fn say(stream: &mut TunnelStream, text: &[u8]) {
    AsyncWriteExt::write_all(stream, text).await.unwrap();
}

async fn hear(stream: &mut (impl AsyncReadExt + Unpin), text: &[u8]) {
    let mut heard = vec![0; text.len()];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, text);
}

/// Reads to the end, which has to come promptly.
async fn end(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Vec<u8>> {
    let mut heard = Vec::new();
    timeout(PROMPT, stream.read_to_end(&mut heard)).await.expect("no end in time").map(|_| heard)
}

fn kind(error: &io::Error) -> ErrorKind {
    Error::find(error).unwrap().kind()
}

/// Answers each connection with a name.
fn answering(service: TcpListener, name: &'static str) {
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = service.accept().await.unwrap();
            socket.write_all(name.as_bytes()).await.unwrap();
        }
    });
}

/// A service at which nobody accepts, and whose backlog is full while this lives.
async fn full(path: &Path) -> (UnixListener, Vec<UnixStream>) {
    let busy = tokio::net::UnixSocket::new_stream().unwrap();
    busy.bind(path).unwrap();
    let busy = busy.listen(1).unwrap();
    let mut waiting = Vec::new();
    while let Ok(socket) = UnixStream::connect(path).await {
        waiting.push(socket);
    }
    (busy, waiting)
}

#[tokio::test]
async fn names_lead_to_their_addresses_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("unix.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let (first, second) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("[::1]:0").await);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut targets = vec![
        first.local_addr().unwrap().to_string(),
        format!("closed={}", closed.local_addr().unwrap()),
        format!("unix=unix://{}", path.display()),
        format!("nothing=unix://{}", dir.path().join("nothing").display()),
        "nowhere=host.invalid:80".to_owned(),
    ];
    // Not every machine has IPv6.
    if let Ok(second) = second {
        targets.push(format!("second={}", second.local_addr().unwrap()));
        answering(second, "second");
    }
    drop(closed);
    answering(first, "first");
    tokio::spawn(async move {
        let (mut socket, _) = unix.accept().await.unwrap();
        socket.write_all(b"unix").await.unwrap();
    });
    let world = World::new(&targets).await;
    for (target, answer) in [("", "first"), ("second", "second"), ("unix", "unix")] {
        if target == "second" && targets.len() < 6 {
            continue;
        }
        let mut stream = world.dial(target).await.unwrap();
        hear(&mut stream, answer.as_bytes()).await;
        assert_eq!(end(&mut stream).await.unwrap(), b"");
    }
    for (target, refusal) in [
        ("other", ErrorKind::TargetUnknown),
        ("closed", ErrorKind::TargetRefused),
        ("nothing", ErrorKind::TargetRefused),
        ("nowhere", ErrorKind::TargetRefused),
    ] {
        let error = world.dial(target).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retry_safe()), (refusal, true), "{target}");
    }
}

/// What a name leads to is asked about at each connect, and no byte goes where it may not.
#[tokio::test]
async fn b78_a_name_that_comes_to_mean_an_address_that_may_not_be_dialled_is_denied() {
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = service.local_addr().unwrap().port();
    let (allowed, counted) = (Arc::new(AtomicBool::new(true)), Counted::new());
    let asked = Arc::clone(&allowed);
    let targets = Targets::parse([format!("localhost:{port}")]).unwrap().allow(move |addr| {
        assert_eq!((addr.ip().is_loopback(), addr.port()), (true, port));
        asked.load(Ordering::SeqCst)
    });
    let world = World::with(ConnectionManager::new(), targets).await;
    let (stream, socket) = tokio::join!(world.dial(""), service.accept());
    drop((stream.unwrap(), socket.unwrap()));

    allowed.store(false, Ordering::SeqCst);
    let error = world.dial("").await.unwrap_err();
    assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::TargetDenied, true));
    assert_eq!(revdial::proxy::status_of(error.kind()), 502);
    assert_eq!(counted.sum("revdial_dial_failures_total{target_denied}"), 1);
    assert!(timeout(PROMPT, service.accept()).await.is_err(), "it was dialled");
}

#[tokio::test(start_paused = true)]
async fn b75_a_service_that_does_not_answer_is_given_five_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("busy.sock");
    let _full = full(&path).await;
    let world = World::new(&[format!("unix://{}", path.display())]).await;
    let start = Instant::now();
    let error = world.dial("").await.unwrap_err();
    assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::TargetTimeout, true));
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test]
async fn a15_a_service_that_does_not_answer_holds_up_neither_another_one_nor_the_tunnel() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("busy.sock");
    let _full = full(&path).await;
    let works = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let targets = [works.local_addr().unwrap().to_string(), format!("busy=unix://{}", path.display())];
    answering(works, "works");
    let world = World::new(&targets).await;
    let mut before = world.dial("").await.unwrap();
    hear(&mut before, b"works").await;
    let mut stuck = JoinSet::new();
    for _ in 0..60 {
        stuck.spawn(world.connman.dial(&"a".parse().unwrap(), &"busy".parse().unwrap()));
    }
    for _ in 0..20 {
        let mut stream = timeout(PROMPT, world.dial("")).await.expect("in no time").unwrap();
        timeout(PROMPT, hear(&mut stream, b"works")).await.expect("in no time");
    }
    assert!(stuck.try_join_next().is_none(), "they wait for five seconds");
    assert_eq!(world.connman.list()[0].reconnects, 0, "on the same link");
}

#[tokio::test]
async fn half_closes_pass_both_ways() {
    let (_world, mut stream, mut local) = joined().await;
    say(&mut stream, b"question").await;
    AsyncWriteExt::shutdown(&mut stream).await.unwrap();
    assert_eq!(end(&mut local).await.unwrap(), b"question");
    local.write_all(b"answer").await.unwrap();
    hear(&mut stream, b"answer").await;
    local.shutdown().await.unwrap();
    assert_eq!(end(&mut stream).await.unwrap(), b"");
}

#[tokio::test]
async fn megabytes_pass_both_ways_at_once() {
    let (_world, stream, local) = joined().await;
    let sent: Vec<u8> = (0..8_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let (mut read, mut write) = tokio::io::split(stream);
    let echo = tokio::spawn(async move {
        let (mut read, mut write) = local.into_split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let (_, heard) = tokio::join!(writing, read.read_to_end(&mut back));
    heard.unwrap();
    assert!(back == sent);
    echo.await.unwrap();
}

#[tokio::test]
async fn a_lost_session_resets_the_local_socket() {
    let (world, mut stream, mut local) = joined_in(ConnectionManager::builder().grace(NoGrace).build()).await;
    say(&mut stream, b"half").await;
    hear(&mut local, b"half").await;
    world.net.cut();
    assert_eq!(end(&mut local).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(kind(&end(&mut stream).await.unwrap_err()), ErrorKind::SessionLost);
}

#[tokio::test]
async fn a_reset_by_the_caller_resets_the_local_socket() {
    let (_world, mut stream, mut local) = joined().await;
    say(&mut stream, b"half").await;
    hear(&mut local, b"half").await;
    stream.reset();
    assert_eq!(end(&mut local).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_reaches_a_service_that_neither_reads_nor_writes() {
    let (_world, mut stream, local) = joined().await;
    // More than what the sockets between forwarder and service hold: the forwarder's own write is stuck.
    let fill = vec![0; 64 * 1024];
    while timeout(PROMPT, AsyncWriteExt::write_all(&mut stream, &fill)).await.is_ok() {}
    stream.reset();
    let failed = timeout(PROMPT * 5, local.ready(Interest::ERROR)).await;
    assert!(failed.is_ok_and(|ready| ready.unwrap().is_error()));
}

#[tokio::test]
async fn a4_b76_a_reset_by_the_service_is_never_an_end() {
    let (_world, mut stream, mut local) = joined().await;
    local.write_all(b"half").await.unwrap();
    hear(&mut stream, b"half").await;
    local.set_zero_linger().unwrap();
    drop(local);
    let error = end(&mut stream).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::PeerReset);
    let mut source = std::error::Error::source(Error::find(&error).unwrap());
    let mut told = String::new();
    while let Some(error) = source {
        told += &error.to_string();
        source = error.source();
    }
    assert!(told.contains("target reset"), "{told}");
}

#[tokio::test]
async fn an_early_answer_is_read_though_the_service_reads_no_more() {
    let (_world, mut stream, mut local) = joined().await;
    local.write_all(b"413").await.unwrap();
    // Closed with nothing unread: whatever comes afterwards is answered by RST.
    local.shutdown().await.unwrap();
    drop(local);
    for _ in 0..20 {
        say(&mut stream, &[0; 64 * 1024]).await;
    }
    assert_eq!(end(&mut stream).await.unwrap(), b"413");
}

/// The forwarder's write learned of the reset, so that its read was told an end.
#[tokio::test]
async fn an_answer_cut_off_by_a_late_question_is_never_whole() {
    let (_world, mut stream, mut local) = joined().await;
    let answer = vec![4; 320 * 1024];
    local.write_all(&answer).await.unwrap();
    local.shutdown().await.unwrap();
    drop(local);
    for _ in 0..20 {
        if AsyncWriteExt::write_all(&mut stream, &[0; 64 * 1024]).await.is_err() {
            break;
        }
    }
    let mut heard = Vec::new();
    let end = timeout(PROMPT * 5, stream.read_to_end(&mut heard)).await.unwrap();
    match end {
        Err(error) => assert_eq!(kind(&error), ErrorKind::PeerReset),
        Ok(_) => assert_eq!(heard.len(), answer.len()),
    }
}

#[tokio::test]
async fn a3_b79_a_cancelled_caller_reaches_a_silent_service() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("silent.sock");
    let service = UnixListener::bind(&path).unwrap();
    let world = World::new(&[format!("unix://{}", path.display())]).await;
    let (stream, local) = tokio::join!(world.dial(""), service.accept());
    let (mut stream, mut local) = (stream.unwrap(), local.unwrap().0);
    say(&mut stream, b"wait for ever").await;
    hear(&mut local, b"wait for ever").await;
    drop(stream);
    let closed = async {
        // The end of the caller's half, and then, which is the point, that of the other.
        assert_eq!(local.read(&mut [0]).await.unwrap(), 0);
        while !local.ready(Interest::WRITABLE).await.unwrap().is_write_closed() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PROMPT, closed).await.expect("the local socket is still open");
}

#[tokio::test]
async fn a_caller_that_only_ends_its_half_is_not_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("slow.sock");
    let service = UnixListener::bind(&path).unwrap();
    let world = World::new(&[format!("unix://{}", path.display())]).await;
    let (stream, local) = tokio::join!(world.dial(""), service.accept());
    let (mut stream, mut local) = (stream.unwrap(), local.unwrap().0);
    AsyncWriteExt::shutdown(&mut stream).await.unwrap();
    assert_eq!(end(&mut local).await.unwrap(), b"");
    let open = timeout(PROMPT, async {
        while !local.ready(Interest::WRITABLE).await.unwrap().is_write_closed() {
            tokio::task::yield_now().await;
        }
    });
    assert!(open.await.is_err());
    local.write_all(b"late").await.unwrap();
    hear(&mut stream, b"late").await;
}

#[tokio::test]
async fn what_a_caller_wrote_before_it_left_arrives_whole() {
    let (_world, mut stream, mut local) = joined().await;
    let sent = vec![7; 200_000];
    let (wrote, heard) = tokio::join!(
        async {
            AsyncWriteExt::write_all(&mut stream, &sent).await.unwrap();
            drop(stream);
        },
        async {
            let mut heard = Vec::new();
            local.read_to_end(&mut heard).await.map(|_| heard)
        }
    );
    let () = wrote;
    assert!(heard.unwrap() == sent);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_left_a_stuck_service_is_over_after_five_seconds() {
    for (patient, is_whole) in [(4, true), (6, false)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stuck.sock");
        let service = UnixListener::bind(&path).unwrap();
        let world = World::new(&[format!("unix://{}", path.display())]).await;
        let (stream, local) = tokio::join!(world.dial(""), service.accept());
        let (mut stream, mut local) = (stream.unwrap(), local.unwrap().0);
        let mut sent = 0;
        while let Ok(n) = timeout(PROMPT, AsyncWriteExt::write(&mut stream, &[7; 1024])).await {
            sent += n.unwrap();
        }
        drop(stream);
        sleep(Duration::from_secs(patient)).await;
        let mut heard = Vec::new();
        local.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard.len() == sent, is_whole, "{} of {sent} after {patient} s", heard.len());
    }
}

#[tokio::test]
async fn a_dropped_run_resets_both_ends() {
    let (world, mut stream, mut local) = joined_in(ConnectionManager::builder().grace(NoGrace).build()).await;
    say(&mut stream, b"half").await;
    hear(&mut local, b"half").await;
    world.run.abort();
    assert_eq!(end(&mut local).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(kind(&end(&mut stream).await.unwrap_err()), ErrorKind::SessionLost);
}

#[tokio::test]
async fn b85_a_shutdown_resets_what_still_runs() {
    let (world, mut stream, mut local) = joined().await;
    say(&mut stream, b"half").await;
    hear(&mut local, b"half").await;
    world.shutdown.shutdown(Duration::from_millis(50));
    let heard = timeout(Duration::from_secs(5), stream.read_u8()).await.unwrap();
    assert_eq!(kind(&heard.unwrap_err()), ErrorKind::PeerReset);
    assert_eq!(end(&mut local).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    world.run.await.unwrap().unwrap();
}

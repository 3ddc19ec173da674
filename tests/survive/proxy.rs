//! What a client of a gateway sees of a pause, and of a session that does not come back.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1 as client, server::conn::http1 as server};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use revdial::{
    Error, ErrorKind, TargetName, TunnelStream,
    connman::Stats,
    proxy::{Destination, Proxy, ProxyBody},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use crate::support::{LONG, Running, World, key};

const GRACE: Duration = Duration::from_secs(30);

/// A connection to a host of plain hyper that forwards everything to the agent's default target.
fn host(world: &World) -> DuplexStream {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let proxy = Proxy::new(world.connman.clone());
    let service = tower::util::MapRequest::new(proxy, |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Destination::new(key(), TargetName::default()));
        request
    });
    let connection = server::Builder::new().serve_connection(TokioIo::new(far), TowerToHyperService::new(service));
    tokio::spawn(connection.with_upgrades());
    near
}

/// Reads one head, with its empty line, byte for byte and no byte further.
async fn head(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(LONG, io.read_u8()).await.expect("a head in time").unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A request that has reached the service.
async fn asked(world: &World, agent: &mut Running, request: &str) -> (DuplexStream, TunnelStream) {
    let mut client = host(world);
    client.write_all(request.as_bytes()).await.unwrap();
    let mut service = agent.accepted().await;
    head(&mut service).await;
    (client, service)
}

/// The link is lost for good; gives the end of the grace.
async fn lose(world: &World) -> Instant {
    world.pause().await;
    world.when("lost")[0] + GRACE
}

const GET: &str = "GET / HTTP/1.1\r\nhost: gateway\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: gateway\r\ncontent-length: 0\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn b63_a_request_without_an_answer_at_the_end_of_the_grace_is_502() {
    let world = World::new();
    let mut agent = world.agent().await;
    let (mut client, service) = asked(&world, &mut agent, POST).await;
    let over = lose(&world).await;
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(Instant::now() >= over && Instant::now() <= over + Duration::from_millis(100));
    assert_eq!(world.connman.stats(), Stats::default());
    drop((client, service));
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn b63_an_answer_in_flight_at_the_end_of_the_grace_never_ends_cleanly() {
    for (framing, body) in [
        ("content-length: 10\r\n", "half"),
        ("transfer-encoding: chunked\r\n", "4\r\nhalf\r\n"),
        ("connection: close\r\n", "half"),
    ] {
        let world = World::new();
        let mut agent = world.agent().await;
        let io = host(&world);
        let (mut send, connection) = client::handshake(TokioIo::new(io)).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::get("/").header("host", "gateway").body(Full::<Bytes>::default()).unwrap();
        let answer = tokio::spawn(send.send_request(request));
        let mut service = agent.accepted().await;
        head(&mut service).await;
        service.write_all(format!("HTTP/1.1 200 OK\r\n{framing}\r\n{body}").as_bytes()).await.unwrap();
        let mut response = answer.await.unwrap().unwrap();
        assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
        let over = lose(&world).await;
        sleep_until(over - Duration::from_millis(1)).await;
        let rest = timeout(Duration::from_millis(101), response.frame()).await.expect("at once");
        assert!(rest.is_some_and(|frame| frame.is_err()), "{framing}: a clean end");
        drop((response, service, send));
        let _ = connection.await;
        world.over([agent]).await;
    }
}

fn forward(world: &World, method: &str) -> JoinHandle<Result<Response<ProxyBody>, Error>> {
    let proxy = Proxy::<Full<Bytes>>::new(world.connman.clone());
    let request = Request::builder().method(method).uri("/").body(Full::default()).unwrap();
    tokio::spawn(async move { proxy.try_forward(&key(), &TargetName::default(), request).await })
}

#[tokio::test(start_paused = true)]
async fn b64_a_request_in_the_grace_is_503_with_retry_after_at_its_end() {
    let world = World::new();
    let agent = world.agent().await;
    let over = lose(&world).await;
    let mut client = host(&world);
    client.write_all(GET.as_bytes()).await.unwrap();
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    assert!(Instant::now() >= over && Instant::now() <= over + Duration::from_millis(100));
    assert_eq!(forward(&world, "GET").await.unwrap().unwrap_err().kind(), ErrorKind::NoConnection);
    drop(client);
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn b67_an_upgraded_stream_goes_on_over_a_pause_with_the_same_bytes() {
    let world = World::new();
    let mut agent = world.agent().await;
    let before = world.baseline().await;
    let upgrade = "GET / HTTP/1.1\r\nhost: gateway\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\n";
    let (mut client, mut service) = asked(&world, &mut agent, upgrade).await;
    let switching = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\n";
    service.write_all(switching.as_bytes()).await.unwrap();
    assert!(head(&mut client).await.starts_with("HTTP/1.1 101 "));
    for round in 0..50_u8 {
        if round % 5 == 0 {
            world.net.cut();
        }
        client.write_all(&[round; 5000]).await.unwrap();
        service.write_all(&[!round; 5000]).await.unwrap();
        let (mut up, mut down) = ([0; 5000], [0; 5000]);
        service.read_exact(&mut up).await.unwrap();
        client.read_exact(&mut down).await.unwrap();
        assert_eq!((up, down), ([round; 5000], [!round; 5000]));
    }
    // Each end reaches the other side, over one more.
    world.net.cut();
    client.shutdown().await.unwrap();
    assert_eq!(service.read(&mut [0]).await.unwrap(), 0);
    AsyncWriteExt::shutdown(&mut service).await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(agent.untaken(), 0);
    drop((client, service));
    world.settled(&before).await;
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn b49_a_download_through_a_gateway_and_an_answer_that_is_awaited_see_a_pause_only() {
    let world = World::new();
    let mut agent = world.agent().await;
    let before = world.baseline().await;
    let (mut client, mut service) = asked(&world, &mut agent, POST).await;
    world.net.cut();
    let (mut other, mut other_service) = asked(&world, &mut agent, GET).await;
    let length = 1_000_000;
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    let body: Vec<u8> = (0..length).map(|at: usize| (at % 251) as u8).collect();
    let write = async {
        service.write_all(answer.as_bytes()).await.unwrap();
        for part in body.chunks(100_000) {
            service.write_all(part).await.unwrap();
            world.net.cut();
        }
        AsyncWriteExt::shutdown(&mut service).await.unwrap();
    };
    let read = async {
        assert!(head(&mut client).await.starts_with("HTTP/1.1 200 OK"));
        let mut got = vec![0; length];
        client.read_exact(&mut got).await.unwrap();
        assert!(got == body, "other bytes");
    };
    tokio::join!(write, read);
    other_service.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert!(head(&mut other).await.starts_with("HTTP/1.1 200 OK"));
    drop((client, service, other, other_service));
    world.settled(&before).await;
    world.over([agent]).await;
}

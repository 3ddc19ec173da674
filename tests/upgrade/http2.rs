//! WebSockets over HTTP/2 by extended CONNECT (RFC 8441): the same layer, the same answers, the same tunnels.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{
    body::{Body, Incoming},
    client::conn::{http1, http2},
    ext::Protocol,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use revdial::{
    TargetName, TunnelStream,
    connman::ConnectionManager,
    server::{RevDialLayer, SharedBearer},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tower::Service;

use crate::{
    BEARER, URI, ask,
    classic::{KEEP_ALIVE, Peer, Side},
    full, gone, granted, key, layer,
    raw::{PATH, RawAgent, hello, upgrade},
    refusals::faulty,
};

/// One connection over HTTP/2, whose server allows extended CONNECT.
#[derive(Clone)]
struct Client(http2::SendRequest<Empty<Bytes>>);

impl Client {
    /// To a service in hyper-util's server, which speaks both versions.
    async fn of<S, B>(service: S) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
            + Clone
            + Send
            + 'static,
        B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
    {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http2().enable_connect_protocol();
            let _ =
                server.serve_connection_with_upgrades(TokioIo::new(theirs), TowerToHyperService::new(service)).await;
        });
        Self::over(ours).await
    }

    async fn over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
        tokio::spawn(connection);
        let mut client = Self(send);
        // The first answer comes behind the server's settings, with which it allows what follows.
        let first = client.0.send_request(Request::get("http://gateway/").body(Empty::new()).unwrap()).await;
        assert_eq!(first.unwrap().version(), Version::HTTP_2);
        client
    }

    async fn connect(&mut self, uri: &str, headers: &[(&'static str, &'static str)]) -> Response<Incoming> {
        let mut request = Request::connect(format!("http://gateway{uri}")).version(Version::HTTP_2);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Empty::new()).unwrap();
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        self.0.send_request(request).await.unwrap()
    }

    /// The link of an agent that speaks the native protocol.
    async fn agent(&mut self, uri: &str, instance: u8) -> RawAgent {
        let response = self.connect(uri, NATIVE).await;
        assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_2));
        assert_eq!(response.headers()["sec-websocket-protocol"], "revdial.v1");
        assert_eq!(response.headers()["revdial-protocol"], "revdial.v1");
        for absent in ["connection", "upgrade", "sec-websocket-accept", "sec-websocket-extensions", "content-length"] {
            assert!(!response.headers().contains_key(absent), "{absent}");
        }
        let mut agent = RawAgent::over(hyper::upgrade::on(response).await.unwrap()).await;
        agent.greet(hello(instance)).await;
        agent
    }

    /// A connection of the dial-back protocol.
    async fn classic(&mut self, uri: &str) -> Peer<TokioIo<hyper::upgrade::Upgraded>> {
        let response = self.connect(uri, &NATIVE[..2]).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(!response.headers().contains_key("sec-websocket-protocol"));
        Peer::new(TokioIo::new(hyper::upgrade::on(response).await.unwrap()), Side::Agent)
    }
}

const NATIVE: &[(&str, &str)] =
    &[("authorization", BEARER), ("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat, revdial.v1")];

async fn dial(connman: &ConnectionManager, name: &str) -> TunnelStream {
    connman.dial(&key(name), &TargetName::default()).await.unwrap()
}

/// What a GET through the tunnel is answered.
async fn get(connman: &ConnectionManager, name: &str) -> Bytes {
    let (mut send, connection) = http1::handshake(dial(connman, name).await).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/").header(header::HOST, name).body(Empty::<Bytes>::new()).unwrap();
    send.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes()
}

/// The same request as over HTTP/1.1, as hyper's server hands on what comes over HTTP/2.
fn over_http2(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    *request.version_mut() = Version::HTTP_2;
    let asks = request.headers_mut().remove(header::UPGRADE).is_some();
    request.headers_mut().remove(header::CONNECTION);
    if request.method() == Method::GET {
        *request.method_mut() = Method::CONNECT;
        let protocol = if asks { "websocket" } else { "connect-udp" };
        request.extensions_mut().insert(Protocol::from_static(protocol));
    }
    request
}

#[tokio::test(start_paused = true)]
async fn of_several_faults_the_first_decides_as_over_http_1() {
    const FAULTS: [(&str, u16); 9] = [
        ("head", 431),
        ("method", 405),
        ("upgrade", 426),
        ("origin", 403),
        ("credentials", 401),
        ("key", 400),
        ("version", 426),
        ("body", 400),
        ("subprotocol", 426),
    ];
    let layer = layer(&ConnectionManager::new()).max_auth_failures(u32::MAX, std::time::Duration::ZERO);
    for subset in 0..1u32 << FAULTS.len() {
        let faults = FAULTS.iter().enumerate().filter(|(bit, _)| subset >> bit & 1 == 1).map(|(_, fault)| fault);
        let names: Vec<_> = faults.clone().map(|(name, _)| *name).collect();
        let expected = faults.clone().map(|(_, status)| *status).next().unwrap_or(200);
        let response = ask(&layer, over_http2(faulty(&names))).await;
        assert_eq!(response.status().as_u16(), expected, "{names:?}");
        for forbidden in [header::CONNECTION, header::UPGRADE] {
            assert!(!response.headers().contains_key(&forbidden), "{names:?}: HTTP/2 has no {forbidden}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_connect_to_a_websocket_is_told_what_would_be() {
    let layer = layer(&ConnectionManager::new());
    let mut get = full(granted(URI));
    *get.version_mut() = Version::HTTP_2;
    assert_eq!(ask(&layer, get).await.status(), StatusCode::UPGRADE_REQUIRED, "headers of HTTP/1.1 do not count");
    let post = ask(&layer, over_http2(faulty(&["method"]))).await;
    assert_eq!(post.headers()[header::ALLOW], "CONNECT");
    let no_key = full(upgrade(URI).header(header::AUTHORIZATION, BEARER));
    let mut no_key = over_http2(no_key);
    no_key.headers_mut().remove(header::SEC_WEBSOCKET_KEY);
    assert_eq!(ask(&layer, no_key).await.status(), StatusCode::OK, "HTTP/2 has no use for a key");
}

#[tokio::test(start_paused = true)]
async fn refusals_reach_a_real_client_and_leave_its_connection_open() {
    let connman = ConnectionManager::new();
    let mut client = Client::of(layer(&connman).into_service()).await;
    let wrong = [("authorization", "Bearer wrong"), NATIVE[1], NATIVE[2]];
    let refused = client.connect(URI, &wrong).await;
    assert_eq!(
        (refused.status(), &refused.headers()["www-authenticate"]),
        (StatusCode::UNAUTHORIZED, &HeaderValue::from_static("Bearer"))
    );
    assert_eq!(client.connect(PATH, NATIVE).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(client.connect(URI, &[NATIVE[0], NATIVE[2]]).await.status(), StatusCode::UPGRADE_REQUIRED);
    let origin = [NATIVE[0], NATIVE[1], NATIVE[2], ("origin", "https://elsewhere.example")];
    assert_eq!(client.connect(URI, &origin).await.status(), StatusCode::FORBIDDEN);
    client.agent(URI, 1).await;
}

#[tokio::test(start_paused = true)]
async fn tunnels_share_a_connection_and_end_one_by_one() {
    let connman = ConnectionManager::new();
    let mut client = Client::of(layer(&connman).into_service()).await;
    let mut agents = Vec::new();
    for (uri, instance, body) in [(URI, 1, "at a"), ("/api/v1/revdial?runnerid=b", 2, "at b")] {
        agents.push(tokio::spawn(client.agent(uri, instance).await.serve_http(body)));
    }
    for _ in 0..3 {
        assert_eq!((get(&connman, "a").await, get(&connman, "b").await), ("at a".into(), "at b".into()));
    }
    agents[0].abort();
    gone(&connman).await;
    assert_eq!(get(&connman, "b").await, "at b");
    // The end of the connection is that of all its tunnels.
    drop(client);
    agents[1].abort();
    while connman.stats().active_connections > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(connman.stats().grace_period_entries, 2);
}

#[tokio::test(start_paused = true)]
async fn dial_back_agents_may_come_over_http_2_and_so_may_their_pick_ups() {
    let connman = ConnectionManager::new();
    let mut client = Client::of(layer(&connman).into_service()).await;
    let mut control = client.classic(URI).await;
    assert_eq!(control.line().await, KEEP_ALIVE);
    let dialled = tokio::spawn(connman.dial(&key("a"), &TargetName::default()));
    let path = control.conn_ready().await.replacen("/revdial", PATH, 1);
    let mut there = client.classic(&path).await;
    let mut here = dialled.await.unwrap().unwrap();
    here.write_all(b"there").await.unwrap();
    assert_eq!(there.bytes(5).await, b"there");
    there.send(crate::classic::wire::BINARY, *b"back").await;
    there.finish().await;
    let mut heard = String::new();
    here.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "back");
}

#[tokio::test]
async fn axum_serves_tunnels_over_http_2_by_itself() {
    let connman = ConnectionManager::new();
    let layer = RevDialLayer::new(connman.clone(), SharedBearer::new("token").unwrap());
    let app = axum::Router::new().route("/", axum::routing::get(|| async { "hello" })).layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let mut client = Client::over(tokio::net::TcpStream::connect(addr).await.unwrap()).await;
    let agent = tokio::spawn(client.agent(URI, 1).await.serve_http("over axum"));
    assert_eq!(get(&connman, "a").await, "over axum");
    agent.abort();
    server.abort();
}

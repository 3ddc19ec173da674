//! The ways from an agent to its server: through proxies, by TLS, over HTTP/2; and the agent as a program on them.
#![cfg(all(feature = "agent", feature = "connector", feature = "tls"))]

#[path = "../support/certificates.rs"]
mod certificates;
#[path = "../support/counted.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod counted;
mod http2;
#[path = "../support/net.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod net;
#[path = "../support/process.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod process;
mod program;
mod proxies;
#[path = "../support/proxy.rs"]
mod proxy;
mod tls;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use net::TOKEN;
use revdial::{
    AgentKey, Error, ErrorKind, TargetName, TunnelStream,
    agent::{Agent, AgentBuilder, AgentStatus, ShutdownHandle},
    connman::ConnectionManager,
    server::{RevDialLayer, SharedBearer},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// No step takes this long.
const DEADLINE: Duration = Duration::from_secs(20);

/// What the gateways here are called. Nothing on this machine has an address for that.
const NAME: &str = "gateway.test";

fn key() -> AgentKey {
    "a".parse().unwrap()
}

/// What a gateway speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Http {
    One,
    Both,
    /// Both, and WebSockets over HTTP/1.1 only.
    WebSocketsOverOne,
}

/// A real server on loopback.
struct Gateway {
    connman: ConnectionManager,
    addr: SocketAddr,
    /// What TLS agreed on, connection by connection.
    agreed: Arc<Mutex<Vec<String>>>,
    /// Whether connections end as they come.
    down: Arc<AtomicBool>,
}

impl Gateway {
    /// Without TLS, over HTTP/1.1 and 2.
    async fn plain() -> Self {
        Self::new(None, Http::Both).await
    }

    /// With TLS, and what that agrees on.
    async fn tls(config: ServerConfig) -> Self {
        Self::new(Some(TlsAcceptor::from(Arc::new(config))), Http::Both).await
    }

    /// The same, and WebSockets over HTTP/1.1 only, as most servers do.
    async fn tls_of_most(config: ServerConfig) -> Self {
        Self::new(Some(TlsAcceptor::from(Arc::new(config))), Http::WebSocketsOverOne).await
    }

    /// The same, and nothing but HTTP/1.1.
    async fn tls_of_old(config: ServerConfig) -> Self {
        Self::new(Some(TlsAcceptor::from(Arc::new(config))), Http::One).await
    }

    async fn new(acceptor: Option<TlsAcceptor>, http: Http) -> Self {
        let connman = ConnectionManager::new();
        let layer = RevDialLayer::new(connman.clone(), SharedBearer::new(TOKEN).unwrap());
        let service = TowerToHyperService::new(layer.into_service());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let agreed = Arc::<Mutex<Vec<String>>>::default();
        let down = Arc::<AtomicBool>::default();
        let (agree, is_down) = (Arc::clone(&agreed), Arc::clone(&down));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                if is_down.load(Ordering::Relaxed) {
                    continue;
                }
                let (service, acceptor, agree) = (service.clone(), acceptor.clone(), Arc::clone(&agree));
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(socket, service, http).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(socket).await {
                                let alpn = stream.get_ref().1.alpn_protocol().unwrap_or_default();
                                agree.lock().unwrap().push(String::from_utf8_lossy(alpn).into_owned());
                                serve(stream, service, http).await;
                            }
                        }
                    }
                });
            }
        });
        Self { connman, addr, agreed, down }
    }

    /// Where it is for who can look its name up.
    fn named(&self, scheme: &str) -> String {
        format!("{scheme}://{NAME}:{}", self.addr.port())
    }

    async fn dial(&self) -> Result<TunnelStream, Error> {
        self.connman.dial(&key(), &TargetName::default()).await
    }

    /// Whether there is a way through the tunnel and back.
    async fn works(&self) {
        let mut stream = timeout(DEADLINE, self.dial()).await.expect("an answer").expect("a stream");
        let sent: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let (mut read, mut write) = tokio::io::split(&mut stream);
        let mut back = vec![0; sent.len()];
        let both = async { tokio::join!(write.write_all(&sent), read.read_exact(&mut back)) };
        let (wrote, read) = timeout(DEADLINE, both).await.expect("all of it");
        wrote.and(read.map(drop)).unwrap();
        assert!(back == sent, "the bytes that came back are others");
    }
}

async fn serve<S, B>(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, service: S, http: Http)
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B> + Clone + Send + 'static,
    S: hyper::service::Service<http::Request<hyper::body::Incoming>, Response = http::Response<B>>,
    <S as hyper::service::Service<http::Request<hyper::body::Incoming>>>::Error:
        Into<Box<dyn std::error::Error + Send + Sync>>,
    <S as hyper::service::Service<http::Request<hyper::body::Incoming>>>::Future: Send + 'static,
    B: hyper::body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    match http {
        Http::One => builder = builder.http1_only(),
        Http::Both => drop(builder.http2().enable_connect_protocol()),
        Http::WebSocketsOverOne => {}
    }
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(io), service).await;
}

fn builder(url: &str) -> AgentBuilder {
    Agent::builder(url, "a").token(TOKEN)
}

/// A running agent that sends back what comes.
struct Running {
    status: watch::Receiver<AgentStatus>,
    shutdown: ShutdownHandle,
    run: JoinHandle<Result<(), Error>>,
}

impl Running {
    fn of(agent: Agent) -> Self {
        let (status, shutdown) = (agent.status(), agent.shutdown_handle());
        let (mut listener, run) = agent.listen();
        tokio::spawn(async move {
            while let Some(stream) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = tokio::io::split(stream);
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    let _ = AsyncWriteExt::shutdown(&mut write).await;
                });
            }
        });
        Self { status, shutdown, run: tokio::spawn(run) }
    }

    /// Waits until it is connected; another end is told.
    async fn connected(&mut self) {
        let settled = self.status.wait_for(|status| *status != AgentStatus::Connecting);
        let status = timeout(DEADLINE, settled).await.expect("an end of the attempt").unwrap().clone();
        assert!(status.is_connected(), "{status:?}");
    }

    /// Waits for a setback: what it was, how long until the next attempt, whether it is a refusal, and the words.
    async fn setback(&mut self) -> (ErrorKind, Duration, bool, String) {
        let settled = self.status.wait_for(|status| *status != AgentStatus::Connecting);
        match timeout(DEADLINE, settled).await.expect("an end of the attempt").unwrap().clone() {
            AgentStatus::Waiting { until, cause, text } => (cause, until - Instant::now(), false, text.to_string()),
            AgentStatus::Refused { until, cause, text } => (cause, until - Instant::now(), true, text.to_string()),
            other => panic!("{other:?}"),
        }
    }
}

impl Running {
    /// Resolves when its run has ended.
    async fn run_ended(mut self) -> Result<(), Error> {
        (&mut self.run).await.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.run.abort();
    }
}

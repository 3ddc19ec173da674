//! A host with a proxy, a connected agent, and a service behind it that says exactly what a test tells it to.

use std::{convert::Infallible, future::Future, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Body, Incoming},
    client::conn::http1 as client,
    server::conn::http1 as server,
    service::service_fn,
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use revdial::{
    AgentKey, TargetName, TunnelStream,
    agent::{Agent, AgentStatus, Listener, Targets},
    connman::ConnectionManager,
    proxy::{Destination, Proxy, ProxyBody, ProxyBuilder},
    server::{RevDialLayer, SharedBearer},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
    task::JoinHandle,
};

const TOKEN: &str = "token";

/// What a test can do to an agent.
pub(crate) struct RunningAgent {
    run: JoinHandle<Result<(), revdial::Error>>,
}

impl RunningAgent {
    /// Ends it as `kill -9` would.
    pub(crate) async fn kill(self) {
        self.run.abort();
        let _ = self.run.await;
    }
}

pub(crate) fn key() -> AgentKey {
    "a".parse().unwrap()
}

/// Connects an agent `a`.
pub(crate) async fn agent(connman: &ConnectionManager) -> (Listener, RunningAgent) {
    let agent = unconnected_agent(connman);
    let mut status = agent.status();
    let (listener, run) = agent.listen();
    let run = tokio::spawn(run);
    status.wait_for(AgentStatus::is_connected).await.unwrap();
    (listener, RunningAgent { run })
}

/// The same one, that forwards to local ports.
pub(crate) async fn forwarding_agent(connman: &ConnectionManager, targets: Targets) -> RunningAgent {
    let agent = unconnected_agent(connman);
    let mut status = agent.status();
    let run = tokio::spawn(agent.forward(targets));
    status.wait_for(AgentStatus::is_connected).await.unwrap();
    RunningAgent { run }
}

fn unconnected_agent(connman: &ConnectionManager) -> Agent {
    let layer = RevDialLayer::new(connman.clone(), SharedBearer::new(TOKEN).unwrap());
    let service = layer.into_service();
    let connector = tower::service_fn(move |_: http::Uri| {
        let (near, far) = tokio::io::duplex(256 * 1024);
        let connection = server::Builder::new()
            .serve_connection(TokioIo::new(far), TowerToHyperService::new(service.clone()))
            .with_upgrades();
        tokio::spawn(connection);
        std::future::ready(Ok::<_, std::io::Error>(TokioIo::new(near)))
    });
    Agent::builder("http://gateway", "a").token(TOKEN).build_with(connector).unwrap()
}

/// Has a service take every stream by its own task.
pub(crate) fn serve_streams<F, A>(mut listener: Listener, service: F)
where
    F: Fn(TunnelStream) -> A + Send + Sync + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        while let Some(stream) = listener.accept().await {
            tokio::spawn(service(stream));
        }
    });
}

/// Has hyper serve every stream.
pub(crate) fn serve_http<F, A, B>(listener: Listener, service: F)
where
    F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
    A: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let service = Arc::new(service);
    serve_streams(listener, move |stream| {
        let service = Arc::clone(&service);
        async move {
            let service = service_fn(move |request| {
                let response = service(request);
                async move { Ok::<_, Infallible>(response.await) }
            });
            let _ = server::Builder::new().serve_connection(stream, service).await;
        }
    });
}

/// A manager, and its proxy with every default.
pub(crate) fn manager() -> (ConnectionManager, ProxyBuilder) {
    let connman = ConnectionManager::new();
    let proxy = Proxy::builder(connman.clone());
    (connman, proxy)
}

/// A connection to a host of plain hyper that forwards everything to the agent's default target.
pub(crate) fn host(proxy: &Proxy<Incoming>) -> DuplexStream {
    host_of(proxy, TargetName::default())
}

/// The same to another target.
pub(crate) fn host_of(proxy: &Proxy<Incoming>, target: TargetName) -> DuplexStream {
    let (near, far) = tokio::io::duplex(256 * 1024);
    tokio::spawn(serve_host(proxy, target, TokioIo::new(far)));
    near
}

/// Serves one connection of the host's.
pub(crate) fn serve_host<T>(proxy: &Proxy<Incoming>, target: TargetName, io: T) -> impl Future<Output = ()> + use<T>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(to(proxy.clone(), target));
    let connection = server::Builder::new().serve_connection(io, service).with_upgrades();
    async move {
        let _ = connection.await;
    }
}

/// The same as hyper serves it if one forgets to ask for upgrades.
pub(crate) fn serve_host_without_upgrades<T>(proxy: &Proxy<Incoming>, io: T) -> impl Future<Output = ()> + use<T>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(to(proxy.clone(), TargetName::default()));
    let connection = server::Builder::new().serve_connection(io, service);
    async move {
        let _ = connection.await;
    }
}

/// The proxy as a service that sends everything to this target of `a`.
pub(crate) fn to(
    proxy: Proxy<Incoming>,
    target: TargetName,
) -> tower::util::MapRequest<Proxy<Incoming>, impl FnMut(Request<Incoming>) -> Request<Incoming> + Clone + Send> {
    tower::util::MapRequest::new(proxy, move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Destination::new(key(), target.clone()));
        request
    })
}

/// Sends a request by hyper's client over a connection of its own.
pub(crate) async fn send<B>(io: DuplexStream, request: Request<B>) -> Response<Incoming>
where
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let (mut sender, connection) = client::handshake(TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.unwrap()
}

/// A request without a body.
pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "gateway").body(Full::default()).unwrap()
}

/// The body as text.
pub(crate) async fn text<B>(body: B) -> Result<String, B::Error>
where
    B: Body<Data = Bytes>,
{
    Ok(String::from_utf8(body.collect().await?.to_bytes().to_vec()).unwrap())
}

/// What of an answer a test of failures looks at: status, `Retry-After`, text.
pub(crate) async fn verdict(response: Response<ProxyBody>) -> (u16, bool, String) {
    let retry_after = response.headers().contains_key("retry-after");
    (response.status().as_u16(), retry_after, text(response.into_body()).await.unwrap())
}

/// Sends a request as raw bytes and gives the answer's head.
pub(crate) async fn exchange(io: &mut DuplexStream, request: &str) -> String {
    AsyncWriteExt::write_all(io, request.as_bytes()).await.unwrap();
    head(io).await
}

/// Reads one head, with its empty line, byte for byte and no byte further.
pub(crate) async fn head(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = BytesMut::new();
    while !head.ends_with(b"\r\n\r\n") {
        match AsyncReadExt::read_u8(io).await {
            Ok(byte) => head.extend([byte]),
            Err(_) => break,
        }
    }
    String::from_utf8(head.to_vec()).unwrap()
}

/// What a raw service saw of each request: its head.
pub(crate) type Heads = mpsc::UnboundedReceiver<String>;

/// A raw service: tells each head that it gets, and answers with these bytes.
pub(crate) fn serve_raw(listener: Listener, answer: &'static str) -> Heads {
    let (seen, heads) = mpsc::unbounded_channel();
    serve_streams(listener, move |mut stream| {
        let seen = seen.clone();
        async move {
            loop {
                let head = head(&mut stream).await;
                if head.is_empty() {
                    return;
                }
                let _ = seen.send(head);
                let _ = AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await;
            }
        }
    });
    heads
}

/// An answer without a body.
pub(crate) const EMPTY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

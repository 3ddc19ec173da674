//! A gateway and agents of a service, each a process, with a proxy in front of the gateway.

use std::{net::SocketAddr, time::Duration};

use axum::body::Body;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Method, Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::{
    middlebox::{Kind, Middlebox, Settings},
    process::{DEADLINE, Program},
    service::Service,
};

/// What agents show.
const TOKEN: &str = "agents-secret";

/// From where proxies ask the gateway, as this machine chooses it.
pub(crate) const PROXY: &str = "127.0.0.1";

/// What callers show: behind a proxy all of them are strangers.
pub(crate) const CALLER: &str = "Bearer callers-secret";

/// Between two looks at `/stats`.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// All of it.
pub(crate) struct World {
    agents: Vec<Program>,
    pub(crate) middlebox: Middlebox,
    pub(crate) gateway: SocketAddr,
    pub(crate) service: Service,
    flags: &'static str,
    client: Client<HttpConnector, Body>,
    _program: Program,
}

impl World {
    /// A world whose gateway and agents are started with these flags, and that has no agents yet.
    pub(crate) async fn new(kind: Kind, settings: Settings, flags: &'static str) -> Self {
        let mut program = Program::start(&format!(
            "gateway --listen 127.0.0.1:0 --token {TOKEN} --caller-token callers-secret --trusted-proxy {PROXY} {flags}"
        ));
        let line = program.line().await;
        let gateway = line.strip_prefix("listening on http://").expect("where it listens").parse().expect("an address");
        Self {
            agents: Vec::new(),
            middlebox: Middlebox::start(kind, gateway, settings).await,
            gateway,
            service: Service::new().await,
            flags,
            client: Client::builder(TokioExecutor::new()).build_http(),
            _program: program,
        }
    }

    /// Starts an agent whose way is the proxy, and waits until the gateway has it.
    pub(crate) async fn agent(&mut self, key: &str, protocol: &str) {
        let server = format!("http://{}", self.middlebox.faces.plain);
        self.agent_by(&server, key, protocol).await;
    }

    /// The same by another face of the proxy.
    pub(crate) async fn agent_by(&mut self, server: &str, key: &str, flags: &str) {
        let (forward, all) = (self.service.addr, self.flags);
        let command = format!("agent --server {server} --key {key} --token {TOKEN} --forward {forward} {all} {flags}");
        self.agents.push(Program::start(&command));
        self.until(DEADLINE, |stats| agent(stats, key)["state"] == "connected").await;
    }

    /// Waits until `/stats` shows something.
    pub(crate) async fn until(&self, within: Duration, seen: impl Fn(&Value) -> bool) -> Value {
        let looks = async {
            loop {
                let stats = self.stats().await;
                if seen(&stats) {
                    return stats;
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        match timeout(within, looks).await {
            Ok(stats) => stats,
            Err(_) => panic!("it does not come to that: {}", self.stats().await),
        }
    }

    pub(crate) async fn stats(&self) -> Value {
        serde_json::from_str(&text(self.get(self.gateway, "/stats").await).await).expect("JSON")
    }

    /// Asks by a pooled connection to this address, the gateway's own or one of the proxy's.
    pub(crate) async fn get(&self, at: SocketAddr, path: &str) -> Response<Incoming> {
        self.send(Method::GET, at, path, Body::empty()).await
    }

    pub(crate) async fn send(&self, method: Method, at: SocketAddr, path: &str, body: Body) -> Response<Incoming> {
        let request = Request::builder().method(method).uri(format!("http://{at}{path}")).header(AUTHORIZATION, CALLER);
        let request = request.body(body).unwrap();
        let response = timeout(DEADLINE, self.client.request(request)).await;
        response.unwrap_or_else(|_| panic!("{path}: no answer")).unwrap_or_else(|why| panic!("{path}: {why:?}"))
    }
}

/// What `/stats` says of a key.
pub(crate) fn agent<'a>(stats: &'a Value, key: &str) -> &'a Value {
    let agents = stats["agents"].as_array().expect("a list");
    agents.iter().find(|agent| agent["key"] == key).unwrap_or(&Value::Null)
}

/// The text of an answer that has to be a good one.
pub(crate) async fn text(response: Response<Incoming>) -> String {
    let status = response.status();
    let body = timeout(DEADLINE, response.into_body().collect()).await.expect("a body").expect("a whole body");
    let text = String::from_utf8(body.to_bytes().to_vec()).expect("text");
    assert_eq!(status, StatusCode::OK, "{text}");
    text
}

/// The next piece of a body.
pub(crate) async fn next(body: &mut Incoming) -> String {
    let frame = timeout(DEADLINE, body.frame()).await.expect("something, at once").expect("no end").expect("no error");
    String::from_utf8(frame.into_data().expect("data").to_vec()).expect("text")
}

/// A WebSocket to the echo behind an agent.
pub(crate) struct Echo<S = MaybeTlsStream<TcpStream>>(pub(crate) WebSocketStream<S>);

impl Echo {
    pub(crate) async fn open(at: SocketAddr, key: &str) -> Self {
        let mut request = format!("ws://{at}/proxy/{key}/echo").into_client_request().unwrap();
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static(CALLER));
        let opened = timeout(DEADLINE, connect_async(request)).await;
        Self(opened.expect("in time").expect("an upgrade").0)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Echo<S> {
    /// Says this and hears it back, and nothing else.
    pub(crate) async fn says(&mut self, word: &str) {
        self.0.send(Message::text(word)).await.expect("a WebSocket");
        let heard = timeout(DEADLINE, self.0.next()).await.expect("an echo").expect("no end").expect("no error");
        assert_eq!(heard, Message::text(word));
    }
}

//! The programs as their users have them: separate processes, talked to over sockets.

mod callers;
#[path = "../support/chaos.rs"]
#[expect(dead_code, reason = "the kill tests use the rest")]
mod chaos;
mod cookies;
#[cfg(target_os = "linux")]
mod descriptors;
mod dialback;
mod domain;
mod forwarded;
mod guesses;
mod life;
#[path = "../support/load.rs"]
mod load;
#[path = "../support/plan.rs"]
mod plan;
mod ports;
mod probe;
#[path = "../support/process.rs"]
mod process;
mod sandbox;
mod service;
mod settings;
mod status;
mod survive;
mod traffic;
mod tunnel;

use std::{net::SocketAddr, time::Duration};

use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use process::{DEADLINE, Program};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// What agents show.
const TOKEN: &str = "agents-secret";

/// Between two looks at `/stats`.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A running gateway, and a client of it.
struct Gateway {
    program: Program,
    addr: SocketAddr,
    client: Client<HttpConnector, Body>,
}

impl Gateway {
    async fn new() -> Self {
        Self::with("").await
    }

    async fn with(flags: &str) -> Self {
        Self::at("127.0.0.1:0", flags).await
    }

    async fn at(listen: &str, flags: &str) -> Self {
        Self::of(Program::start(&format!("gateway --listen {listen} --token {TOKEN} {flags}"))).await
    }

    /// One that was started.
    async fn of(mut program: Program) -> Self {
        let line = program.line().await;
        let addr = line.strip_prefix("listening on http://").expect("where it listens").parse().expect("an address");
        Self { program, addr, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// Starts an agent.
    fn agent(&self, key: &str, flags: &str) -> Program {
        Program::start(&format!("agent --server http://{} --key {key} --token {TOKEN} {flags}", self.addr))
    }

    /// Starts an agent that is connected.
    async fn connected(&self, key: &str, flags: &str) -> Program {
        let agent = self.agent(key, flags);
        self.until(|stats| state(stats, key) == Some("connected")).await;
        agent
    }

    async fn request(&self, request: Request<Body>) -> Response<Incoming> {
        let path = request.uri().clone();
        let response = timeout(DEADLINE, self.client.request(request)).await;
        response.unwrap_or_else(|_| panic!("{path}: no answer")).unwrap_or_else(|why| panic!("{path}: {why:?}"))
    }

    fn build(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("http://{}{path}", self.addr))
    }

    async fn get(&self, path: &str) -> Response<Incoming> {
        self.request(self.build(Method::GET, path).body(Body::empty()).unwrap()).await
    }

    /// The status and the text that a path has.
    async fn text(&self, path: &str) -> (StatusCode, String) {
        text(self.get(path).await).await
    }

    async fn stats(&self) -> Value {
        let (status, text) = self.text("/stats").await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Waits until `/stats` shows something.
    async fn until(&self, seen: impl Fn(&Value) -> bool) -> Value {
        let looks = async {
            loop {
                let stats = self.stats().await;
                if seen(&stats) {
                    return stats;
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        match timeout(DEADLINE, looks).await {
            Ok(stats) => stats,
            Err(_) => panic!("it does not come to that: {}", self.stats().await),
        }
    }

    /// Sends this and gives the head of the answer.
    async fn raw(&self, request: &str) -> String {
        raw(self.addr, request).await
    }
}

/// The state of a key in `/stats`.
fn state<'a>(stats: &'a Value, key: &str) -> Option<&'a str> {
    stats["agents"].as_array()?.iter().find(|agent| agent["key"] == key)?["state"].as_str()
}

async fn text(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = timeout(DEADLINE, response.into_body().collect()).await.expect("a body").expect("a whole body");
    (status, String::from_utf8(body.to_bytes().to_vec()).expect("text"))
}

async fn raw(addr: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(DEADLINE, socket.read_u8()).await.expect("an answer").expect("a whole head"));
    }
    String::from_utf8(head).expect("text").to_ascii_lowercase()
}

//! reqwest's requests and responses through a tunnel. Its client takes no connector, but its types are what any client
//! takes: here hyper-util's sends them. What reqwest's client does around a request (redirects, cookies, timeouts) is
//! then not there.
//!
//! ```sh
//! cargo run --example reqwest
//! ```

use std::time::Duration;

use axum::{Router, extract::Query, routing::post, serve::ListenerExt};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use reqwest::{Body, Request, Response};
use revdial::{
    Error, ErrorKind,
    agent::{Agent, AgentStatus, Listener},
    connector::RevDialConnector,
    connman::ConnectionManager,
    server::{RevDialLayer, SharedBearer},
};
use tokio::net::TcpListener;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Sends a request of reqwest's. The host of its URL is the key of an agent.
async fn send(client: &Client<RevDialConnector, Body>, request: Request) -> Result<Response, BoxError> {
    let response = client.request(request.try_into()?).await?;
    Ok(response.map(Body::wrap).into())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (connman, listener) = gateway_and_agent("desktop-1").await?;
    let greet = async |Query(query): Query<Vec<(String, String)>>, body: String| format!("{body}, {}", query[0].1);
    tokio::spawn(axum::serve(listener, Router::new().route("/greet", post(greet))).into_future());

    // One for all requests. Each idle connection is a stream, so none is kept for long.
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(15))
        .build(RevDialConnector::new(connman));

    // It only builds.
    let requests = reqwest::Client::new();
    let request = requests.post("http://desktop-1/greet?whom=world").body("hello").build()?;
    let response = send(&client, request).await?.error_for_status()?;
    let text = response.text().await?;
    println!("the sandbox says: {text}");
    assert_eq!(text, "hello, world");

    // What went wrong is found below hyper's error.
    let error = send(&client, requests.get("http://desktop-2/").build()?).await.err().ok_or("nobody is there")?;
    let error = Error::find(&*error).ok_or("not ours")?;
    println!("of desktop-2 there is {error}");
    assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::NoConnection, true));
    Ok(())
}

/// An app that agents dial in to, and one that has.
async fn gateway_and_agent(key: &str) -> Result<(ConnectionManager, Listener), BoxError> {
    let connman = ConnectionManager::new();
    let app = Router::new().layer(RevDialLayer::new(connman.clone(), SharedBearer::new("secret")?));
    let gateway = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", gateway.local_addr()?);
    tokio::spawn(axum::serve(gateway.tap_io(|stream| drop(stream.set_nodelay(true))), app).into_future());

    let agent = Agent::builder(url, key).token("secret").build()?;
    let mut status = agent.status();
    let (listener, run) = agent.listen();
    tokio::spawn(run);
    status.wait_for(AgentStatus::is_connected).await?;
    Ok((connman, listener))
}

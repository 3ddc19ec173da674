//! A tonic client calls a tonic server inside a sandbox, which listens nowhere: HTTP/2 in a stream of the tunnel.
//!
//! ```sh
//! cargo run --example tonic
//! ```

use axum::{Router, serve::ListenerExt};
use hyper::server::conn::http2;
use hyper_util::{rt::TokioExecutor, service::TowerToHyperService};
use revdial::{
    agent::{Agent, AgentStatus, Listener},
    connector::RevDialConnector,
    connman::ConnectionManager,
    server::{RevDialLayer, SharedBearer},
};
use tokio::net::TcpListener;
use tonic::transport::Endpoint;
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_check_response::ServingStatus as Answer, health_client::HealthClient},
    server::health_reporter,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (connman, mut listener) = gateway_and_agent("desktop-1").await?;

    // In the sandbox: tonic's services are tower services, served by hyper over each stream.
    let (desktop, health) = health_reporter();
    desktop.set_service_status("desktop", ServingStatus::Serving).await;
    tokio::spawn(async move {
        while let Some(stream) = listener.accept().await {
            let service = TowerToHyperService::new(health.clone());
            tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service));
        }
    });

    // Beside the gateway: the host of the URI is the agent's key. tonic connects again by itself when it must.
    let connector = RevDialConnector::new(connman);
    let channel = Endpoint::from_static("http://desktop-1").connect_with_connector(connector).await?;
    let mut client = HealthClient::new(channel);
    let request = HealthCheckRequest { service: "desktop".into() };

    let answer = client.check(request.clone()).await?.into_inner();
    println!("asked once, the desktop is {:?}", answer.status());
    assert_eq!(answer.status(), Answer::Serving);

    // And a stream of answers: each comes when it is sent.
    let mut updates = client.watch(request).await?.into_inner();
    assert_eq!(updates.message().await?.map(|update| update.status()), Some(Answer::Serving));
    desktop.set_service_status("desktop", ServingStatus::NotServing).await;
    let update = updates.message().await?.ok_or("the updates have ended")?;
    println!("watched, it becomes {:?}", update.status());
    assert_eq!(update.status(), Answer::NotServing);
    Ok(())
}

/// An app that agents dial in to, and one that has.
async fn gateway_and_agent(key: &str) -> Result<(ConnectionManager, Listener), Box<dyn std::error::Error>> {
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

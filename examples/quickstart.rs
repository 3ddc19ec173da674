//! The whole picture in one process: a gateway, two sandboxes that dial in, and a caller who reaches them.
//!
//! ```sh
//! cargo run --example quickstart
//! ```

#[path = "sandbox/app.rs"]
mod app;
#[path = "gateway/app/mod.rs"]
mod gateway;
#[path = "sandbox/picture.rs"]
mod picture;
#[path = "sandbox/websocket.rs"]
mod websocket;

use std::{net::SocketAddr, time::Duration};

use axum::serve::ListenerExt;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use metrics_exporter_prometheus::PrometheusBuilder;
use revdial::agent::{Agent, AgentStatus};
use tokio::{net::TcpListener, time::timeout};
use tokio_tungstenite::connect_async_with_config;

/// No step takes this long on one machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Small messages go out at once, on every socket.
const NODELAY: bool = true;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (gateway, addr) = start_gateway().await?;
    println!("the gateway listens on http://{addr}");
    for session in ["ada", "bob"] {
        start_sandbox(addr, &format!("desktop-{session}")).await?;
        println!("desktop-{session} has dialled in; it listens nowhere");
    }

    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(nodelay());
    let get = async |path: &str| -> Result<Bytes, Box<dyn std::error::Error>> {
        let response = timeout(PATIENCE, client.get(format!("http://{addr}{path}").parse()?)).await??;
        assert!(response.status().is_success(), "{path}: {}", response.status());
        Ok(timeout(PATIENCE, response.into_body().collect()).await??.to_bytes())
    };

    let png = get("/api/v1/external-agents/ada/screenshot").await?;
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"), "not a PNG");
    let file = std::env::temp_dir().join("revdial-quickstart.png");
    std::fs::write(&file, &png)?;
    println!("a screenshot of desktop-ada, {} bytes, is in {}", png.len(), file.display());

    let url = format!("ws://{addr}/api/v1/external-agents/bob/ws/stream");
    let (mut frames, _) = timeout(PATIENCE, connect_async_with_config(url, None, NODELAY)).await??;
    let mut seen = 0;
    let end = tokio::time::Instant::now() + Duration::from_secs(2);
    while let Ok(Some(frame)) = tokio::time::timeout_at(end, frames.next()).await {
        assert_eq!(frame?.to_text()?, format!("frame {seen}"), "frames come in order and none is missing");
        seen += 1;
    }
    assert!(seen > 0, "no frame came");
    println!("a stream from desktop-bob: {seen} frames in 2 s, the last still open:");

    println!("{}", serde_json::to_string_pretty(&serde_json::from_slice::<serde_json::Value>(&get("/stats").await?)?)?);
    drop(frames);
    gateway.drain(Duration::from_secs(1)).await;
    Ok(())
}

async fn start_gateway() -> Result<(gateway::Gateway, SocketAddr), Box<dyn std::error::Error>> {
    let gateway = gateway::Gateway::new(gateway::Settings {
        token: "secret".into(),
        caller_token: None,
        domain: None,
        trusted_proxy: None,
        grace: Duration::from_secs(30),
        dial_timeout: Duration::from_secs(10),
        ping_interval: Duration::from_secs(15),
        dead_after: Duration::from_secs(45),
        metrics: PrometheusBuilder::new().install_recorder()?,
    })?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(NODELAY)));
    let router = gateway.router.clone();
    tokio::spawn(axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).into_future());
    Ok((gateway, addr))
}

/// An axum app behind a tunnel, with no port of its own.
async fn start_sandbox(gateway: SocketAddr, key: &str) -> Result<(), Box<dyn std::error::Error>> {
    let agent = Agent::builder(format!("http://{gateway}"), key).token("secret").build()?;
    let mut status = agent.status();
    let (listener, run) = agent.listen();
    tokio::spawn(run);
    tokio::spawn(axum::serve(listener, app::router(key)).into_future());
    timeout(PATIENCE, status.wait_for(AgentStatus::is_connected)).await??;
    Ok(())
}

fn nodelay() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(NODELAY);
    connector
}

//! The gateway's routes, as `quickstart` uses them too.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{ConnectInfo, Path, Request, State},
    http::{StatusCode, Uri, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use metrics_exporter_prometheus::PrometheusHandle;
use revdial::{
    AgentKey, TargetName,
    connman::{ConnectionManager, FixedGrace},
    proto::SessionConfig,
    proxy::Proxy,
    server::{Authorize, Grant, Rejection, RevDialLayer, SharedBearer},
};
use serde_json::{Map, Value, json};

pub(crate) struct Settings {
    pub(crate) token: String,
    pub(crate) caller_token: Option<String>,
    pub(crate) grace: Duration,
    pub(crate) dial_timeout: Duration,
    pub(crate) ping_interval: Duration,
    pub(crate) dead_after: Duration,
    pub(crate) metrics: PrometheusHandle,
}

#[derive(Clone)]
struct App {
    connman: ConnectionManager,
    proxy: Proxy<Body>,
    metrics: PrometheusHandle,
    caller_token: Option<SharedBearer>,
}

/// The whole app: the tunnel's endpoint as a layer around routes that only callers may use.
pub(crate) fn router(settings: Settings) -> Result<(Router, ConnectionManager), revdial::Error> {
    let connman =
        ConnectionManager::builder().grace(FixedGrace::new(settings.grace)).dial_timeout(settings.dial_timeout).build();
    let session = SessionConfig {
        ping_interval: settings.ping_interval,
        dead_after: settings.dead_after,
        accept_timeout: settings.dial_timeout,
        ..SessionConfig::default()
    };
    let tunnels = RevDialLayer::new(connman.clone(), KnownPeer(SharedBearer::new(settings.token)?)).session(session)?;
    let app = App {
        connman: connman.clone(),
        // For X-Forwarded-For.
        proxy: Proxy::builder(connman.clone())
            .peer(|parts| parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|caller| caller.0.ip()))
            .build(),
        metrics: settings.metrics,
        caller_token: settings.caller_token.map(SharedBearer::new).transpose()?,
    };
    let router = Router::new()
        .route("/proxy/{*path}", any(by_path))
        .route("/api/v1/external-agents/{session}/screenshot", any(screenshot))
        .route("/api/v1/external-agents/{session}/ws/stream", any(stream))
        .route("/stats", get(stats))
        .route("/metrics", get(|State(app): State<App>| async move { app.metrics.render() }))
        .layer(middleware::from_fn_with_state(app.clone(), callers_only))
        .with_state(app)
        .layer(tunnels); // last, so that it sees every path and no caller's check
    Ok((router, connman))
}

/// What [`SharedBearer`] decides, with the address that the agent comes from: only axum knows it.
struct KnownPeer(SharedBearer);

impl Authorize for KnownPeer {
    async fn authorize(&self, parts: &Parts) -> Result<Grant, Rejection> {
        let grant = self.0.authorize(parts).await?;
        Ok(match parts.extensions.get::<ConnectInfo<SocketAddr>>() {
            Some(ConnectInfo(addr)) => grant.peer_addr(*addr),
            None => grant,
        })
    }
}

/// Callers show the caller's token; where there is none, they are on this machine.
async fn callers_only(
    State(app): State<App>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    match &app.caller_token {
        Some(token) if !token.accepts(request.headers()) => {
            return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")]).into_response();
        }
        // It was for us, and no sandbox shall have it.
        Some(_) => drop(request.headers_mut().remove(header::AUTHORIZATION)),
        None if !caller.ip().to_canonical().is_loopback() => return StatusCode::FORBIDDEN.into_response(),
        None => {}
    }
    next.run(request).await
}

/// `/proxy/{key}/{path}` and `/proxy/{target}~{key}/{path}`.
async fn by_path(State(app): State<App>, request: Request) -> Response {
    // The path as it came: an extractor would decode it, and a sandbox shall see what the caller sent.
    let path = request.uri().path().strip_prefix("/proxy/").unwrap_or_default();
    let (name, path) = path.split_at(path.find('/').unwrap_or(path.len()));
    let (target, key) = name.split_once('~').unwrap_or(("", name));
    let (target, key, path) = (target.to_owned(), key.to_owned(), if path.is_empty() { "/" } else { path }.to_owned());
    forward(&app, &key, &target, &path, request).await
}

async fn screenshot(State(app): State<App>, Path(session): Path<String>, request: Request) -> Response {
    forward(&app, &format!("desktop-{session}"), "", "/screenshot", request).await
}

async fn stream(State(app): State<App>, Path(session): Path<String>, request: Request) -> Response {
    forward(&app, &format!("desktop-{session}"), "", "/ws/stream", request).await
}

/// Sends the request to another path; its query stays, and its authority, which the proxy holds against `Host`.
async fn forward(app: &App, key: &str, target: &str, path: &str, mut request: Request) -> Response {
    let mut uri = request.uri().clone().into_parts();
    let path = request.uri().query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let (Ok(key), Ok(target), Ok(path)) = (key.parse::<AgentKey>(), target.parse::<TargetName>(), path.parse()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    uri.path_and_query = Some(path);
    match Uri::from_parts(uri) {
        Ok(uri) => *request.uri_mut() = uri,
        Err(_) => return StatusCode::BAD_REQUEST.into_response(),
    }
    app.proxy.forward(&key, &target, request).await.into_response()
}

/// Counts, and a line for each sandbox.
async fn stats(State(app): State<App>) -> Json<Value> {
    Json(report(&app.connman))
}

fn report(connman: &ConnectionManager) -> Value {
    let stats = connman.stats();
    let agents: Vec<Value> = connman
        .list()
        .into_iter()
        .map(|agent| {
            json!({
                "key": agent.key.as_str(),
                "state": agent.state.as_str(),
                "since_seconds": agent.since.as_secs_f64(),
                "grace_left_seconds": agent.grace_left.map(|left| left.as_secs_f64()),
                "peer": agent.peer_addr.map(|addr| addr.to_string()),
                "protocol": agent.protocol.as_str(),
                "version": agent.agent_version,
                "labels": agent.labels.into_iter().map(|(name, value)| (name, Value::from(value))).collect::<Map<_, _>>(),
                "rtt_seconds": agent.rtt.map(|rtt| rtt.as_secs_f64()),
                "streams": agent.streams,
                "sent_bytes": agent.sent_bytes,
                "received_bytes": agent.received_bytes,
                "reconnects": agent.reconnects,
                "last_cause": agent.last_cause.map(|cause| cause.to_string()),
            })
        })
        .collect();
    json!({
        "active_connections": stats.active_connections,
        "grace_period_entries": stats.grace_period_entries,
        "pending_dials_total": stats.pending_dials_total,
        "pending_dials_keys": stats.pending_dials_keys,
        "streams": stats.streams,
        "sent_bytes": stats.sent_bytes,
        "received_bytes": stats.received_bytes,
        "agents": agents,
    })
}

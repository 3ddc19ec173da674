//! The gateway as an axum app, as `quickstart` has it too.
//!
//! | | |
//! | --- | --- |
//! | [`callers`] | who may use it: by token, by cookie, from this machine |
//! | [`guesses`] | how often callers may show a wrong token |
//! | [`cookies`] | the gateway's cookie, and what sandboxes may say of cookies |
//! | [`peer`] | from where a request comes, also through a proxy, and which proxy is believed |
//! | [`paths`] | sandboxes below paths of the gateway |
//! | [`domain`] | sandboxes at host names of their own |
//! | [`fleet`] | what `/stats` tells |
//! | [`events`] | what `/events` tells, as it happens |
//! | [`page`] | the status page's files |
//! | [`phase`] | serving, draining, stopped; `/healthz` and `/readyz` |

mod callers;
mod cookies;
mod domain;
mod events;
mod fleet;
mod guesses;
mod page;
mod paths;
mod peer;
mod phase;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    middleware::{from_fn_with_state, map_response},
    routing::{any, get, post},
};
use metrics_exporter_prometheus::PrometheusHandle;
use revdial::{
    connman::{ConnectionManager, FixedGrace},
    proto::SessionConfig,
    proxy::Proxy,
    server::{RevDialLayer, SharedBearer},
};

pub(crate) use self::domain::Domain;
use self::{callers::Callers, events::Places, phase::Phase};

pub(crate) struct Settings {
    pub(crate) token: String,
    pub(crate) caller_token: Option<String>,
    pub(crate) domain: Option<Domain>,
    pub(crate) trusted_proxy: Option<IpAddr>,
    pub(crate) grace: Duration,
    pub(crate) dial_timeout: Duration,
    pub(crate) ping_interval: Duration,
    pub(crate) dead_after: Duration,
    pub(crate) metrics: PrometheusHandle,
}

/// What the routes work with.
#[derive(Clone)]
struct App {
    connman: ConnectionManager,
    proxy: Proxy<Body>,
    callers: Callers,
    domain: Option<Domain>,
    trusted_proxy: Option<IpAddr>,
    listeners: Places,
    phase: Phase,
    metrics: PrometheusHandle,
    started: Instant,
}

/// An app that can be served, and told to go down.
pub(crate) struct Gateway {
    pub(crate) router: Router,
    pub(crate) connman: ConnectionManager,
    phase: Phase,
}

impl Gateway {
    pub(crate) fn new(settings: Settings) -> Result<Self, revdial::Error> {
        let phase = Phase::new();
        let connman = ConnectionManager::builder()
            .grace(FixedGrace::new(settings.grace))
            .dial_timeout(settings.dial_timeout)
            .build();
        let session = SessionConfig {
            ping_interval: settings.ping_interval,
            dead_after: settings.dead_after,
            accept_timeout: settings.dial_timeout,
            ..SessionConfig::default()
        };
        let agents = SharedBearer::new(settings.token)?;
        let tunnels = RevDialLayer::new(connman.clone(), agents).session(session)?.peer_addr(peer::of);
        let app = App {
            connman: connman.clone(),
            proxy: Proxy::builder(connman.clone()).peer(peer::of_connection).trusted(peer::is_trusted).build(),
            callers: Callers::new(settings.caller_token, settings.domain.clone())?,
            domain: settings.domain,
            trusted_proxy: settings.trusted_proxy,
            listeners: Places::new(),
            phase: phase.clone(),
            metrics: settings.metrics,
            started: Instant::now(),
        };
        let router = routes(&app)
            .with_state(app.clone())
            .layer(tunnels) // after the routes, so that it sees every path and no caller's check
            .layer(from_fn_with_state(app.clone(), domain::by_host)) // at a sandbox's host name every path is its own
            .layer(from_fn_with_state(app, peer::behind_the_proxy)); // last: all others ask where a request comes from
        Ok(Self { router, connman, phase })
    }

    /// Sandboxes move on, requests that run through tunnels finish or end, and with them their connections.
    pub(crate) async fn drain(&self, deadline: Duration) {
        self.phase.set(phase::Stage::Draining);
        self.connman.drain(deadline).await;
        self.phase.set(phase::Stage::Stopped);
    }
}

fn routes(app: &App) -> Router<App> {
    let own = Router::new()
        .route("/", get(page::status))
        .route("/stats", get(fleet::stats))
        .route("/events", get(events::subscribe))
        .route("/metrics", get(|State(app): State<App>| async move { app.metrics.render() }));
    let sandboxes = Router::new()
        .route("/proxy/{*path}", any(paths::by_path))
        .route("/api/v1/external-agents/{session}/screenshot", any(paths::screenshot))
        .route("/api/v1/external-agents/{session}/ws/stream", any(paths::stream))
        .layer(map_response(paths::without_an_origin))
        .layer(map_response(cookies::confined_below_a_path));
    // Whatever asks these has no token, and learns a word that says nothing about anybody.
    let open = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(phase::readiness))
        .route(callers::LOGIN, post(callers::login))
        .route(page::SCRIPT, get(page::script))
        .route(page::STYLE, get(page::style));
    let guarded = map_response(page::guarded);
    own.layer(guarded.clone())
        .merge(sandboxes)
        .layer(from_fn_with_state(app.clone(), callers::only))
        .merge(open.layer(guarded))
}

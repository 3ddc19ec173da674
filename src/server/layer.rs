//! The layer and its settings.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use http::request::Parts;
use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use tokio::sync::Semaphore;
use tower::Layer;

use super::{
    authorize::Authorize,
    future::LinkTask,
    gate::Gate,
    service::{NotFound, RevDialService},
    throttle::Throttle,
};
use crate::{
    connman::ConnectionManager,
    error::{Error, ErrorKind},
    proto::SessionConfig,
};

/// Where tunnels are opened if nobody says otherwise.
const DEFAULT_PATH: &str = "/api/v1/revdial";

/// How long a step of the handshake may take.
const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshakes under way at once. At a tenth of a second each, 10,000 a second; each may hold a message of 64 KiB.
const DEFAULT_MAX_HANDSHAKES: usize = 1024;

/// Failed authentications of one address at once, and how often one more. Agents whose token is refused try again each
/// 30 to 60 s, so that even 200 of them behind one address leave it open for the others there; and eight random letters
/// would take centuries to guess.
const DEFAULT_AUTH_FAILURES: (u32, Duration) = (50, Duration::from_millis(200));

/// Puts tunnels into a tower stack, on one path. See [the module](crate::server) for where it goes in hyper and axum.
///
/// What it makes shares its settings, and so does a clone.
///
/// ```
/// use revdial::{connman::ConnectionManager, proto::SessionConfig, server::{KeyedBearer, RevDialLayer}};
///
/// let connman = ConnectionManager::new();
/// let layer = RevDialLayer::new(connman, KeyedBearer::new("secret")?)
///     .at("/tunnel")?
///     .allow_origin("https://console.example")
///     .session(SessionConfig::default())?;
/// assert!(layer.at("tunnel").is_err());
/// # Ok::<(), revdial::Error>(())
/// ```
pub struct RevDialLayer<A> {
    gate: Arc<Gate<A>>,
}

impl<A: Authorize> RevDialLayer<A> {
    /// Tunnels at `/api/v1/revdial`, registered with `connman`, for those whom `authorize` lets in.
    pub fn new(connman: ConnectionManager, authorize: A) -> Self {
        let gate = Gate {
            connman,
            authorize: Arc::new(authorize),
            path: DEFAULT_PATH.to_owned(),
            origins: Vec::new(),
            session: SessionConfig::default(),
            handshake_timeout: DEFAULT_HANDSHAKE_TIMEOUT,
            handshakes: Arc::new(Semaphore::new(DEFAULT_MAX_HANDSHAKES)),
            pickups: Arc::new(Semaphore::new(DEFAULT_MAX_HANDSHAKES)),
            throttle: Arc::new(Throttle::new(DEFAULT_AUTH_FAILURES.0, DEFAULT_AUTH_FAILURES.1)),
            peer_addr: None,
            executor: Arc::new(TokioExecutor::new()),
        };
        Self { gate: Arc::new(gate) }
    }

    /// The path, compared exactly with that of the request as the layer sees it: a router that nests may have
    /// stripped a prefix. Default `/api/v1/revdial`.
    ///
    /// # Errors
    /// `InvalidInput` when no request can have this path.
    pub fn at(self, path: &str) -> Result<Self, Error> {
        let parsed = path.parse::<http::Uri>();
        if !path.starts_with('/') || !parsed.is_ok_and(|uri| uri.path() == path) {
            return Err(Error::with_source(ErrorKind::InvalidInput, "the setting path of RevDialLayer is no path"));
        }
        Ok(self.with(|gate| path.clone_into(&mut gate.path)))
    }

    /// Lets pages of this origin (`https://host`, `https://host:port`) open tunnels; may be called for several.
    /// Default: none, any request with an `Origin` gets 403. Agents have none.
    #[must_use]
    pub fn allow_origin(self, origin: impl Into<String>) -> Self {
        self.with(|gate| gate.origins.push(origin.into()))
    }

    /// The bounds and intervals of the sessions. Default [`SessionConfig::default`].
    ///
    /// # Errors
    /// `InvalidInput` when settings cannot be; its source names the first.
    pub fn session(self, config: SessionConfig) -> Result<Self, Error> {
        config.validate().map_err(|error| Error::with_source(ErrorKind::InvalidInput, error))?;
        Ok(self.with(|gate| gate.session = config))
    }

    /// How long each of these may take: the judgement by [`Authorize`], the handing over of the connection by the
    /// host's server, the agent's HELLO. Default 10 s, seconds on a bad line and still short for a flood. The request's
    /// own head is the server's to bound (hyper's `header_read_timeout`).
    #[must_use]
    pub fn handshake_timeout(self, timeout: Duration) -> Self {
        self.with(|gate| gate.handshake_timeout = timeout)
    }

    /// How many requests may be on their way from the first check to WELCOME at once; more get 503 with `Retry-After`.
    /// Default 1,024: a fleet of 10,000 is back within seconds, and what handshakes hold stays below 64 MiB. 0 refuses
    /// all. Services made before the call keep their own count. How many tunnels there may be is for
    /// [`ConnectionManagerBuilder::max_tunnels`](crate::connman::ConnectionManagerBuilder::max_tunnels) to say.
    ///
    /// The connections that agents of the dial-back protocol are asked for have as many places of their own, so that
    /// no dial fails for a herd of agents that come back.
    #[must_use]
    pub fn max_handshakes(self, handshakes: usize) -> Self {
        let places = || Arc::new(Semaphore::new(handshakes.min(Semaphore::MAX_PERMITS)));
        self.with(|gate| (gate.handshakes, gate.pickups) = (places(), places()))
    }

    /// How many authentications may fail (401) that come from one address: `burst` at once, at least one, and then one
    /// more in each `every`. What comes from there beyond that gets 429 with `Retry-After`, and nobody is asked about
    /// it. Default 50 and 200 ms: 200 agents with bad tokens behind one address do not reach it, and no token is guessed
    /// at that rate. `u32::MAX` is no limit. Services made before the call keep their own count.
    ///
    /// A failure counts from its verdict on. Where an [`Authorize`] takes its time, more than `burst` may be judged side by
    /// side, as many as [`max_handshakes`](Self::max_handshakes) has places; what fails of these beyond the burst is owed:
    /// nobody from there is listened to until it is paid back at the rate, an hour at the most. So the rate holds however
    /// many come at once, and a fleet with good credentials behind one address is never refused for its number.
    ///
    /// Addresses are what [`peer_addr`](Self::peer_addr) says; of IPv6, the first 64 bits count. All that come from no
    /// known address share one count, and so do those for whom there is no room beside 4,096 others. Since that may be
    /// anybody, each of them is judged all the same: good credentials are good, and only bad ones get 429.
    #[must_use]
    pub fn max_auth_failures(self, burst: u32, every: Duration) -> Self {
        self.with(|gate| gate.throttle = Arc::new(Throttle::new(burst, every)))
    }

    /// Tells from where a request comes: for [`max_auth_failures`](Self::max_auth_failures), for the log, and for lists
    /// of tunnels whose grants do not say. Default: it is not known, since only the host does; a header that proxies set
    /// can be set by anybody where there is no proxy.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use axum::extract::ConnectInfo;
    /// use revdial::{connman::ConnectionManager, server::{KeyedBearer, RevDialLayer}};
    ///
    /// // Below `into_make_service_with_connect_info::<SocketAddr>()`.
    /// let layer = RevDialLayer::new(ConnectionManager::new(), KeyedBearer::new("secret")?)
    ///     .peer_addr(|parts| parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0));
    /// # Ok::<(), revdial::Error>(())
    /// ```
    #[must_use]
    pub fn peer_addr(self, addr: impl Fn(&Parts) -> Option<SocketAddr> + Send + Sync + 'static) -> Self {
        self.with(|gate| gate.peer_addr = Some(Arc::new(addr)))
    }

    /// Where the task of each tunnel runs, from its 101 to its end. Default `tokio::spawn`. Its timers are tokio's, so
    /// it has to be run by a tokio runtime; dropping it ends the tunnel as a lost one.
    #[must_use]
    pub fn executor(self, executor: impl Executor<LinkTask> + Send + Sync + 'static) -> Self {
        self.with(|gate| gate.executor = Arc::new(executor))
    }

    /// The service on its own, for `Router::route_service` and bare hyper. Requests on other paths get 404.
    #[must_use]
    pub fn into_service(self) -> RevDialService<NotFound, A> {
        self.layer(NotFound::default())
    }

    fn with(mut self, change: impl FnOnce(&mut Gate<A>)) -> Self {
        change(Arc::make_mut(&mut self.gate));
        self
    }
}

impl<S, A> Layer<S> for RevDialLayer<A> {
    type Service = RevDialService<S, A>;

    fn layer(&self, inner: S) -> Self::Service {
        RevDialService::new(inner, Arc::clone(&self.gate))
    }
}

/// By hand, since `A` need not be `Clone`.
impl<A> Clone for RevDialLayer<A> {
    fn clone(&self) -> Self {
        Self { gate: Arc::clone(&self.gate) }
    }
}

impl<A> fmt::Debug for RevDialLayer<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RevDialLayer").field(&self.gate).finish()
    }
}

//! How a proxy is set up.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderValue, StatusCode, request::Parts};
use http_body::Body;

use super::{
    service::{BoxError, Proxy},
    status::status_of,
};
use crate::{connman::ConnectionManager, error::ErrorKind};

/// What the host knows of a request.
type Ask<T> = dyn Fn(&Parts) -> T + Send + Sync;

/// What the service behind the agent sees as `Host`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum HostPolicy {
    /// What the caller sent. Default.
    #[default]
    Preserve,
    /// The name of the target, as in URIs: `KEY` or `TARGET~KEY`.
    Target,
    /// Always this.
    Fixed(HeaderValue),
}

/// Sets a proxy up; made by [`Proxy::builder`].
#[must_use = "a builder does nothing before it is built"]
#[derive(Clone)]
pub struct ProxyBuilder {
    connman: ConnectionManager,
    settings: Settings,
}

/// The settings of a proxy.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) idle_timeout: Duration,
    pub(super) max_idle: usize,
    pub(super) dial_timeout: Option<Duration>,
    pub(super) early_data: bool,
    pub(super) host: HostPolicy,
    pub(super) https: bool,
    /// The status for a key that was never there.
    pub(super) absent: StatusCode,
    pub(super) peer: Arc<Ask<Option<IpAddr>>>,
    pub(super) trusted: Arc<Ask<bool>>,
}

impl ProxyBuilder {
    pub(super) fn new(connman: ConnectionManager) -> Self {
        let settings = Settings {
            // Below the keep-alive times that servers commonly have, so that this side closes first.
            idle_timeout: Duration::from_secs(15),
            max_idle: 8,
            dial_timeout: None,
            early_data: true,
            host: HostPolicy::default(),
            https: false,
            absent: status_of(ErrorKind::NoConnection),
            peer: Arc::new(|parts| parts.extensions.get::<SocketAddr>().map(SocketAddr::ip)),
            trusted: Arc::new(|_| false),
        };
        Self { connman, settings }
    }

    /// How long an idle connection is kept for the next request. Each is an open stream. Default 15 s.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.idle_timeout = timeout;
        self
    }

    /// How many idle connections are kept for each target of each agent, and as many for requests with a
    /// [`MaxWait`](super::MaxWait), which have a pool of their own. Default 8; 0 keeps none.
    pub fn max_idle(mut self, connections: usize) -> Self {
        self.settings.max_idle = connections;
        self
    }

    /// A deadline over each dial, waiting for an agent to come back included; then the answer is 504. Default: the
    /// connection manager's grace and dial timeout alone.
    ///
    /// With [early data](Self::early_data), which is the default, a dial ends when there is a tunnel. How long its agent
    /// may then take to answer is the session's [`accept_timeout`](crate::proto::SessionConfig::accept_timeout), 10 s,
    /// after which the answer is 504 too: set both. Without early data this deadline is over the answer as well.
    pub fn dial_timeout(mut self, timeout: Duration) -> Self {
        self.settings.dial_timeout = Some(timeout);
        self
    }

    /// Whether a request leaves together with the opening of its stream, which saves a round trip. Default: yes.
    ///
    /// If not, requests wait for the agent to have reached the target. A session that turns out to be dead has then
    /// got no byte of the request, which waits for the agent's return instead of failing with
    /// [`SessionLost`](ErrorKind::SessionLost); and the connection manager's dial timeout counts until then.
    pub fn early_data(mut self, yes: bool) -> Self {
        self.settings.early_data = yes;
        self
    }

    /// What the service sees as `Host`. Default [`HostPolicy::Preserve`].
    pub fn host(mut self, policy: HostPolicy) -> Self {
        self.settings.host = policy;
        self
    }

    /// Whether callers reach the host by https, which `X-Forwarded-Proto` then says. Default: no.
    pub fn https(mut self, yes: bool) -> Self {
        self.settings.https = yes;
        self
    }

    /// Whether [`NoConnection`](ErrorKind::NoConnection) is a 404 for a key that was never connected. Default: 503 with
    /// `Retry-After`, which it is in any case for one that is [gone](crate::connman::Gone) and may come back. After the
    /// start of a server no key was connected yet; a [boot grace] waits for those that are about to come.
    ///
    /// [boot grace]: crate::connman::ConnectionManagerBuilder::boot_grace
    pub fn absent_is_not_found(mut self, yes: bool) -> Self {
        self.settings.absent = if yes { StatusCode::NOT_FOUND } else { status_of(ErrorKind::NoConnection) };
        self
    }

    /// How the caller's address is known, for `X-Forwarded-For`. Default: a [`SocketAddr`] in the request's
    /// extensions. Runs on the caller's task and must not block. One that panics costs its request a 500, of kind
    /// [`Internal`](ErrorKind::Internal), and is counted in `revdial_callback_failures_total`.
    ///
    /// ```
    /// use std::net::SocketAddr;
    ///
    /// use axum::{body::Body, extract::ConnectInfo};
    /// use revdial::{connman::ConnectionManager, proxy::Proxy};
    ///
    /// let proxy: Proxy<Body> = Proxy::builder(ConnectionManager::new())
    ///     .peer(|parts| parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip()))
    ///     .build();
    /// # let _ = proxy;
    /// ```
    pub fn peer(mut self, peer: impl Fn(&Parts) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        self.settings.peer = Arc::new(peer);
        self
    }

    /// Whose `X-Forwarded-*`, `Forwarded` and `X-Real-IP` are passed on, because it is a proxy of one's own: its
    /// address is then appended to `X-Forwarded-For`, and `-Host` and `-Proto` are set only where missing. Default:
    /// nobody's. Runs as [`peer`](Self::peer) does.
    pub fn trusted(mut self, trusted: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.settings.trusted = Arc::new(trusted);
        self
    }

    /// A proxy for requests with bodies of this type.
    #[must_use]
    pub fn build<B>(self) -> Proxy<B>
    where
        B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        Proxy::with(self.connman, self.settings)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { idle_timeout, max_idle, dial_timeout, early_data, host, https, absent, peer: _, trusted: _ } = self;
        f.debug_struct("Settings")
            .field("idle_timeout", idle_timeout)
            .field("max_idle", max_idle)
            .field("dial_timeout", dial_timeout)
            .field("early_data", early_data)
            .field("host", host)
            .field("https", https)
            .field("absent", absent)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ProxyBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}

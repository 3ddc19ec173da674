//! The connector: a URI to a stream through the tunnel of the key that it names.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use tower_service::Service;

use super::{future::Connecting, target::Target};
use crate::{
    callback::guarded,
    connman::ConnectionManager,
    error::{Error, ErrorKind},
    tunnel::TunnelStream,
};

/// What a URI means, by default [`Target::of`].
type MapUri = dyn Fn(&Uri) -> Result<Target, Error> + Send + Sync;

/// A `Service<Uri>` that connects through tunnels, for hyper-util's client, tonic and whoever takes one. Cheap to clone.
///
/// A connect resolves when the agent has reached the target, so that a refusal is a connect error and safe to retry;
/// [`early_data`](Self::early_data) does not wait. See [the module](crate::connector) for an example.
#[derive(Clone)]
pub struct RevDialConnector {
    connman: ConnectionManager,
    map_uri: Option<Arc<MapUri>>,
    timeout: Option<Duration>,
    max_wait: Option<Duration>,
    early_data: bool,
}

impl RevDialConnector {
    /// Connects through the tunnels of this connection manager.
    #[must_use]
    pub const fn new(connman: ConnectionManager) -> Self {
        Self { connman, map_uri: None, timeout: None, max_wait: None, early_data: false }
    }

    /// Whether a connect resolves before the agent has answered, which saves a round trip. A refusal is then an error of
    /// the first read or write; [`Error::find`] finds it below hyper's. Default: no.
    #[must_use]
    pub fn early_data(self, yes: bool) -> Self {
        Self { early_data: yes, ..self }
    }

    /// The caller's deadline over all of a connect, waiting for an agent to come back included. Default: none beside
    /// the connection manager's.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// How long a connect waits for a tunnel at the most, whatever the connection manager's policy would give; zero: not
    /// at all. See [`Dial::max_wait`](crate::connman::Dial::max_wait). Default: as the policy says.
    #[must_use]
    pub fn max_wait(self, most: Duration) -> Self {
        Self { max_wait: Some(most), ..self }
    }

    /// What a URI means, instead of [`Target::of`].
    ///
    /// Pools, as hyper-util's, share connections between URIs of one authority: the mapping must not look further. It
    /// runs on the caller's task at each connect and must not block. One that panics fails its connect with
    /// [`Internal`](ErrorKind::Internal), and is counted in `revdial_callback_failures_total`.
    ///
    /// ```
    /// use revdial::{connman::ConnectionManager, connector::{RevDialConnector, Target}};
    ///
    /// // Everything at this connector is the VNC of the host's agent.
    /// let connector = RevDialConnector::new(ConnectionManager::new()).map_uri(|uri| {
    ///     Ok(Target::new(Target::of(uri)?.key().clone(), "vnc".parse().unwrap_or_default()))
    /// });
    /// # let _ = connector;
    /// ```
    #[must_use]
    pub fn map_uri(self, map: impl Fn(&Uri) -> Result<Target, Error> + Send + Sync + 'static) -> Self {
        Self { map_uri: Some(Arc::new(map)), ..self }
    }
}

impl Service<Uri> for RevDialConnector {
    type Response = TunnelStream;
    type Error = Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(())) // what may wait is bounded by the connection manager
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let target = match &self.map_uri {
            Some(map) => guarded("RevDialConnector::map_uri", || map(&uri)).unwrap_or_else(|| Err(panicked())),
            None => Target::of(&uri),
        };
        match target {
            Ok(target) => {
                let mut dial = self.connman.dial(target.key(), target.target()).early_data(self.early_data);
                if let Some(most) = self.max_wait {
                    dial = dial.max_wait(most);
                }
                if let Some(timeout) = self.timeout {
                    dial = dial.timeout(timeout);
                }
                Connecting::dialing(dial)
            }
            Err(error) => Connecting::failed(error),
        }
    }
}

fn panicked() -> Error {
    Error::with_source(ErrorKind::Internal, "the mapping of URIs panicked")
}

impl fmt::Debug for RevDialConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connman, map_uri, timeout, max_wait, early_data } = self;
        f.debug_struct("RevDialConnector")
            .field("connman", connman)
            .field("maps_uris", &map_uri.is_some())
            .field("timeout", timeout)
            .field("max_wait", max_wait)
            .field("early_data", early_data)
            .finish()
    }
}

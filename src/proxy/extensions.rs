//! What a host says of a request in its extensions: whom it is for, and how long it waits.

use std::time::Duration;

use crate::{
    connector::Target,
    key::{AgentKey, TargetName},
};

/// Whom a request is for, in its extensions: what [`Proxy`](super::Proxy) as a
/// [`Service`](tower_service::Service) asks for.
///
/// ```
/// use http::Request;
/// use revdial::proxy::Destination;
///
/// let mut request = Request::new(());
/// request.extensions_mut().insert(Destination::new("desktop-7".parse()?, "vnc".parse()?));
/// # Ok::<(), revdial::InvalidName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Destination {
    /// The agent.
    pub key: AgentKey,
    /// What to reach behind it.
    pub target: TargetName,
}

impl Destination {
    /// This target of this key's agent.
    #[must_use]
    pub const fn new(key: AgentKey, target: TargetName) -> Self {
        Self { key, target }
    }
}

/// How long a request waits for its agent to be connected, in its extensions; zero: not at all. Then the answer is that of
/// [`NoConnection`](crate::ErrorKind::NoConnection) or [`ReconnectTimeout`](crate::ErrorKind::ReconnectTimeout). Without
/// it, as long as the connection manager's policy says.
///
/// It bounds all of a request's waiting: an agent that is lost after it was found is waited for only as long as is left,
/// and not at all by a connection that the pool opens. The connection manager's dial timeout counts besides, for the
/// agent's answer to an open, as of a [`Dial`](crate::connman::Dial::max_wait). What was sent with the open, as
/// [early data](crate::proxy::ProxyBuilder::early_data) is, waits no more: it is under way as any other request.
///
/// ```
/// use std::time::Duration;
///
/// use http::Request;
/// use revdial::proxy::MaxWait;
///
/// let mut request = Request::new(());
/// request.extensions_mut().insert(MaxWait::new(Duration::ZERO)); // no wait for an agent that is away
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxWait(pub(super) Duration);

impl MaxWait {
    /// So long.
    #[must_use]
    pub const fn new(most: Duration) -> Self {
        Self(most)
    }
}

impl From<Target> for Destination {
    fn from(target: Target) -> Self {
        Self::new(target.key().clone(), target.target().clone())
    }
}

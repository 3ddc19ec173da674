//! Who may open a tunnel, and under which key: a request's parts to a grant or a rejection.

use std::{future::Future, time::Duration};

use http::request::Parts;

use super::{grant::Grant, rejection::Rejection};

/// Decides who may open a tunnel. There is no layer without one.
///
/// Key and principal of the [`Grant`] have to come from the same verified object: a token, a certificate, a session
/// of the host's. [`requested_key`](crate::server::requested_key) reads the key that the agent asks for.
///
/// A closure `Fn(&Parts) -> Result<Grant, Rejection>` is one; whoever has to ask a database implements the trait,
/// with an `async fn`. Ready-made are [`KeyedBearer`](crate::server::KeyedBearer) and
/// [`SharedBearer`](crate::server::SharedBearer).
///
/// ```
/// use http::request::Parts;
/// use revdial::server::{Authorize, Grant, Rejection, requested_key};
///
/// struct Directory;
///
/// impl Authorize for Directory {
///     async fn authorize(&self, parts: &Parts) -> Result<Grant, Rejection> {
///         let Some(user) = parts.headers.get("x-verified-user").and_then(|user| user.to_str().ok()) else {
///             return Err(Rejection::unauthorized());
///         };
///         Ok(Grant::new(requested_key(parts)?, user))
///     }
/// }
/// ```
///
/// # When it runs
/// Once for each request on the tunnel's path that is a WebSocket upgrade, on the task that serves the request, and
/// before the upgrade is answered. It must not block. One that panics costs its request a 500, one that takes longer
/// than the layer's handshake timeout a 408; nothing else is touched.
///
/// # Cancel safety
/// The futures are dropped at the timeout, and when the agent goes away.
pub trait Authorize: Send + Sync + 'static {
    /// Judges one request. Its extensions are those that the host's server and outer layers have set.
    fn authorize(&self, parts: &Parts) -> impl Future<Output = Result<Grant, Rejection>> + Send;

    /// Judges again a tunnel that is open, as often as its grant asks for by
    /// [`recheck_every`](Grant::recheck_every), which is not at all by default. What it has to go by is the grant.
    ///
    /// The default says that the tunnel may stay. One that panics, or takes longer than the layer's handshake timeout,
    /// is counted in `revdial_callback_failures_total` and asked again the next time; meanwhile the tunnel stays, since
    /// a directory that is down for a moment should not take a fleet with it.
    ///
    /// ```
    /// use std::{collections::HashSet, sync::RwLock, time::Duration};
    /// use http::request::Parts;
    /// use revdial::server::{Authorize, Grant, KeyedBearer, Rejection, Standing};
    ///
    /// struct Revocable {
    ///     bearer: KeyedBearer,
    ///     revoked: RwLock<HashSet<String>>,
    /// }
    ///
    /// impl Authorize for Revocable {
    ///     async fn authorize(&self, parts: &Parts) -> Result<Grant, Rejection> {
    ///         let grant = self.bearer.authorize(parts).await?.recheck_every(Duration::from_secs(60));
    ///         match self.recheck(&grant).await {
    ///             Standing::Valid => Ok(grant),
    ///             _ => Err(Rejection::unauthorized()),
    ///         }
    ///     }
    ///
    ///     async fn recheck(&self, grant: &Grant) -> Standing {
    ///         let revoked = self.revoked.read().unwrap().contains(grant.principal());
    ///         if revoked { Standing::Revoked } else { Standing::Valid }
    ///     }
    /// }
    /// ```
    fn recheck(&self, grant: &Grant) -> impl Future<Output = Standing> + Send {
        let _ = grant;
        std::future::ready(Standing::Valid)
    }
}

/// What is said of a tunnel that is open, when it is judged again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It may stay.
    Valid,
    /// It is closed now, with 4401. Its streams fail with [`SessionLost`](crate::ErrorKind::SessionLost).
    Revoked,
    /// It is closed with 4401 after this time, an hour at the most. Meanwhile it drains: the agent is told to connect anew, which its
    /// credentials have to allow; nothing new is opened here, and what runs may finish.
    Ending(Duration),
}

impl<F> Authorize for F
where
    F: Fn(&Parts) -> Result<Grant, Rejection> + Send + Sync + 'static,
{
    fn authorize(&self, parts: &Parts) -> impl Future<Output = Result<Grant, Rejection>> + Send {
        std::future::ready(self(parts))
    }
}

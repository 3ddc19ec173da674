//! What all services of one layer share, and the judgement of a request in the order of its possible refusals.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode, request::Parts};
use hyper::rt::Executor;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{Instrument, field::display};

use super::{
    authorize::Authorize,
    dialback,
    future::{Deciding, LinkTask},
    grant::Grant,
    pickup::{self, Pickup},
    register::{self, Arrival},
    rejection::Rejection,
    route::{Route, origin_is_allowed, requested_key},
    throttle::Throttle,
};
use crate::{
    callback,
    connman::{ConnectionManager, RegisterRefusal},
    link::{Protocol, Refusal, Upgrade, offers_protocols},
    metrics,
    proto::SessionConfig,
    spans,
};

/// When to come back after a refusal for want of room: handshakes are short.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// When to come back where all places for tunnels are taken: those are not given back so soon.
const RETRY_WHEN_FULL: Duration = Duration::from_secs(10);

/// What the head of an upgrade may take, in bytes: its path, query, and the names and values of its headers. A token and
/// a browser's cookies fit.
const MAX_HEAD: usize = 16 * 1024;

/// How many headers an upgrade may have.
const MAX_HEADERS: usize = 100;

/// Tells where a request comes from.
pub(crate) type PeerAddr = Arc<dyn Fn(&Parts) -> Option<SocketAddr> + Send + Sync>;

/// The settings of a layer, behind an `Arc` in all that it makes.
pub(crate) struct Gate<A> {
    pub(crate) connman: ConnectionManager,
    pub(crate) authorize: Arc<A>,
    pub(crate) path: String,
    pub(crate) origins: Vec<String>,
    pub(crate) session: SessionConfig,
    pub(crate) handshake_timeout: Duration,
    pub(crate) handshakes: Arc<Semaphore>,
    /// Of pick-ups that were asked for, lest dials wait behind a herd of agents that come back.
    pub(crate) pickups: Arc<Semaphore>,
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) peer_addr: Option<PeerAddr>,
    pub(crate) executor: Arc<dyn Executor<LinkTask> + Send + Sync>,
}

/// A request that is worth a judgement.
struct Visit {
    upgrade: Upgrade,
    parts: Parts,
    peer: Option<SocketAddr>,
    pickup: Option<Pickup>,
    permit: OwnedSemaphorePermit,
}

impl<A: Authorize> Gate<A> {
    /// What needs no waiting: is it of a size to look at, an upgrade at all, not from a strange page nor from where too
    /// much failed, and is there room. On `Ok` the answer is still to come.
    pub(crate) fn admit<B>(self: &Arc<Self>, request: Request<B>, route: Route) -> Result<Deciding, Response<()>> {
        let (upgrade, parts) = begin(request);
        let peer = self.peer_addr.as_ref().and_then(|addr| callback::guarded("peer_addr", || addr(&parts)).flatten());
        let (key, from) = (requested_key(&parts).ok().map(display), peer.map(display));
        let span = tracing::info_span!("revdial.handshake", key, peer = from);
        let visit = span.in_scope(|| {
            let upgrade = upgrade.map_err(refuse)?;
            let pickup = (route == Route::Pickup).then(|| Pickup::of(&parts, self.connman.dialers()));
            let permit = self.permit(&parts, peer, pickup.as_ref()).map_err(|rejection| reject(&rejection))?;
            Ok(Visit { upgrade, parts, peer, pickup, permit })
        })?;
        let gate = Arc::clone(self);
        let undecided = Undecided(true);
        let deciding = async move {
            let (Ok(response) | Err(response)) = gate.decide(visit).await;
            undecided.end();
            response
        };
        Ok(Box::pin(deciding.instrument(span)))
    }

    fn permit(
        &self,
        parts: &Parts,
        peer: Option<SocketAddr>,
        pickup: Option<&Pickup>,
    ) -> Result<OwnedSemaphorePermit, Rejection> {
        if !origin_is_allowed(&parts.headers, &self.origins) {
            return Err(Rejection::origin());
        }
        let (places, limit) = if pickup.is_some_and(Pickup::is_asked_for) {
            (&self.pickups, "pickups")
        } else {
            self.throttle.admits(peer)?;
            (&self.handshakes, "handshakes")
        };
        Arc::clone(places).try_acquire_owned().map_err(|_| Rejection::overloaded(limit, RETRY_AFTER))
    }

    /// Who is it, may they, and is the rest of the handshake right. A 101 leaves with its task running.
    async fn decide(&self, visit: Visit) -> Result<Response<()>, Response<()>> {
        let Visit { upgrade, parts, peer, pickup, permit } = visit;
        match pickup {
            Some(pickup) => self.decide_pickup(pickup, upgrade, &parts, peer, permit).await,
            None => self.decide_tunnel(upgrade, &parts, peer, permit).await,
        }
    }

    async fn decide_pickup(
        &self,
        pickup: Pickup,
        upgrade: Upgrade,
        parts: &Parts,
        peer: Option<SocketAddr>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Response<()>, Response<()>> {
        let judged = self.ask(&pickup.judged_as(parts), peer).await;
        let claim = pickup.claim(judged, || upgrade.check(parts).map(drop)).map_err(pickup::Denial::response)?;
        let response = upgrade.bare_response();
        self.spawn(Box::pin(pickup::run(upgrade, claim, self.handshake_timeout, permit)))?;
        Ok(response)
    }

    async fn decide_tunnel(
        &self,
        upgrade: Upgrade,
        parts: &Parts,
        peer: Option<SocketAddr>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Response<()>, Response<()>> {
        let grant = self.ask(parts, peer).await.map_err(|rejection| reject(&rejection))?;
        let epoch = self.connman.next_epoch();
        self.connman.has_room(grant.key(), epoch).map_err(unregistered)?;
        if !offers_protocols(parts) {
            // It knows no code that would tell it why a link is closed; a status it shows to its operator.
            self.connman.admits(&dialback::registration(&grant, epoch)).map_err(unregistered)?;
        }
        let protocol = upgrade.check(parts).map_err(refuse)?;
        let response = upgrade.response(protocol);
        let span = spans::link(grant.key(), epoch);
        span.follows_from(tracing::Span::current());
        let arrival = Arrival {
            upgrade,
            epoch,
            grant,
            authorize: Arc::clone(&self.authorize) as _,
            connman: self.connman.clone(),
            session: self.session.clone(),
            handshake_timeout: self.handshake_timeout,
            permit,
        };
        self.spawn(match protocol {
            Protocol::Native => Box::pin(register::run(arrival).instrument(span)),
            Protocol::Dialback => Box::pin(dialback::run(arrival).instrument(span)),
        })?;
        Ok(response)
    }

    /// The user's judgement, which neither a panic nor a hang in it takes further than this request.
    async fn ask(&self, parts: &Parts, peer: Option<SocketAddr>) -> Result<Grant, Rejection> {
        let judged =
            callback::ask_within(self.handshake_timeout, async { self.authorize.authorize(parts).await }).await;
        let verdict = match judged {
            Err(failed) => Err(Rejection::failed("authorization", failed)),
            Ok(Ok(grant)) if grant.lifetime().is_some_and(|lifetime| lifetime.is_zero()) => {
                Err(Rejection::unauthorized())
            }
            Ok(verdict) => verdict,
        };
        let verdict = verdict.map(|grant| grant.or_peer_addr(peer));
        verdict.map_err(|rejection| self.throttle.rejected(rejection, peer))
    }

    /// Runs the link, which ends before it began where the host's executor panics.
    fn spawn(&self, task: LinkTask) -> Result<(), Response<()>> {
        let spawned = callback::call(|| self.executor.execute(task));
        spawned.map_err(|failed| reject(&Rejection::failed("executor", failed)))
    }
}

/// Reports a judgement that is dropped before its end, since the agent has left.
struct Undecided(bool);

impl Undecided {
    fn end(mut self) {
        self.0 = false;
    }
}

impl Drop for Undecided {
    fn drop(&mut self) {
        if self.0 {
            metrics::record_handshake_rejected("lost");
            tracing::info!(reason = "the agent left before it was answered", "tunnel refused");
        }
    }
}

/// The upgrade that a request asks for, if its head is of a size to look at.
fn begin<B>(mut request: Request<B>) -> (Result<Upgrade, Refusal>, Parts) {
    let upgrade = if head_is_too_large(&request) {
        Err(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head"))
    } else {
        Upgrade::begin(&mut request)
    };
    (upgrade, request.into_parts().0)
}

fn head_is_too_large<B>(request: &Request<B>) -> bool {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let headers = request.headers();
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    headers.len() > MAX_HEADERS || target + fields > MAX_HEAD
}

pub(super) fn reject(rejection: &Rejection) -> Response<()> {
    rejection.report();
    rejection.response()
}

pub(super) fn refuse(refusal: Refusal) -> Response<()> {
    metrics::record_handshake_rejected(refusal.reason);
    tracing::info!(status = refusal.status.as_u16(), reason = refusal.reason, "tunnel refused");
    refusal.response()
}

/// The answer where the connection manager refuses, which has counted what is not about all keys.
fn unregistered(why: RegisterRefusal) -> Response<()> {
    let response = match why {
        RegisterRefusal::Foreign | RegisterRefusal::Identity => Rejection::forbidden().response(),
        RegisterRefusal::Overloaded => Rejection::unavailable(RETRY_WHEN_FULL).response(),
        RegisterRefusal::ShuttingDown => {
            metrics::record_handshake_rejected(register::refused(why));
            Rejection::unavailable(RETRY_AFTER).response()
        }
        _ => Refusal::new(StatusCode::CONFLICT, "in_use").response(),
    };
    tracing::info!(status = response.status().as_u16(), reason = register::refused(why), "tunnel refused");
    response
}

/// By hand, since `A` need not be `Clone`.
impl<A> Clone for Gate<A> {
    fn clone(&self) -> Self {
        Self {
            connman: self.connman.clone(),
            authorize: Arc::clone(&self.authorize),
            path: self.path.clone(),
            origins: self.origins.clone(),
            session: self.session.clone(),
            handshake_timeout: self.handshake_timeout,
            handshakes: Arc::clone(&self.handshakes),
            pickups: Arc::clone(&self.pickups),
            throttle: Arc::clone(&self.throttle),
            peer_addr: self.peer_addr.clone(),
            executor: Arc::clone(&self.executor),
        }
    }
}

/// Without what the host gave, which need not be `Debug`, and without addresses.
impl<A> fmt::Debug for Gate<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connman: _,
            authorize: _,
            path,
            origins,
            session,
            handshake_timeout,
            handshakes,
            pickups,
            throttle: _,
            peer_addr: _,
            executor: _,
        } = self;
        f.debug_struct("Gate")
            .field("path", path)
            .field("origins", origins)
            .field("session", session)
            .field("handshake_timeout", handshake_timeout)
            .field("handshakes_free", &handshakes.available_permits())
            .field("pickups_free", &pickups.available_permits())
            .finish_non_exhaustive()
    }
}

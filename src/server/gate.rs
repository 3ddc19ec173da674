//! What all services of one layer share, and the judgement of a request in the order of its possible refusals.

use std::{fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use http::{HeaderMap, Request, Response, StatusCode, request::Parts};
use hyper::rt::Executor;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;

use super::{
    authorize::{Authorize, Grant, Rejection},
    dialback,
    future::{Deciding, LinkTask},
    pickup,
    register::{self, Arrival},
    route::{Route, origin_is_allowed},
};
use crate::{
    connman::ConnectionManager,
    link::{Protocol, Refusal, Upgrade, offers_protocols},
    metrics,
    proto::SessionConfig,
    spans,
};

/// When to come back after a refusal for want of room: handshakes are short.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the head of an upgrade may take, in bytes: its path, query, and the names and values of its headers. A token and
/// a browser's cookies fit.
const MAX_HEAD: usize = 16 * 1024;

/// How many headers an upgrade may have.
const MAX_HEADERS: usize = 100;

/// The settings of a layer, behind an `Arc` in all that it makes.
pub(crate) struct Gate<A> {
    pub(crate) connman: ConnectionManager,
    pub(crate) authorize: Arc<A>,
    pub(crate) path: String,
    pub(crate) origins: Vec<String>,
    pub(crate) session: SessionConfig,
    pub(crate) handshake_timeout: Duration,
    pub(crate) handshakes: Arc<Semaphore>,
    pub(crate) executor: Arc<dyn Executor<LinkTask> + Send + Sync>,
}

impl<A: Authorize> Gate<A> {
    /// What needs no waiting: is it of a size to look at, an upgrade at all, not from a strange page, and is there room. On `Ok` the
    /// answer is still to come.
    pub(crate) fn admit<B>(self: &Arc<Self>, mut request: Request<B>, route: Route) -> Result<Deciding, Response<()>> {
        if head_is_too_large(&request) {
            let (status, headers) = (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, HeaderMap::new());
            return Err(refuse(Refusal { status, headers, reason: "head" }));
        }
        let upgrade = Upgrade::begin(&mut request).map_err(refuse)?;
        if !origin_is_allowed(request.headers(), &self.origins) {
            return Err(reject(&Rejection::origin()));
        }
        let permit = Arc::clone(&self.handshakes)
            .try_acquire_owned()
            .map_err(|_| reject(&Rejection::too_many_handshakes(RETRY_AFTER)))?;
        let (parts, _) = request.into_parts();
        let gate = Arc::clone(self);
        Ok(Box::pin(async move {
            match gate.decide(upgrade, &parts, route, permit).await {
                Ok(response) | Err(response) => response,
            }
        }))
    }

    /// Who is it, may they, and is the rest of the handshake right. A 101 leaves with its task running.
    async fn decide(
        &self,
        upgrade: Upgrade,
        parts: &Parts,
        route: Route,
        permit: OwnedSemaphorePermit,
    ) -> Result<Response<()>, Response<()>> {
        if route == Route::Pickup {
            let ours = pickup::Pickup::of(parts, self.connman.dialers());
            let judged = self.ask(&ours.judged_as(parts)).await;
            let claim = ours.claim(judged, || upgrade.check(parts).map(drop)).map_err(pickup::Denial::response)?;
            let response = upgrade.bare_response();
            let task = pickup::run(upgrade, claim, self.handshake_timeout, permit);
            self.executor.execute(Box::pin(task));
            return Ok(response);
        }
        let grant = self.ask(parts).await.map_err(|rejection| reject(&rejection))?;
        let epoch = self.connman.next_epoch();
        if !offers_protocols(parts) {
            // It knows no code that would tell it why a link is closed; a status it shows to its operator.
            let registration = dialback::registration(&grant, epoch);
            self.connman.admits(&registration).map_err(|why| dialback::refused(why, RETRY_AFTER))?;
        }
        let protocol = upgrade.check(parts).map_err(refuse)?;
        let response = upgrade.response(protocol);
        let span = spans::link(grant.key(), epoch);
        span.follows_from(tracing::Span::current());
        let arrival = Arrival {
            upgrade,
            epoch,
            grant,
            connman: self.connman.clone(),
            session: self.session.clone(),
            handshake_timeout: self.handshake_timeout,
            permit,
        };
        let task: LinkTask = match protocol {
            Protocol::Native => Box::pin(register::run(arrival).instrument(span)),
            Protocol::Dialback => Box::pin(dialback::run(arrival).instrument(span)),
        };
        self.executor.execute(task);
        Ok(response)
    }

    /// The user's judgement, which neither a panic nor a hang in it takes further than this request.
    async fn ask(&self, parts: &Parts) -> Result<Grant, Rejection> {
        let judged = AssertUnwindSafe(async { self.authorize.authorize(parts).await }).catch_unwind();
        match tokio::time::timeout(self.handshake_timeout, judged).await {
            Err(_) => Err(Rejection::timed_out(RETRY_AFTER)),
            Ok(Err(_)) => Err(Rejection::panicked()),
            Ok(Ok(Ok(grant))) if grant.lifetime().is_some_and(|lifetime| lifetime.is_zero()) => {
                Err(Rejection::unauthorized())
            }
            Ok(Ok(verdict)) => verdict,
        }
    }
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
            executor: Arc::clone(&self.executor),
        }
    }
}

/// Without the authorization and the executor, which need not be `Debug`.
impl<A> fmt::Debug for Gate<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connman: _, authorize: _, path, origins, session, handshake_timeout, handshakes, executor: _ } =
            self;
        f.debug_struct("Gate")
            .field("path", path)
            .field("origins", origins)
            .field("session", session)
            .field("handshake_timeout", handshake_timeout)
            .field("handshakes_free", &handshakes.available_permits())
            .finish_non_exhaustive()
    }
}

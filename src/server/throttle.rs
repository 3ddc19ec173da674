//! Who is not listened to for a while, since too many of its authentications failed.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::StatusCode;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    failures::{Admission, Failures},
    grant::Grant,
    rejection::Rejection,
};

/// When those may come again whose credentials were found bad: as soon as agents do that take them for bad.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// When those may come again for whom others from their address left no time.
const RETRY_WHEN_BUSY: Duration = Duration::from_secs(1);

/// [`Failures`] with a clock and a lock.
#[derive(Debug)]
pub(crate) struct Throttle(Mutex<Failures<Notify>>);

/// What a request holds while it is judged. If it is dropped before its end it counts as a failure: else whoever leaves
/// before the verdict could have any number judged.
#[derive(Debug)]
#[must_use = "dropped, it is a failure"]
pub(crate) struct Place {
    throttle: Arc<Throttle>,
    peer: Option<SocketAddr>,
    held: Option<IpAddr>,
}

impl Throttle {
    pub(crate) fn new(burst: u32, every: Duration) -> Self {
        Self(Mutex::new(Failures::new(burst, every)))
    }

    /// Whether requests from there are judged at all.
    pub(crate) fn admits(&self, peer: Option<SocketAddr>) -> Result<(), Rejection> {
        let wait = self.lock().wait(address(peer), now());
        wait.map_or(Ok(()), |wait| Err(Rejection::too_many_attempts(wait)))
    }

    /// For a request that is to be judged; it waits while it would be one too many if all those fail that are judged now.
    pub(crate) async fn place(
        self: &Arc<Self>,
        peer: Option<SocketAddr>,
        within: Duration,
    ) -> Result<Place, Rejection> {
        let place = timeout(within, self.turn(peer)).await;
        place.unwrap_or(Err(Rejection::unavailable(RETRY_WHEN_BUSY)))
    }

    /// A place without waiting, for a request that was asked for.
    pub(crate) fn place_at_once(self: &Arc<Self>, peer: Option<SocketAddr>) -> Place {
        self.holding(None, peer)
    }

    /// Each verdict wakes one that waits, and each of those that need wait no longer another.
    async fn turn(self: &Arc<Self>, peer: Option<SocketAddr>) -> Result<Place, Rejection> {
        let mut waited: Option<Arc<Notify>> = None;
        loop {
            let admission = self.lock().begin(address(peer), now());
            let place = match admission {
                Admission::Waits(turn) => {
                    waited.insert(turn).notified().await;
                    continue;
                }
                Admission::Judged(from) => Ok(self.holding(Some(from), peer)),
                Admission::Unheld => Ok(self.holding(None, peer)),
                Admission::Refused(wait) => Err(Rejection::too_many_attempts(wait)),
            };
            if let Some(turn) = waited {
                turn.notify_one();
            }
            return place;
        }
    }

    /// The request that held this token has been judged.
    fn end(&self, from: IpAddr, has_failed: bool) {
        let waited_for = self.lock().end(from, has_failed, now());
        if let Some(turn) = waited_for {
            turn.notify_one();
        }
    }

    fn holding(self: &Arc<Self>, held: Option<IpAddr>, peer: Option<SocketAddr>) -> Place {
        Place { throttle: Arc::clone(self), peer, held }
    }

    fn lock(&self) -> MutexGuard<'_, Failures<Notify>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// What a request is told whose verdict this is: so, with the address that it comes from, or that it was one too many.
    pub(crate) fn end(mut self, verdict: Result<Grant, Rejection>) -> Result<Grant, Rejection> {
        let has_failed = matches!(&verdict, Err(rejection) if rejection.status() == StatusCode::UNAUTHORIZED);
        let one_too_many = match self.held.take() {
            Some(from) => {
                self.throttle.end(from, has_failed);
                None
            }
            None if has_failed => self.throttle.lock().record(address(self.peer), now()),
            None => None,
        };
        match one_too_many {
            Some(wait) => Err(Rejection::too_many_attempts(wait.max(RETRY_AFTER))),
            None => verdict.map(|grant| grant.or_peer_addr(self.peer)),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(from) = self.held.take() {
            self.throttle.end(from, true);
        }
    }
}

fn address(peer: Option<SocketAddr>) -> Option<IpAddr> {
    peer.map(|peer| peer.ip())
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

//! Who is not listened to for a while, since too many of its authentications failed.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::StatusCode;
use tokio::time::Instant;

use super::{failures::Failures, rejection::Rejection};

/// When those may come again whose credentials were found bad: as soon as agents do that take them for bad.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// [`Failures`] with a clock and a lock.
#[derive(Debug)]
pub(crate) struct Throttle(Mutex<Failures>);

impl Throttle {
    pub(crate) fn new(burst: u32, every: Duration) -> Self {
        Self(Mutex::new(Failures::new(burst, every)))
    }

    /// Whether requests from there are judged at all.
    pub(crate) fn admits(&self, peer: Option<SocketAddr>) -> Result<(), Rejection> {
        let wait = self.lock().wait(peer.map(|peer| peer.ip()), Instant::now().into_std());
        wait.map_or(Ok(()), |wait| Err(Rejection::too_many_attempts(wait)))
    }

    /// What a request is told that was rejected: so, or that it was one too many.
    pub(crate) fn rejected(&self, rejection: Rejection, peer: Option<SocketAddr>) -> Rejection {
        if rejection.status() != StatusCode::UNAUTHORIZED {
            return rejection;
        }
        let wait = self.lock().record(peer.map(|peer| peer.ip()), Instant::now().into_std());
        wait.map_or(rejection, |wait| Rejection::too_many_attempts(wait.max(RETRY_AFTER)))
    }

    fn lock(&self) -> MutexGuard<'_, Failures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

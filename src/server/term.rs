//! For how long a tunnel may stay that was granted: until its credentials expire, or a second look finds them bad.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    authorize::{Authorize, Standing},
    grant::{Grant, MAX_DRAIN},
};
use crate::{callback, connman::Lease, frame::CloseCode, metrics, mux::PeerDrain, proto::SessionEnd, tunnel::Tunnel};

/// The most that agents spread their new links over that are told to come again.
const MAX_JITTER: Duration = Duration::from_secs(5);

const REVOKED: &str = "the credentials were revoked";

/// [`Authorize`] as an object, as far as open tunnels need it.
pub(crate) trait Recheck: Send + Sync {
    fn recheck<'a>(&'a self, grant: &'a Grant) -> Pin<Box<dyn Future<Output = Standing> + Send + 'a>>;
}

impl<A: Authorize> Recheck for A {
    fn recheck<'a>(&'a self, grant: &'a Grant) -> Pin<Box<dyn Future<Output = Standing> + Send + 'a>> {
        // What panics before it gives a future does so when this one is polled.
        Box::pin(async move { Authorize::recheck(self, grant).await })
    }
}

/// What a tunnel's task has to do, since what was granted comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// Let it drain for so long.
    Drain(Duration),
    /// Close it, with these words.
    Close(&'static str),
}

impl Notice {
    /// Does it to a tunnel whose link is up.
    pub(super) fn carry_out(self, tunnel: &Tunnel, lease: &Lease) {
        match self {
            Self::Drain(deadline) => {
                // By a code at which agents are soon back: 4401 they take for a refusal.
                let drain = PeerDrain { code: CloseCode::DRAINED, deadline, jitter: MAX_JITTER.min(deadline / 2) };
                tunnel.drain(drain.code, drain.deadline, drain.jitter, "the credentials come to their end");
                lease.drained(drain);
            }
            Self::Close(why) => close(tunnel, why),
        }
    }
}

/// Closes a tunnel whose credentials do not hold any more.
pub(super) fn close(tunnel: &Tunnel, why: &'static str) {
    metrics::record_auth_failure("revoked");
    tracing::info!(reason = why, "tunnel closed");
    tunnel.close(CloseCode::CREDENTIALS, why, SessionEnd::Revoked);
}

/// The term of one tunnel's grant.
pub(super) struct Term {
    grant: Grant,
    authorize: Arc<dyn Recheck>,
    /// How long a second look may take.
    within: Duration,
    // Each `None` is never.
    closes: Option<(Instant, &'static str)>,
    drains: Option<(Instant, Duration)>,
    rechecks: Option<Instant>,
}

/// What is due at one of the times of a term.
#[derive(Debug, Clone, Copy)]
enum Due {
    Close(&'static str),
    Drain(Duration),
    Recheck,
}

impl Term {
    /// That of a grant which was given at `now`; `None` if it has no end.
    pub(super) fn of(grant: &Grant, authorize: Arc<dyn Recheck>, within: Duration, now: Instant) -> Option<Box<Self>> {
        if grant.lifetime().is_none() && grant.recheck().is_none() {
            return None;
        }
        // Times that overflow never come.
        let expiry = grant.lifetime().and_then(|lifetime| now.checked_add(lifetime));
        let drain = grant.drain();
        Some(Box::new(Self {
            grant: grant.clone(),
            authorize,
            within,
            closes: expiry.map(|at| (at, "the credentials expired")),
            drains: expiry.filter(|_| !drain.is_zero()).map(|at| (at - drain, drain)),
            rechecks: grant.recheck().and_then(|interval| now.checked_add(interval)),
        }))
    }

    /// What comes next; after [`Notice::Close`], nothing.
    ///
    /// # Cancel safety
    /// Nothing is lost; a second look that was under way is begun again.
    async fn next(&mut self) -> Notice {
        loop {
            let Some((at, due)) = self.first() else { std::future::pending().await };
            sleep_until(at).await;
            match due {
                Due::Close(why) => {
                    (self.closes, self.drains, self.rechecks) = (None, None, None);
                    return Notice::Close(why);
                }
                Due::Drain(drain) => {
                    self.drains = None;
                    return Notice::Drain(drain);
                }
                Due::Recheck => {
                    // Boxed: what a second look takes is more than an idle tunnel should hold.
                    if let Some(notice) = Box::pin(self.recheck()).await {
                        return notice;
                    }
                }
            }
        }
    }

    /// Of two at the same time, the graver.
    fn first(&self) -> Option<(Instant, Due)> {
        let closes = self.closes.map(|(at, why)| (at, Due::Close(why)));
        let drains = self.drains.map(|(at, drain)| (at, Due::Drain(drain)));
        let rechecks = self.rechecks.map(|at| (at, Due::Recheck));
        [closes, drains, rechecks].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    async fn recheck(&mut self) -> Option<Notice> {
        let standing = callback::ask_within(self.within, self.authorize.recheck(&self.grant)).await;
        let now = Instant::now();
        self.rechecks = self.grant.recheck().and_then(|interval| now.checked_add(interval));
        match standing {
            Ok(Standing::Valid) => None,
            Ok(Standing::Revoked) => {
                self.closes = Some((now, REVOKED));
                None
            }
            Ok(Standing::Ending(drain)) => self.end_after(drain, now),
            Err(failed) => {
                tracing::error!(key = %self.grant.key(), ?failed, "a second look at a tunnel's credentials failed");
                None
            }
        }
    }

    /// Brings the end forward. One that was said before stands if it comes first.
    fn end_after(&mut self, drain: Duration, now: Instant) -> Option<Notice> {
        let drain = drain.min(MAX_DRAIN);
        let end = now.checked_add(drain)?;
        if self.closes.is_some_and(|(at, _)| at <= end) {
            return None;
        }
        self.closes = Some((end, REVOKED));
        self.drains = None;
        Some(Notice::Drain(drain))
    }
}

/// What comes next of a term, if there is one.
///
/// # Cancel safety
/// As of [`Term::next`].
pub(super) async fn next(term: &mut Option<Box<Term>>) -> Notice {
    match term {
        Some(term) => term.next().await,
        None => std::future::pending().await,
    }
}

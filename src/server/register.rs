//! What happens after the 101, from top to bottom: the life of one link on the server.

use std::{fmt, future::poll_fn, pin::pin, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};

use super::{
    grant::Grant,
    term::{self, Recheck, Term},
};
use crate::{
    connman::{Attachment, ConnectionManager, Lease, Offer, RegisterRefusal, Registration},
    frame::{CloseCode, Hello, MAX_MESSAGE, SessionId, Welcome},
    key::Epoch,
    link::{LinkEnd, LinkError, Upgrade},
    metrics,
    mux::{
        Driver, MuxTunnel,
        establish::{self as handshake, EstablishError},
    },
    proto::{Role, Session, SessionConfig},
    spans::SessionSpan,
    tunnel::Tunnel,
};

/// A link whose request was granted and answered with 101, and what it takes to make it a tunnel.
pub(crate) struct Arrival {
    pub(crate) upgrade: Upgrade,
    pub(crate) epoch: Epoch,
    pub(crate) grant: Grant,
    /// Who judges it again.
    pub(crate) authorize: Arc<dyn Recheck>,
    pub(crate) connman: ConnectionManager,
    pub(crate) session: SessionConfig,
    pub(crate) handshake_timeout: Duration,
    /// One of the layer's handshakes, given back after WELCOME.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// Runs the link until it ends. The lease reports that, also when this future is dropped midway.
pub(crate) async fn run(arrival: Arrival) {
    if let Err(failure) = serve(arrival).await {
        failure.report();
    }
}

async fn serve(arrival: Arrival) -> Result<(), Failure> {
    // Boxed: what it takes to make a tunnel is more than an idle one should hold.
    let Arrived { mut driver, tunnel, lease, mut term } = Box::pin(establish(arrival)).await?;
    let end = drive(&mut driver, &tunnel, &lease, &mut term).await;
    tracing::debug!(?end, "link down");
    // Before the farewell: the agent may be back meanwhile.
    lease.lost(end);
    driver.await;
    Ok(())
}

/// A link that is up.
struct Arrived {
    driver: Driver,
    tunnel: Tunnel,
    lease: Lease,
    /// For how long it may stay; `None`: as long as it likes.
    term: Option<Box<Term>>,
}

impl Arrival {
    /// For how long the tunnel may stay. Counted from the grant, of which its task is the first poll's distance away.
    pub(super) fn term(&self) -> Option<Box<Term>> {
        Term::of(&self.grant, Arc::clone(&self.authorize), self.handshake_timeout, Instant::now())
    }
}

async fn establish(arrival: Arrival) -> Result<Arrived, Failure> {
    let term = arrival.term();
    let Arrival { upgrade, epoch, grant, connman, session: config, handshake_timeout: within, permit, .. } = arrival;
    let completed = timeout(within, upgrade.complete(MAX_MESSAGE)).await;
    let mut link = completed.map_err(|_| Failure::HandoverTimeout)?.map_err(Failure::Handover)?;
    let (hello, has) = handshake::accept(&mut link, within).await.map_err(Failure::Establish)?;
    let offer = Offer { session: hello.session, attempt: hello.attempt, has };
    let bounds = hello.bounds;

    let max_hold = millis(connman.max_hold());
    let attached = connman.attach(registration(&grant, epoch, hello), offer, || {
        let session = Session::new(Role::Server, config.clone(), bounds, rand::random());
        let session = if max_hold == 0 { session.without_resume() } else { session };
        let tunnel = MuxTunnel::new(session, epoch, SessionSpan::new(grant.key().clone(), epoch.number()));
        tunnel.charge_to(connman.budget());
        let tunnel = Tunnel::Mux(tunnel);
        let bound = tunnel.bind(epoch, 0).wake().expect("the first link of a new session binds");
        (SessionId::new(rand::random()), tunnel, Some(bound))
    });
    let (Attachment { tunnel, resumed, session, lease, .. }, bound) = match attached {
        // One without a link is never found by a HELLO, whose session it would have to be.
        Ok(mut attachment) => match attachment.link.take() {
            Some(bound) => (attachment, bound),
            None => return Err(Failure::Refused(RegisterRefusal::Stale)),
        },
        Err(refusal) => {
            let code = close_code(refusal);
            handshake::refuse(&mut link, code, code.meaning().unwrap_or_default()).await;
            return Err(Failure::Refused(refusal));
        }
    };
    let welcome = Welcome { resumed, ..Welcome::new(session, offer.attempt, config.bounds(), max_hold) };
    if let Err(error) = handshake::welcome(&mut link, &welcome, bound.has()).await {
        drop(bound);
        lease.lost(LinkEnd::Lost);
        return Err(Failure::Welcome(error));
    }
    drop(permit);
    tracing::debug!(principal = grant.principal(), peer = ?grant.peer(), resumed, "link up");
    Ok(Arrived { driver: Driver::new(link, bound), tunnel, lease, term })
}

/// Drives the link until it is not the bound one any more, and meanwhile hears the agent say that it drains, and sees
/// the grant come to its end.
async fn drive(driver: &mut Driver, tunnel: &Tunnel, lease: &Lease, term: &mut Option<Box<Term>>) -> LinkEnd {
    let mut driver = poll_fn(|cx| driver.poll_unbound(cx));
    let mut drains = pin!(tunnel.agent_drains().fuse());
    loop {
        tokio::select! {
            biased;
            end = &mut driver => return end,
            drain = &mut drains => lease.drained(drain),
            notice = term::next(term) => notice.carry_out(tunnel, lease),
        }
    }
}

fn registration(grant: &Grant, epoch: Epoch, hello: Hello) -> Registration {
    let mut registration = Registration::new(grant.key().clone(), grant.principal().to_owned(), epoch, hello.instance);
    registration.peer_addr = grant.peer();
    registration.agent_version = hello.agent_version;
    registration.labels = hello.labels;
    registration
}

pub(super) const fn close_code(refusal: RegisterRefusal) -> CloseCode {
    match refusal {
        RegisterRefusal::InUse => CloseCode::IN_USE,
        RegisterRefusal::Foreign | RegisterRefusal::Identity => CloseCode::FOREIGN,
        RegisterRefusal::Mismatch => CloseCode::FORBIDDEN,
        RegisterRefusal::Fruitless => CloseCode::FLOOD,
        RegisterRefusal::Stale => CloseCode::STALE,
        RegisterRefusal::Overloaded => CloseCode::TRY_LATER,
        RegisterRefusal::ShuttingDown => CloseCode::DRAINED,
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// At which step no tunnel came about.
#[derive(Debug)]
pub(super) enum Failure {
    Handover(hyper::Error),
    HandoverTimeout,
    Establish(EstablishError),
    Refused(RegisterRefusal),
    Welcome(LinkError),
}

impl Failure {
    /// Counts it once and tells it in the log once.
    pub(super) fn report(&self) {
        match self {
            Self::Handover(_) => metrics::record_handshake_rejected("upgrade"),
            Self::HandoverTimeout | Self::Establish(EstablishError::Timeout) => metrics::record_handshake_timeout(),
            Self::Establish(EstablishError::Violation(violation)) => metrics::record_protocol_error(violation.code()),
            Self::Establish(EstablishError::Link(_) | EstablishError::Closed { .. }) | Self::Welcome(_) => {
                metrics::record_handshake_rejected("lost");
            }
            Self::Refused(RegisterRefusal::ShuttingDown) => {
                metrics::record_handshake_rejected(refused(RegisterRefusal::ShuttingDown));
            }
            Self::Refused(_) => {} // the connection manager has counted it by its cause
        }
        tracing::warn!(reason = %self, "no tunnel came about");
    }
}

/// For the log, with causes; what a peer said is escaped.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handover(error) => write!(
                f,
                "the upgrade failed ({error}); the host has to serve with upgrades: with_upgrades() in hyper, \
                 serve_connection_with_upgrades() in hyper-util"
            ),
            Self::HandoverTimeout => f.write_str("the host did not hand the connection over in time"),
            Self::Establish(EstablishError::Timeout) => f.write_str("no HELLO came in time"),
            Self::Establish(EstablishError::Link(error)) => write!(f, "the link ended before HELLO: {error:?}"),
            Self::Establish(error) => error.fmt(f),
            Self::Refused(refusal) => write!(f, "the registration was refused: {refusal}"),
            Self::Welcome(error) => write!(f, "the link ended before WELCOME: {error:?}"),
        }
    }
}

/// The refusal in a word.
pub(super) const fn refused(refusal: RegisterRefusal) -> &'static str {
    match refusal {
        RegisterRefusal::InUse => "in_use",
        RegisterRefusal::Foreign => "foreign",
        RegisterRefusal::Identity => "identity",
        RegisterRefusal::Mismatch => "mismatch",
        RegisterRefusal::Fruitless => "fruitless",
        RegisterRefusal::Stale => "stale",
        RegisterRefusal::Overloaded => "overloaded",
        RegisterRefusal::ShuttingDown => "shutting_down",
    }
}

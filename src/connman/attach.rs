//! How links come and go: each is bound to the session that its HELLO names, or to a new one, and its end is reported.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    connman::{
        event::{RegisterRefusal, TunnelEvent},
        handle::Handle,
        policy::{DEFAULT_HOLD, Displace, Grace, LinkLoss, LossCause, Registration},
        registry::{self, Binding, Claim, Conflict, Incumbent, Link, Resume},
        state::{Inner, guarded},
    },
    frame::{CloseCode, SessionId},
    key::{AgentKey, Epoch},
    metrics,
    mux::{BindError, Deferred, PeerDrain},
};

/// How often a registration looks again at a key that changes under its eyes.
const REGISTER_TRIES: u32 = 16;

/// The longest drain that an agent is granted, whatever it announces: an hour, for the longest download.
const MAX_AGENT_DRAIN: Duration = Duration::from_secs(3600);

/// How much longer than it announced an agent may take to end its session, which it does itself.
const AGENT_DRAIN_MARGIN: Duration = Duration::from_secs(5);

/// What a HELLO asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    /// The session to go on with; zero: a new one.
    pub(crate) session: SessionId,
    /// Which attempt this is.
    pub(crate) attempt: u64,
    /// How many counted messages of that session the agent has.
    pub(crate) has: u64,
}

impl Offer {
    /// What an agent asks for that has no HELLO: a new session.
    pub(crate) const NONE: Self = Self { session: SessionId::NEW, attempt: 0, has: 0 };
}

/// A link that is bound to a session, under a key.
#[derive(Debug)]
pub(super) struct Attached<T: Handle> {
    pub(super) session: SessionId,
    pub(super) tunnel: T,
    pub(super) link: T::Link,
    pub(super) resumed: bool,
}

impl<T: Handle> Inner<T> {
    /// Binds a link to the session that its HELLO names, or to a new one, which `make` makes and binds. A refused link
    /// is closed by the caller.
    pub(super) fn attach(
        self: &Arc<Self>,
        registration: Registration,
        offer: Offer,
        make: impl FnOnce() -> (SessionId, T, T::Link),
    ) -> Result<Attached<T>, RegisterRefusal> {
        let registration = Arc::new(registration);
        self.try_attach(&registration, offer, make).inspect_err(|why| self.refused(&registration, *why))
    }

    /// Whether there is a place for a tunnel of this key, for who can tell its agent before it is registered: others may
    /// come between.
    pub(super) fn has_room(self: &Arc<Self>, key: &AgentKey, epoch: Epoch) -> Result<(), RegisterRefusal> {
        if self.with(|state, now| state.registry.has_room(key, now)) {
            return Ok(());
        }
        metrics::record_overload("tunnels");
        self.tell(&TunnelEvent::Refused { key: key.clone(), epoch, why: RegisterRefusal::Overloaded });
        Err(RegisterRefusal::Overloaded)
    }

    /// Whether an agent may have its key, for who has to tell it before it is registered: others may come between.
    pub(super) fn admits(self: &Arc<Self>, new: &Registration) -> Result<(), RegisterRefusal> {
        let (incumbent, open) =
            self.with(|state, now| (state.registry.incumbent(&new.key, now), state.registry.is_open()));
        let judged = match (open, incumbent) {
            (false, _) => Err(RegisterRefusal::ShuttingDown),
            (true, Some(old)) => self.judge(&old, new),
            (true, None) => Ok(()),
        };
        judged.inspect_err(|why| self.refused(new, *why))
    }

    fn refused(&self, registration: &Registration, why: RegisterRefusal) {
        match why {
            RegisterRefusal::Foreign => metrics::record_key_conflict("denied"),
            RegisterRefusal::InUse => metrics::record_key_conflict("rejected"),
            RegisterRefusal::Overloaded => metrics::record_overload("tunnels"),
            RegisterRefusal::Stale => metrics::record_resume("stale"),
            RegisterRefusal::Identity => metrics::record_resume("identity"),
            RegisterRefusal::Mismatch => metrics::record_resume("mismatch"),
            RegisterRefusal::Fruitless => metrics::record_resume("rate"),
            RegisterRefusal::ShuttingDown => {}
        }
        let (key, epoch) = (registration.key.clone(), registration.epoch);
        self.tell(&TunnelEvent::Refused { key, epoch, why });
    }

    fn try_attach(
        self: &Arc<Self>,
        new: &Arc<Registration>,
        offer: Offer,
        make: impl FnOnce() -> (SessionId, T, T::Link),
    ) -> Result<Attached<T>, RegisterRefusal> {
        let claim = Claim { registration: new, session: offer.session, attempt: offer.attempt };
        let mut make = Some(make);
        let mut made = None;
        for _ in 0..REGISTER_TRIES {
            let resume =
                self.with(|state, now| state.registry.resume(&claim, now, |tunnel| bind(tunnel, new.epoch, offer.has)));
            // Whom the binding concerns is woken here, outside the lock.
            let old = match resume {
                Resume::Bound(tunnel, link) => match link.wake() {
                    Ok(link) => return Ok(Attached { session: offer.session, tunnel, link, resumed: true }),
                    Err(_) => return Err(RegisterRefusal::Stale), // it was bound, so this is never taken
                },
                Resume::Refused(code, link) => {
                    drop(link.map(|link| link.wake()));
                    return Err(refusal(code));
                }
                Resume::Fresh(old, link) => {
                    drop(link.map(|link| link.wake()));
                    old
                }
            };
            if let Some(old) = &old {
                self.judge(old, new)?;
            }
            let seen = old.map(|old| old.registration.epoch);
            let heard = self.spoken(&new.key, seen);
            let (session, tunnel, link) = match made.take().or_else(|| make.take().map(|make| make())) {
                Some(made) => made,
                None => return Err(RegisterRefusal::Overloaded),
            };
            let registered = self.with(|state, now| {
                if let Some(epoch) = heard {
                    state.registry.heard(&new.key, epoch);
                }
                state.registry.register(new, session, tunnel.clone(), seen, now)
            });
            match registered {
                Ok(()) => {
                    if !offer.session.is_new() {
                        metrics::record_resume("unknown");
                    }
                    return Ok(Attached { session, tunnel, link, resumed: false });
                }
                Err((Conflict::Changed, _)) => made = Some((session, tunnel, link)),
                Err((Conflict::Overloaded, _)) => return Err(RegisterRefusal::Overloaded),
                Err((Conflict::ShuttingDown, _)) => return Err(RegisterRefusal::ShuttingDown),
            }
        }
        Err(RegisterRefusal::Overloaded)
    }

    /// The epoch that was seen, if its agent has spoken on its link.
    fn spoken(self: &Arc<Self>, key: &AgentKey, seen: Option<Epoch>) -> Option<Epoch> {
        let epoch = seen?;
        let link = self.with(|state, _| state.registry.link(key, epoch))?;
        link.tunnel.heard().then_some(epoch)
    }

    /// Whether a newcomer may take the key of an incumbent.
    fn judge(&self, old: &Incumbent, new: &Registration) -> Result<(), RegisterRefusal> {
        let was = &*old.registration;
        if new.epoch <= was.epoch {
            return Err(RegisterRefusal::Stale);
        }
        if new.principal != was.principal {
            return Err(RegisterRefusal::Foreign);
        }
        if !old.connected || new.instance == was.instance {
            return Ok(());
        }
        // Of a policy that fails, nobody's working tunnel is the victim.
        match guarded(Displace::Reject, || self.settings.policy.displace(was, new)) {
            Displace::Replace => Ok(()),
            Displace::Reject => Err(RegisterRefusal::InUse),
        }
    }

    /// The link of this epoch was lost. A stale report does nothing.
    pub(super) fn lost(self: &Arc<Self>, key: &AgentKey, epoch: Epoch, cause: LossCause) {
        // The grace counts from here, however long the policy thinks about it.
        let (link, at) = self.with(|state, now| (state.registry.link(key, epoch), now));
        let Some(link) = link else { return };
        let (heard, over) = (link.tunnel.heard(), link.tunnel.ended().is_some());
        // One that leaves is held, too, within the time that it has; the policy is asked for keys only.
        let leaving = if self.max_hold().is_zero() { Grace::Drop } else { Grace::Hold(self.max_hold()) };
        let grace = link.since.map_or(leaving, |since| self.grace(key, cause, &link, at, since));
        self.with(|state, now| {
            if heard {
                state.registry.heard(key, epoch);
            }
            state.registry.link_lost(key, epoch, cause, grace, over, (at, now))
        });
    }

    /// The agent drains the session of the link of this epoch.
    pub(super) fn drained(self: &Arc<Self>, key: &AgentKey, epoch: Epoch, drain: PeerDrain) {
        let (link, at) = self.with(|state, now| (state.registry.link(key, epoch), now));
        let Some((link, since)) = link.and_then(|link| link.since.map(|since| (link, since))) else { return };
        let grace = self.grace(key, LossCause::Drained, &link, at, since);
        let drain = drain.deadline.min(MAX_AGENT_DRAIN) + AGENT_DRAIN_MARGIN;
        self.with(|state, now| state.registry.drained_by_agent(key, epoch, drain, grace, now));
    }

    /// What the policy gives for a loss at `at`.
    fn grace(&self, key: &AgentKey, cause: LossCause, link: &Link<T>, at: Instant, since: Instant) -> Grace {
        let loss = LinkLoss { key, cause, up_for: at.saturating_duration_since(since), losses: link.losses };
        match guarded(Grace::Hold(DEFAULT_HOLD), || self.settings.policy.grace(&loss)) {
            Grace::Hold(hold) => Grace::Hold(hold.min(self.max_hold())),
            Grace::Drop => Grace::Drop,
        }
    }
}

/// Binds the link of this epoch to a session; whom that concerns is still to be woken.
fn bind<T: Handle>(tunnel: &T, epoch: Epoch, has: u64) -> Binding<Deferred<Result<T::Link, BindError>>> {
    let link = tunnel.bind(epoch, has);
    let (bound, heard) = match link.value() {
        Ok(link) => (registry::Bound::Yes, T::heard_before(link)),
        Err(BindError::Ended) => (registry::Bound::Over, false),
        Err(BindError::Stale) => (registry::Bound::Refused(CloseCode::STALE), false),
        Err(BindError::Violation(violation)) => (registry::Bound::Refused(violation.code()), false),
    };
    Binding { bound, heard, link }
}

/// Why a link is refused that is closed with this code.
fn refusal(code: CloseCode) -> RegisterRefusal {
    match code {
        CloseCode::FOREIGN => RegisterRefusal::Identity,
        CloseCode::STALE => RegisterRefusal::Stale,
        CloseCode::FLOOD => RegisterRefusal::Fruitless,
        CloseCode::DRAINED => RegisterRefusal::ShuttingDown,
        _ => RegisterRefusal::Mismatch,
    }
}

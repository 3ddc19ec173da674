//! What the registry decided, carried out after unlocking: who waits is answered, sessions are told, observers and
//! metrics learn of it.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::{
    connman::{
        event::TunnelEvent,
        handle::Handle,
        policy::{LossCause, Registration},
        registry::Effect,
        state::{Answer, Inner, guarded},
    },
    frame::CloseCode,
    link::Protocol,
    metrics,
    proto::SessionEnd,
};

/// The most that agents spread their new links over when this side drains: thousands of handshakes a second are taken
/// easily by whoever takes over.
const MAX_JITTER: Duration = Duration::from_secs(5);

impl<T: Handle> Inner<T> {
    /// Carries one effect out; `sender` is that of the waiting dial which it answers.
    pub(super) fn carry_out(&self, effect: Effect<T>, sender: Option<oneshot::Sender<Answer<T>>>) {
        let answer = |answer| {
            if let Some(sender) = sender {
                // A dial that was dropped just now leaves its answer behind.
                let _ = sender.send(answer);
            }
        };
        match effect {
            Effect::Release { serial, tunnel, .. } => answer(Ok((serial, tunnel))),
            Effect::Refuse { refusal, .. } => answer(Err(refusal)),
            Effect::Connected { registration } => self.tell(&TunnelEvent::Connected { registration }),
            Effect::Reconnected { registration, after } => {
                metrics::record_reconnected();
                self.tell(&TunnelEvent::Reconnected { registration, after });
            }
            Effect::Resumed { registration, after } => {
                record_resumed(after);
                self.tell(&TunnelEvent::Resumed { registration, after });
            }
            Effect::Displaced { old, tunnel, by, code, drain } => {
                displace(&tunnel, &old, &by, code, drain);
                self.tell_replaced(&old, &by);
            }
            Effect::Outlived { old, tunnel, by } => {
                tunnel.end(SessionEnd::Replaced);
                // A dial-back agent that comes back has a new session each time, and leaves nothing behind by that.
                if !are_dialback(&old, &by) {
                    record_conflict(&old, &by);
                    self.tell_replaced(&old, &by);
                }
            }
            Effect::Lost { registration, tunnel, cause, hold } => {
                // The key is absent by now: a dial that meets the end of this session finds it so.
                if let Some(tunnel) = tunnel {
                    tunnel.end(SessionEnd::Lost);
                }
                self.tell_lost(&registration, cause, hold);
            }
            Effect::Drained { registration } => self.tell_draining(&registration),
            Effect::Draining { registration, tunnel, code, drain } => {
                tunnel.drain(code, drain, (drain / 2).min(MAX_JITTER), "the server goes down");
                self.tell_draining(&registration);
            }
            Effect::Evicted { registration, tunnel } => {
                metrics::record_budget_eviction();
                tracing::warn!(key = %registration.key, "sessions in grace hold too much: the oldest is given up");
                tunnel.end(SessionEnd::Lost);
            }
            Effect::Cut { tunnel, lost: true, .. } => tunnel.end(SessionEnd::Lost),
            Effect::Cut { tunnel, code, lost: false } => tunnel.close(code, "the time to finish is over", end_of(code)),
            Effect::Closed { registration, tunnel, code, told } => {
                tunnel.close(code, "", end_of(code));
                if told {
                    self.tell_lost(&registration, LossCause::Local(code), None);
                }
            }
            Effect::Expired { registration, tunnel, ended, drained } => {
                match (ended, drained) {
                    (None, false) => metrics::record_reconnect_timeout(),
                    (None, true) => metrics::record_stayed_away(),
                    (Some(_), _) => {}
                }
                if let Some(tunnel) = tunnel {
                    tunnel.end(SessionEnd::Lost);
                }
                let (key, epoch) = (registration.key.clone(), registration.epoch);
                self.tell(&TunnelEvent::Expired { key, epoch, ended, drained });
            }
        }
    }

    fn tell_replaced(&self, old: &Registration, by: &Registration) {
        let (key, epoch, same_instance) = (old.key.clone(), old.epoch, old.instance == by.instance);
        self.tell(&TunnelEvent::Replaced { key, epoch, by: by.epoch, same_instance });
    }

    fn tell_lost(&self, registration: &Registration, cause: LossCause, grace: Option<Duration>) {
        self.tell(&TunnelEvent::Lost { key: registration.key.clone(), epoch: registration.epoch, cause, grace });
    }

    fn tell_draining(&self, registration: &Registration) {
        self.tell(&TunnelEvent::Draining { key: registration.key.clone(), epoch: registration.epoch });
    }

    pub(super) fn tell(&self, event: &TunnelEvent) {
        let (key, epoch, name) = (event.key(), event.epoch(), event.name());
        match (event, event.reason()) {
            // Its end is told.
            (TunnelEvent::Draining { .. }, _) => tracing::debug!(%key, %epoch, "tunnel {name}"),
            // Whoever asked tells it, with the answer.
            (TunnelEvent::Refused { .. }, Some(reason)) => tracing::debug!(%key, %epoch, %reason, "tunnel {name}"),
            (_, Some(reason)) => tracing::info!(%key, %epoch, %reason, "tunnel {name}"),
            (_, None) => tracing::info!(%key, %epoch, "tunnel {name}"),
        }
        self.events.tell(event);
        for observer in &self.settings.observers {
            guarded((), || observer.on_event(event));
        }
    }
}

/// Ends the tunnel of an agent whose key another one has taken, or asks its agent to let what runs finish.
fn displace<T: Handle>(tunnel: &T, old: &Registration, by: &Registration, code: CloseCode, drain: Duration) {
    record_conflict(old, by);
    let reason = if old.instance == by.instance { "the agent began anew" } else { "another agent has taken the key" };
    if are_dialback(old, by) {
        // Or it is the same, back before its loss was noticed. Its streams do without the control link.
        tunnel.end(SessionEnd::Replaced);
    } else if drain.is_zero() {
        tunnel.close(code, reason, SessionEnd::Replaced);
    } else {
        tunnel.drain(code, drain, Duration::ZERO, reason);
    }
}

/// Counts a session that goes on after such a pause; `None`: it had a link still.
fn record_resumed(after: Option<Duration>) {
    match after {
        Some(after) => {
            metrics::record_reconnected();
            metrics::record_resume("ok");
            metrics::record_pause(after);
        }
        None => metrics::record_resume("fenced"),
    }
}

fn record_conflict(old: &Registration, by: &Registration) {
    if old.instance != by.instance {
        metrics::record_key_conflict("replaced");
    }
}

fn are_dialback(old: &Registration, by: &Registration) -> bool {
    [old, by].iter().all(|registration| registration.protocol == Protocol::Dialback)
}

/// How a session ends that is closed with this code.
fn end_of(code: CloseCode) -> SessionEnd {
    match code {
        CloseCode::REPLACED | CloseCode::STALE => SessionEnd::Replaced,
        CloseCode::CREDENTIALS => SessionEnd::Revoked,
        _ => SessionEnd::Shutdown,
    }
}

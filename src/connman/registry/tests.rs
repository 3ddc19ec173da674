//! The rules of the registry, one by one.

mod gone;
mod model;
mod sessions;

use super::*;
use crate::{connman::policy::Grace, frame::InstanceId};

const LIMITS: Limits = Limits { tunnels: 2, waiting: 5, drain: Duration::ZERO };
const PER_KEY: usize = 3;

fn key(n: u8) -> AgentKey {
    format!("k{n}x").parse().unwrap()
}

fn registration(n: u8, epoch: u64) -> Arc<Registration> {
    Arc::new(Registration::new(key(n), "p".into(), Epoch::new(epoch), InstanceId::new([1; 16])))
}

/// The session that begins with this epoch.
fn session(epoch: u64) -> SessionId {
    SessionId::new(u128::from(epoch).to_be_bytes())
}

fn ask() -> Ask {
    let unreported = Duration::from_secs(10);
    Ask { not_before: Epoch::new(0), limit: PER_KEY, absent: Absence::Refuse, unreported, most: None }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The answers to tickets among effects.
fn answers(effects: &[Effect<u64>]) -> Vec<(Ticket, Result<u64, Refusal>)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Release { ticket, tunnel, .. } => Some((*ticket, Ok(*tunnel))),
            Effect::Refuse { ticket, refusal } => Some((*ticket, Err(unexplained(refusal.clone())))),
            _ => None,
        })
        .collect()
}

/// A refusal without what is known of a key that is gone.
fn unexplained(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Gone(_) => Refusal::NoConnection,
        Refusal::NotWoken(text, _) => Refusal::NotWoken(text, None),
        refusal => refusal,
    }
}

/// A registry in which key 0 is connected with epoch 1.
fn connected() -> (Registry<u64>, Instant) {
    let now = Instant::now();
    let mut registry = Registry::new(LIMITS);
    registry.register(&registration(0, 1), session(1), 1, None, now).unwrap();
    registry.take_effects();
    (registry, now)
}

/// … and was lost at the given time, held for 30 s.
fn in_grace() -> (Registry<u64>, Instant) {
    let (mut registry, now) = connected();
    let grace = Grace::Hold(Duration::from_secs(30));
    assert!(registry.link_lost(&key(0), Epoch::new(1), LossCause::Lost, grace, false, (now, now)));
    registry.take_effects();
    (registry, now)
}

#[test]
fn a_grace_ends_exactly() {
    let (mut registry, now) = in_grace();
    let end = now + Duration::from_secs(30);
    assert_eq!(registry.next_deadline(), Some(end));
    let DialStep::Wait(ticket, _) = registry.dial(&key(0), ask(), end - Duration::from_nanos(1)) else { panic!() };
    assert_eq!(registry.take_effects(), []);
    // No sweep needed: whoever calls at the end finds it ended.
    let gone = Departure { since: now, cause: LossCause::Lost };
    assert_eq!(registry.dial(&key(0), ask(), end), DialStep::Refused(Refusal::Gone(gone)));
    assert_eq!(answers(&registry.take_effects()), [(ticket, Err(Refusal::ReconnectTimeout))]);
    assert!(registry.slots.is_empty() && registry.due.is_empty());
}

#[test]
fn a_grace_counts_from_the_loss_and_not_from_its_report() {
    let (mut registry, now) = connected();
    let grace = Grace::Hold(Duration::from_secs(30));
    registry.link_lost(&key(0), Epoch::new(1), LossCause::Lost, grace, false, (now, now + Duration::from_secs(31)));
    assert!(registry.incumbent(&key(0), now).is_none(), "reported after its end");
    assert_eq!(registry.counts(), Counts::default());
}

#[test]
fn a_grace_goes_on_after_links_on_which_nobody_spoke() {
    let hold = Duration::from_secs(30);
    for heard in [false, true] {
        let (mut registry, now) = in_grace();
        let (second, third) = (now + Duration::from_secs(10), now + Duration::from_secs(20));
        registry.register(&registration(0, 2), session(2), 2, Some(Epoch::new(1)), second).unwrap();
        if heard {
            registry.heard(&key(0), Epoch::new(2));
        }
        // What is displaced without having spoken changes nothing either.
        registry.register(&registration(0, 3), session(3), 3, Some(Epoch::new(2)), second).unwrap();
        registry.take_effects();
        registry.link_lost(&key(0), Epoch::new(3), LossCause::Lost, Grace::Hold(hold), false, (third, third));
        let end = if heard { third + hold } else { now + hold };
        assert_eq!(registry.next_deadline(), Some(end), "{heard}");
        let told = registry.take_effects();
        assert!(matches!(told[..], [Effect::Lost { hold: Some(hold), .. }] if hold == end - third), "{told:?}");
    }
}

#[test]
fn a_stale_loss_report_changes_nothing() {
    let (mut registry, now) = connected();
    registry.register(&registration(0, 2), session(2), 2, Some(Epoch::new(1)), now).unwrap();
    registry.take_effects();
    assert!(!registry.link_lost(&key(0), Epoch::new(1), LossCause::Lost, Grace::Drop, false, (now, now)));
    assert_eq!(registry.find(&key(0), Epoch::new(0), now), Found::Ready(Epoch::new(2), 2));
    assert_eq!(registry.take_effects(), []);
}

#[test]
fn a_registration_that_was_decided_on_another_state_is_refused() {
    let (mut registry, now) = connected();
    assert_eq!(registry.register(&registration(0, 3), session(3), 3, None, now), Err((Conflict::Changed, 3)));
    assert_eq!(
        registry.register(&registration(0, 3), session(3), 3, Some(Epoch::new(2)), now),
        Err((Conflict::Changed, 3))
    );
    assert_eq!(registry.register(&registration(0, 3), session(3), 3, Some(Epoch::new(1)), now), Ok(()));
}

#[test]
fn a_key_in_grace_keeps_its_place_at_the_limit_of_tunnels() {
    let (mut registry, now) = in_grace();
    registry.register(&registration(1, 2), session(2), 2, None, now).unwrap();
    assert_eq!(registry.register(&registration(2, 3), session(3), 3, None, now), Err((Conflict::Overloaded, 3)));
    assert_eq!(registry.register(&registration(0, 4), session(4), 4, Some(Epoch::new(1)), now), Ok(()));
}

#[test]
fn who_waits_for_the_report_of_a_loss_then_waits_for_the_grace() {
    let (mut registry, now) = connected();
    let dead = Ask { not_before: Epoch::new(2), ..ask() };
    let DialStep::Wait(ticket, _) = registry.dial(&key(0), dead, now) else { panic!() };
    assert_eq!(registry.next_deadline(), Some(now + Duration::from_secs(10)));
    let lost = now + Duration::from_secs(9);
    let grace = Grace::Hold(Duration::from_secs(30));
    registry.link_lost(&key(0), Epoch::new(1), LossCause::Dead, grace, false, (lost, lost));
    registry.take_effects();
    let back = now + Duration::from_secs(35);
    registry.register(&registration(0, 2), session(2), 2, Some(Epoch::new(1)), back).unwrap();
    assert_eq!(answers(&registry.take_effects()), [(ticket, Ok(2))]);
}

#[test]
fn a_loss_that_is_never_reported_ends_the_wait_for_it() {
    let (mut registry, now) = connected();
    let dead = Ask { not_before: Epoch::new(2), ..ask() };
    let DialStep::Wait(ticket, _) = registry.dial(&key(0), dead, now) else { panic!() };
    registry.expire(now + Duration::from_secs(10));
    assert_eq!(answers(&registry.take_effects()), [(ticket, Err(Refusal::Unreported))]);
}

#[test]
fn times_beyond_measure_do_not_overflow() {
    let (mut registry, now) = connected();
    registry.link_lost(&key(0), Epoch::new(1), LossCause::Lost, Grace::Hold(Duration::MAX), false, (now, now));
    assert!(registry.next_deadline() > Some(now));
    let forever = Ask { absent: Absence::Wait(Duration::MAX), ..ask() };
    assert!(matches!(registry.dial(&key(1), forever, now), DialStep::Wait(..)));
}

#[test]
fn nothing_gets_in_after_the_shutdown() {
    let (mut registry, now) = in_grace();
    let DialStep::Wait(ticket, _) = registry.dial(&key(0), ask(), now) else { panic!() };
    registry.register(&registration(1, 2), session(2), 2, None, now).unwrap();
    registry.take_effects();
    registry.shut_down(CloseCode::RESTART, now);
    let effects = registry.take_effects();
    assert_eq!(answers(&effects), [(ticket, Err(Refusal::ShuttingDown))]);
    assert!(effects.iter().any(|e| matches!(e, Effect::Closed { tunnel: 2, code: CloseCode::RESTART, .. })));
    assert_eq!(registry.register(&registration(0, 3), session(3), 3, None, now), Err((Conflict::ShuttingDown, 3)));
    assert_eq!(registry.dial(&key(0), ask(), now), DialStep::Refused(Refusal::ShuttingDown));
    assert_eq!(registry.counts(), Counts::default());
    assert!(registry.slots.is_empty() && registry.due.is_empty());
}

#[test]
fn waiters_are_answered_oldest_first() {
    let (mut registry, now) = in_grace();
    let tickets: Vec<Ticket> = (0..PER_KEY)
        .map(|_| match registry.dial(&key(0), ask(), now) {
            DialStep::Wait(ticket, _) => ticket,
            step => panic!("{step:?}"),
        })
        .collect();
    assert_eq!(registry.dial(&key(0), ask(), now), DialStep::Refused(Refusal::TooManyPending));
    registry.register(&registration(0, 2), session(2), 2, Some(Epoch::new(1)), now).unwrap();
    let effects = registry.take_effects();
    assert!(matches!(effects[..2], [Effect::Outlived { .. }, Effect::Reconnected { .. }]), "{effects:?}");
    assert_eq!(answers(&effects), tickets.into_iter().map(|ticket| (ticket, Ok(2))).collect::<Vec<_>>());
}

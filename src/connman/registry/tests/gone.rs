//! What is remembered of keys that are gone.

use super::*;
use crate::connman::registry::gone::MAX_GONE;

const HOUR: Duration = Duration::from_secs(3600);

/// A key connects with an epoch of its own, and is lost at once and for good.
fn come_and_go(registry: &mut Registry<u64>, key: &AgentKey, epoch: u64, now: Instant) {
    let who = Registration::new(key.clone(), "p".into(), Epoch::new(epoch), InstanceId::new([1; 16]));
    registry.register(&Arc::new(who), session(epoch), epoch, None, now).unwrap();
    assert!(registry.link_lost(key, Epoch::new(epoch), LossCause::Dead, Grace::Drop, false, (now, now)));
    registry.take_effects();
}

fn cause(registry: &mut Registry<u64>, now: Instant) -> Option<LossCause> {
    registry.gone(&key(0), now).map(|departure| departure.cause)
}

#[test]
fn a_key_is_gone_since_its_link_went_and_for_the_last_cause() {
    let (mut registry, now) = in_grace();
    assert_eq!(registry.gone(&key(0), now), None, "it is in grace");
    let end = now + Duration::from_secs(30);
    assert_eq!(registry.gone(&key(0), end), Some(Departure { since: now, cause: LossCause::Lost }));

    let (mut registry, now) = in_grace();
    registry.close(&key(0), CloseCode::CREDENTIALS, &Refusal::NoConnection, now + ms(5));
    let revoked = Departure { since: now, cause: LossCause::Local(CloseCode::CREDENTIALS) };
    assert_eq!(registry.gone(&key(0), now + ms(5)), Some(revoked));
    registry.close(&key(0), CloseCode::RESTART, &Refusal::NoConnection, now + ms(6));
    assert_eq!(registry.gone(&key(0), now + ms(6)), Some(revoked), "it was gone already");

    let (mut registry, now) = connected();
    registry.close(&key(0), CloseCode::CREDENTIALS, &Refusal::NoConnection, now + ms(5));
    assert_eq!(registry.gone(&key(0), now + ms(5)), Some(Departure { since: now + ms(5), ..revoked }));
}

#[test]
fn a_key_that_was_taken_over_and_left_is_gone_by_its_last_agent() {
    let (mut registry, now) = in_grace();
    registry.register(&registration(0, 2), session(2), 2, Some(Epoch::new(1)), now).unwrap();
    registry.register(&registration(0, 3), session(3), 3, Some(Epoch::new(2)), now).unwrap();
    assert_eq!(cause(&mut registry, now), None);
    assert!(registry.drained_by_agent(&key(0), Epoch::new(3), ms(10), Grace::Drop, now));
    assert_eq!(cause(&mut registry, now), Some(LossCause::Drained));
    // The end of what it leaves behind says nothing new.
    assert_eq!(cause(&mut registry, now + ms(10)), Some(LossCause::Drained));
}

#[test]
fn a_key_that_returns_is_not_gone_and_its_next_end_is_told_alone() {
    let (mut registry, now) = (Registry::new(LIMITS), Instant::now());
    come_and_go(&mut registry, &key(0), 1, now);
    assert_eq!(cause(&mut registry, now), Some(LossCause::Dead));
    registry.register(&registration(0, 2), session(2), 2, None, now).unwrap();
    assert_eq!(cause(&mut registry, now), None);
    let lost = (now + HOUR / 2, now + HOUR / 2);
    registry.link_lost(&key(0), Epoch::new(2), LossCause::Aborted, Grace::Drop, false, lost);
    assert_eq!(cause(&mut registry, now + HOUR), Some(LossCause::Aborted), "not forgotten with what came before");
}

#[test]
fn who_waits_is_told_too_and_a_key_that_was_never_there_is_none_that_is_gone() {
    let (mut registry, now) = (Registry::new(LIMITS), Instant::now());
    for (n, gone) in [(0, true), (1, false)] {
        if gone {
            come_and_go(&mut registry, &key(n), 1, now);
        }
        let departure = Departure { since: now, cause: LossCause::Dead };
        let refusal = if gone { Refusal::Gone(departure) } else { Refusal::NoConnection };
        assert_eq!(registry.dial(&key(n), ask(), now), DialStep::Refused(refusal.clone()));
        let patient = Ask { absent: Absence::Wait(ms(5)), ..ask() };
        let DialStep::Wait(ticket, _) = registry.dial(&key(n), patient, now) else { panic!() };
        registry.expire(now + ms(5));
        assert_eq!(registry.take_effects(), [Effect::Refuse { ticket, refusal }]);
        let waking = Ask { absent: Absence::Wake(ms(5)), ..ask() };
        let DialStep::Wake(ticket, _) = registry.dial(&key(n), waking, now) else { panic!() };
        registry.woken(&key(n), ticket, Err(Refusal::NotWoken("no room".into(), None)), now);
        let refusal = Refusal::NotWoken("no room".into(), gone.then_some(departure));
        assert_eq!(registry.take_effects(), [Effect::Refuse { ticket, refusal }]);
    }
}

#[test]
fn the_oldest_is_forgotten_for_one_more_than_are_remembered() {
    let (mut registry, now) = (Registry::new(LIMITS), Instant::now());
    let nth = |n: usize| -> AgentKey { format!("agent-{n}").parse().unwrap() };
    for n in 0..MAX_GONE {
        come_and_go(&mut registry, &nth(n), n as u64, now + ms(n as u64));
    }
    let end = now + ms(MAX_GONE as u64);
    assert!(registry.gone(&nth(0), end).is_some());
    // One that goes again takes no other's place, and is the newest.
    come_and_go(&mut registry, &nth(0), MAX_GONE as u64, end);
    assert!(registry.gone(&nth(1), end).is_some());
    come_and_go(&mut registry, &nth(MAX_GONE), MAX_GONE as u64 + 1, end);
    let remembered = [0, 1, 2, MAX_GONE].map(|n| registry.gone(&nth(n), end).is_some());
    assert_eq!(remembered, [true, false, true, true]);
}

#[test]
fn a_key_is_remembered_for_an_hour_from_the_end_of_its_grace() {
    let (mut registry, now) = in_grace();
    let end = now + Duration::from_secs(30);
    assert_eq!(registry.next_deadline(), Some(end));
    registry.expire(end);
    assert_eq!(registry.next_deadline(), None, "nobody is woken to forget");
    assert_eq!(cause(&mut registry, end + HOUR - ms(1)), Some(LossCause::Lost));
    assert_eq!(cause(&mut registry, end + HOUR), None);
    assert_eq!(registry.dial(&key(0), ask(), end + HOUR), DialStep::Refused(Refusal::NoConnection));
}

//! Sessions that outlive their links, give way to one another, and leave.

use super::*;

const DRAIN: Duration = Duration::from_secs(5);
const HOLD: Duration = Duration::from_secs(30);

/// A registry that lets displaced sessions finish, in which key 0 is connected with epoch and session 1.
fn connected() -> (Registry<u64>, Instant) {
    let now = Instant::now();
    let mut registry = Registry::new(Limits { drain: DRAIN, ..LIMITS });
    registry.register(&registration(0, 1), session(1), 1, None, now).unwrap();
    registry.take_effects();
    (registry, now)
}

fn lose(registry: &mut Registry<u64>, epoch: u64, now: Instant) -> bool {
    registry.link_lost(&key(0), Epoch::new(epoch), LossCause::Lost, Grace::Hold(HOLD), false, (now, now))
}

fn replacement(epoch: u64) -> Arc<Registration> {
    let other = InstanceId::new([2; 16]);
    Arc::new(Registration::new(key(0), "p".into(), Epoch::new(epoch), other))
}

/// What a HELLO gets, in short.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Bound(u64),
    Fresh { incumbent: Option<u64> },
    Refused(u16),
}

/// A HELLO of the agent of `who` for a session; the tunnel answers `bound`, and says whether its agent was heard.
fn hello(
    registry: &mut Registry<u64>,
    who: &Arc<Registration>,
    of: u64,
    attempt: u64,
    (bound, heard): (Bound, bool),
    now: Instant,
) -> Got {
    let claim = Claim { registration: who, session: session(of), attempt };
    match registry.resume(&claim, now, |_| Binding { bound, heard, link: () }) {
        Resume::Bound(tunnel, ()) => Got::Bound(tunnel),
        Resume::Fresh(incumbent, _) => {
            Got::Fresh { incumbent: incumbent.map(|incumbent| incumbent.registration.epoch.number()) }
        }
        Resume::Refused(code, _) => Got::Refused(code.number()),
    }
}

fn resume(registry: &mut Registry<u64>, epoch: u64, attempt: u64, now: Instant) -> Got {
    hello(registry, &registration(0, epoch), 1, attempt, (Bound::Yes, true), now)
}

#[test]
fn a_session_in_grace_goes_on_and_who_waits_gets_it() {
    let (mut registry, now) = connected();
    assert!(lose(&mut registry, 1, now));
    let DialStep::Wait(ticket, _) = registry.dial(&key(0), ask(), now) else { panic!() };
    registry.take_effects();
    let back = now + HOLD - Duration::from_nanos(1);
    assert_eq!(resume(&mut registry, 2, 1, back), Got::Bound(1));
    let effects = registry.take_effects();
    let after = Some(HOLD - Duration::from_nanos(1));
    assert!(matches!(&effects[0], Effect::Resumed { after: told, .. } if *told == after), "{effects:?}");
    assert_eq!(answers(&effects), [(ticket, Ok(1))]);
    assert_eq!(registry.counts(), Counts { connected: 1, ..Counts::default() });
    assert_eq!(registry.next_deadline(), None);
}

#[test]
fn m42_b58_at_the_end_of_its_grace_a_session_is_unknown() {
    let (mut registry, now) = connected();
    lose(&mut registry, 1, now);
    registry.take_effects();
    assert_eq!(resume(&mut registry, 2, 1, now + HOLD), Got::Fresh { incumbent: None });
    let effects = registry.take_effects();
    assert!(matches!(effects[..], [Effect::Expired { tunnel: Some(1), ended: None, .. }]), "{effects:?}");
    assert!(registry.sessions.is_empty() && registry.slots.is_empty());
}

#[test]
fn b53_a_resume_supersedes_a_link_that_is_still_held_for_alive() {
    let (mut registry, now) = connected();
    assert_eq!(resume(&mut registry, 2, 1, now), Got::Bound(1));
    assert!(matches!(registry.take_effects()[..], [Effect::Resumed { after: None, .. }]));
    assert!(!lose(&mut registry, 1, now), "the report of the old link is stale");
    assert!(lose(&mut registry, 2, now));
}

#[test]
fn m39_m41_b54_b57_what_is_stale_or_foreign_is_refused_and_changes_nothing() {
    let (mut registry, now) = connected();
    assert_eq!(resume(&mut registry, 3, 5, now), Got::Bound(1));
    registry.register(&registration(1, 4), session(4), 4, None, now).unwrap();
    registry.take_effects();
    let foreign = Arc::new(Registration::new(key(0), "q".into(), Epoch::new(9), InstanceId::new([1; 16])));
    let yes = (Bound::Yes, true);
    let table = [
        (registration(0, 2), 1, 6, Got::Refused(4409)),
        (registration(0, 2), 0, 1, Got::Refused(4409)), // whatever session it names
        (registration(0, 9), 1, 5, Got::Refused(4409)),
        (foreign, 1, 6, Got::Refused(4403)),
        (registration(1, 9), 1, 6, Got::Refused(4403)),
        (registration(0, 9), 7, 1, Got::Fresh { incumbent: Some(3) }),
        (registration(0, 9), 0, 1, Got::Fresh { incumbent: Some(3) }),
        (registration(2, 9), 0, 1, Got::Fresh { incumbent: None }),
    ];
    for (who, of, attempt, got) in table {
        assert_eq!(hello(&mut registry, &who, of, attempt, yes, now), got);
        assert_eq!(registry.take_effects(), []);
        assert_eq!(registry.find(&key(0), Epoch::new(0), now), Found::Ready(Epoch::new(1), 1));
    }
}

#[test]
fn a_session_that_has_ended_is_begun_anew_and_one_that_refuses_tells_the_code() {
    let (mut registry, now) = connected();
    lose(&mut registry, 1, now);
    let who = registration(0, 2);
    let ended = hello(&mut registry, &who, 1, 1, (Bound::Over, true), now);
    assert_eq!(ended, Got::Fresh { incumbent: Some(1) });
    let refused = hello(&mut registry, &who, 1, 1, (Bound::Refused(CloseCode::FORBIDDEN), true), now);
    assert_eq!(refused, Got::Refused(4420));
    assert_eq!(registry.counts(), Counts { grace: 1, ..Counts::default() }, "the key is still waited for");
}

#[test]
fn resumes_on_which_nobody_speaks_do_not_prolong_a_grace() {
    for heard in [false, true] {
        let (mut registry, now) = connected();
        lose(&mut registry, 1, now);
        let (second, third) = (now + Duration::from_secs(10), now + Duration::from_secs(20));
        resume(&mut registry, 2, 1, second);
        // One more link in its place, before which the agent has spoken on the old one or not.
        hello(&mut registry, &registration(0, 3), 1, 2, (Bound::Yes, heard), second);
        lose(&mut registry, 3, third);
        let end = if heard { third + HOLD } else { now + HOLD };
        assert_eq!(registry.next_deadline(), Some(end), "{heard}");
    }
}

#[test]
fn b68_a_new_session_ends_the_one_in_grace_at_once() {
    let (mut registry, now) = connected();
    lose(&mut registry, 1, now);
    registry.take_effects();
    registry.register(&replacement(2), session(2), 2, Some(Epoch::new(1)), now).unwrap();
    let effects = registry.take_effects();
    assert!(matches!(effects[..], [Effect::Outlived { tunnel: 1, .. }, Effect::Reconnected { .. }]), "{effects:?}");
    assert_eq!(resume(&mut registry, 3, 1, now), Got::Fresh { incumbent: Some(2) });
}

#[test]
fn b10_a_displaced_session_finishes_in_its_time_and_takes_no_dial() {
    let (mut registry, now) = connected();
    registry.register(&replacement(2), session(2), 2, Some(Epoch::new(1)), now).unwrap();
    let effects = registry.take_effects();
    let told = |effect: &Effect<u64>| {
        matches!(effect, Effect::Displaced { tunnel: 1, code: CloseCode::REPLACED, drain: DRAIN, .. })
    };
    assert!(told(&effects[0]), "{effects:?}");
    assert_eq!(registry.counts(), Counts { connected: 1, leaving: 1, ..Counts::default() });
    assert_eq!(registry.dial(&key(0), ask(), now), DialStep::Ready(Epoch::new(2), 2));
    registry.expire(now + DRAIN);
    assert_eq!(registry.take_effects(), [Effect::Cut { tunnel: 1, code: CloseCode::REPLACED, lost: false }]);
    assert_eq!(registry.counts(), Counts { connected: 1, ..Counts::default() });

    // A replaced session is not waited for; its link's end is its own.
    registry.register(&registration(0, 3), session(3), 3, Some(Epoch::new(2)), now + DRAIN).unwrap();
    registry.take_effects();
    assert!(lose(&mut registry, 2, now + DRAIN));
    assert_eq!(registry.take_effects(), [Effect::Cut { tunnel: 2, code: CloseCode::REPLACED, lost: false }]);
    assert!(matches!(registry.find(&key(0), Epoch::new(0), now), Found::Ready(_, 3)));
}

#[test]
fn b85_a_session_that_its_agent_drains_leaves_and_may_come_back_meanwhile() {
    let (mut registry, now) = connected();
    let drained = |registry: &mut Registry<u64>, epoch| {
        registry.drained_by_agent(&key(0), Epoch::new(epoch), DRAIN, Grace::Hold(HOLD), now)
    };
    assert!(drained(&mut registry, 1));
    assert!(!drained(&mut registry, 1), "said again, it means nothing more");
    assert!(matches!(registry.take_effects()[..], [Effect::Drained { .. }]));
    let DialStep::Wait(ticket, _) = registry.dial(&key(0), ask(), now) else { panic!("a dial waits for the next") };

    assert!(lose(&mut registry, 1, now));
    assert_eq!(registry.take_effects(), [], "it is held for its own time");
    assert_eq!(resume(&mut registry, 2, 1, now), Got::Bound(1));
    assert_eq!(answers(&registry.take_effects()), [], "and takes no dials");

    registry.register(&replacement(3), session(3), 3, Some(Epoch::new(1)), now).unwrap();
    let effects = registry.take_effects();
    assert!(matches!(effects[0], Effect::Reconnected { .. }), "neither displaces the other: {effects:?}");
    assert_eq!(answers(&effects), [(ticket, Ok(3))]);
    // Its agent ends it in order.
    registry.link_lost(&key(0), Epoch::new(2), LossCause::Lost, Grace::Drop, true, (now, now));
    assert!(matches!(registry.take_effects()[..], [Effect::Cut { tunnel: 1, code: CloseCode::DRAINED, lost: true }]));
    assert_eq!(registry.counts(), Counts { connected: 1, ..Counts::default() });
}

#[test]
fn a_link_older_than_that_of_a_session_that_leaves_is_stale() {
    let (mut registry, now) = connected();
    registry.drained_by_agent(&key(0), Epoch::new(1), DRAIN, Grace::Drop, now);
    resume(&mut registry, 3, 1, now);
    let late = hello(&mut registry, &registration(0, 2), 0, 1, (Bound::Yes, true), now);
    assert_eq!(late, Got::Refused(4409));
}

#[test]
fn b84_a_drain_has_all_sessions_leave_and_takes_nothing_new() {
    let (mut registry, now) = connected();
    registry.register(&registration(1, 2), session(2), 2, None, now).unwrap();
    lose(&mut registry, 1, now);
    registry.take_effects();
    let until = now + DRAIN;
    registry.drain(CloseCode::RESTART, until, now);
    let told = registry.take_effects().into_iter().filter(|effect| matches!(effect, Effect::Draining { .. })).count();
    assert_eq!((told, registry.counts()), (2, Counts { grace: 2, leaving: 2, ..Counts::default() }));
    assert_eq!(registry.register(&registration(2, 3), session(3), 3, None, now), Err((Conflict::ShuttingDown, 3)));
    assert_eq!(resume(&mut registry, 4, 1, now), Got::Bound(1), "what runs goes on");
    let DialStep::Wait(ticket, _) = registry.dial(&key(0), ask(), now) else { panic!() };
    assert_eq!(registry.dial(&key(2), ask(), now), DialStep::Refused(Refusal::ShuttingDown));
    registry.expire(until);
    let effects = registry.take_effects();
    assert_eq!(answers(&effects), [(ticket, Err(Refusal::ShuttingDown))]);
    let cut = effects.iter().filter(|effect| matches!(effect, Effect::Cut { code: CloseCode::RESTART, .. })).count();
    assert_eq!((cut, registry.counts()), (2, Counts::default()));
    assert!(registry.slots.is_empty() && registry.due.is_empty() && registry.sessions.is_empty());
}

#[test]
fn sessions_that_leave_have_a_bound() {
    let (mut registry, now) = connected();
    for epoch in 2..20 {
        registry.register(&replacement(epoch), session(epoch), epoch, Some(Epoch::new(epoch - 1)), now).unwrap();
        assert!(registry.counts().leaving <= 4);
    }
    let cut = registry.take_effects().into_iter().filter_map(|effect| match effect {
        Effect::Cut { tunnel, .. } => Some(tunnel),
        _ => None,
    });
    assert_eq!(Vec::from_iter(cut), Vec::from_iter(1..15), "the oldest is cut off for one more");
    assert_eq!(registry.sessions.len(), 5);
}

#[test]
fn b70_the_session_whose_grace_ends_first_is_evicted_and_its_key_waited_for() {
    let (mut registry, now) = connected();
    registry.register(&registration(1, 2), session(2), 2, None, now).unwrap();
    assert!(!registry.evict(), "those with a link are left alone");
    lose(&mut registry, 1, now + ms(1));
    registry.link_lost(&key(1), Epoch::new(2), LossCause::Lost, Grace::Hold(HOLD), false, (now, now));
    registry.take_effects();
    for tunnel in [2, 1] {
        assert!(registry.evict());
        let effects = registry.take_effects();
        assert!(matches!(effects[..], [Effect::Evicted { tunnel: told, .. }] if told == tunnel), "{effects:?}");
    }
    assert!(!registry.evict());
    assert_eq!(registry.counts(), Counts { grace: 2, ..Counts::default() });
    assert_eq!(resume(&mut registry, 3, 1, now), Got::Fresh { incumbent: Some(1) });
}

#[test]
fn a_disconnect_closes_the_sessions_that_leave_too() {
    let (mut registry, now) = connected();
    registry.register(&replacement(2), session(2), 2, Some(Epoch::new(1)), now).unwrap();
    registry.take_effects();
    assert!(registry.close(&key(0), CloseCode::CREDENTIALS, &Refusal::NoConnection, now));
    let closed = registry.take_effects().into_iter().filter(|effect| matches!(effect, Effect::Closed { .. })).count();
    assert_eq!((closed, registry.counts()), (2, Counts::default()));
    assert!(registry.slots.is_empty() && registry.due.is_empty() && registry.sessions.is_empty());
}

#[test]
fn m40_a_newer_link_of_a_session_that_leaves_makes_a_judgement_void() {
    let (mut registry, now) = connected();
    registry.drained_by_agent(&key(0), Epoch::new(1), DRAIN, Grace::Hold(HOLD), now);
    let fresh = hello(&mut registry, &registration(0, 2), 0, 1, (Bound::Yes, true), now);
    assert_eq!(fresh, Got::Fresh { incumbent: Some(1) });
    assert_eq!(resume(&mut registry, 3, 1, now), Got::Bound(1));
    let late = registry.register(&registration(0, 2), session(2), 2, Some(Epoch::new(1)), now);
    assert_eq!(late, Err((Conflict::Changed, 2)));
}

#[test]
fn m53_a_session_that_leaves_is_held_no_longer_than_any_other() {
    let (mut registry, now) = connected();
    let drain = Duration::from_secs(3600);
    registry.drained_by_agent(&key(0), Epoch::new(1), drain, Grace::Drop, now);
    lose(&mut registry, 1, now);
    assert_eq!(resume(&mut registry, 2, 1, now + ms(1)), Got::Bound(1));
    assert_eq!(registry.next_deadline(), Some(now + drain), "with a link it has all its time");
    lose(&mut registry, 2, now + ms(2));
    assert_eq!(registry.next_deadline(), Some(now + HOLD), "nobody spoke on it");
    assert_eq!(resume(&mut registry, 3, 2, now + ms(3)), Got::Bound(1));
    registry.heard(&key(0), Epoch::new(3));
    lose(&mut registry, 3, now + ms(4));
    assert_eq!(registry.next_deadline(), Some(now + ms(4) + HOLD));
    registry.take_effects();
    registry.expire(now + ms(4) + HOLD);
    assert!(matches!(registry.take_effects()[..], [Effect::Cut { tunnel: 1, code: CloseCode::DRAINED, lost: true }]));
    assert!(registry.slots.is_empty() && registry.due.is_empty() && registry.sessions.is_empty());
}

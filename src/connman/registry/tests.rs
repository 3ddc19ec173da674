//! The registry against a simple model of it, over random lists of operations; and its rules, one by one.

mod gone;
mod sessions;

use proptest::prelude::*;

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

#[derive(Debug, Clone)]
enum Op {
    Register {
        key: u8,
    },
    Lose {
        key: u8,
        stale: bool,
        hold: Option<u64>,
    },
    Dial {
        key: u8,
        dead: bool,
        absent: Absence,
        most: Option<u64>,
    },
    /// The start of a key's agent ends.
    Woken {
        key: u8,
        late: bool,
        fails: bool,
    },
    GiveBack {
        nth: usize,
    },
    Close {
        key: u8,
    },
    /// The agent speaks.
    Hear {
        key: u8,
    },
    Advance {
        ms: u64,
    },
    /// To the nearest deadline, or to a nanosecond before it.
    AdvanceToDeadline {
        exactly: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let keys = 0..3u8;
    prop_oneof![
        3 => keys.clone().prop_map(|key| Op::Register { key }),
        3 => (keys.clone(), prop::bool::weighted(0.2), prop::option::weighted(0.8, 0..50u64))
            .prop_map(|(key, stale, hold)| Op::Lose { key, stale, hold }),
        8 => (keys.clone(), any::<bool>(), absence(), prop::option::weighted(0.3, 0..50u64))
            .prop_map(|(key, dead, absent, most)| Op::Dial { key, dead, absent, most }),
        2 => (keys.clone(), prop::bool::weighted(0.2), any::<bool>())
            .prop_map(|(key, late, fails)| Op::Woken { key, late, fails }),
        2 => (0..8usize).prop_map(|nth| Op::GiveBack { nth }),
        1 => keys.clone().prop_map(|key| Op::Close { key }),
        2 => keys.prop_map(|key| Op::Hear { key }),
        2 => (0..20u64).prop_map(|ms| Op::Advance { ms }),
        2 => any::<bool>().prop_map(|exactly| Op::AdvanceToDeadline { exactly }),
    ]
}

fn absence() -> impl Strategy<Value = Absence> {
    prop_oneof![
        Just(Absence::Refuse),
        (0..50u64).prop_map(|wait| Absence::Wait(ms(wait))),
        (0..50u64).prop_map(|within| Absence::Wake(ms(within))),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Now {
    Absent,
    /// The epoch, and the end of the grace before if the agent has not spoken since.
    Up(u64, Option<Instant>),
    Grace(u64, Instant),
}

/// A dial that waits, in the model.
#[derive(Debug, Clone, Copy)]
struct Waits {
    of: u8,
    ticket: Ticket,
    /// If not by the key's grace or its start.
    own: Option<Instant>,
    /// The caller's.
    last: Option<Instant>,
}

impl Waits {
    fn until(&self) -> Option<Instant> {
        match (self.own, self.last) {
            (Some(own), Some(last)) => Some(own.min(last)),
            (own, last) => own.or(last),
        }
    }
}

/// The same rules, written as scans over plain lists.
#[derive(Debug)]
struct Model {
    keys: [Now; 3],
    /// By whom each key's agent is being started, until when, and whether that still runs.
    wakes: [Option<(Ticket, Instant, bool)>; 3],
    /// Oldest first.
    waiters: Vec<Waits>,
    answers: Vec<(Ticket, Result<u64, Refusal>)>,
    /// Every ticket there ever was, and whose it is.
    issued: HashMap<Ticket, u8>,
    epoch: u64,
    now: Instant,
}

/// What ends next, in the order of what ends at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ends {
    Grace(u8),
    Wait(u8, Ticket),
    Wake(u8),
}

impl Model {
    fn state(&self, key: u8) -> Now {
        self.keys[usize::from(key)]
    }

    fn set(&mut self, key: u8, state: Now) {
        self.keys[usize::from(key)] = state;
    }

    fn answer_all(&mut self, key: u8, answer: &Result<u64, Refusal>) {
        for waits in self.waiters.extract_if(.., |waits| waits.of == key) {
            self.answers.push((waits.ticket, answer.clone()));
        }
    }

    fn deadlines(&self) -> impl Iterator<Item = (Instant, Ends)> {
        let graces = (0..3).filter_map(|n| match self.state(n) {
            Now::Grace(_, until) => Some((until, Ends::Grace(n))),
            _ => None,
        });
        let waits = self.waiters.iter().filter_map(|w| Some((w.until()?, Ends::Wait(w.of, w.ticket))));
        let wakes = (0..3).filter_map(|n| Some((self.wakes[usize::from(n)]?.1, Ends::Wake(n))));
        graces.chain(waits).chain(wakes)
    }

    fn expire(&mut self) {
        while let Some((_, ends)) = self.deadlines().min().filter(|(at, _)| *at <= self.now) {
            match ends {
                Ends::Grace(key) => {
                    self.set(key, Now::Absent);
                    self.answer_all(key, &Err(Refusal::ReconnectTimeout));
                }
                Ends::Wait(key, ticket) => {
                    self.waiters.retain(|waits| waits.ticket != ticket);
                    let refusal = match self.state(key) {
                        Now::Absent => Refusal::NoConnection,
                        Now::Up(..) => Refusal::Unreported,
                        Now::Grace(..) => Refusal::ReconnectTimeout,
                    };
                    self.answers.push((ticket, Err(refusal)));
                }
                Ends::Wake(key) => {
                    let runs = self.wakes[usize::from(key)].take().is_some_and(|(_, _, runs)| runs);
                    if self.state(key) == Now::Absent {
                        self.answer_all(key, &Err(if runs { Refusal::Fault } else { Refusal::NoConnection }));
                    }
                }
            }
        }
    }

    fn waiting_for(&self, key: u8) -> usize {
        self.waiters.iter().filter(|waits| waits.of == key).count()
    }

    fn waking(&self) -> usize {
        self.wakes.iter().flatten().count()
    }

    fn held(&self) -> usize {
        self.keys.iter().filter(|state| **state != Now::Absent).count()
    }
}

/// One step in both; every result must be the same.
fn apply(registry: &mut Registry<u64>, model: &mut Model, op: &Op) {
    let unreported = ms(10);
    match *op {
        Op::Register { key: n } => {
            let seen = match model.state(n) {
                Now::Absent => None,
                Now::Up(epoch, _) | Now::Grace(epoch, _) => Some(Epoch::new(epoch)),
            };
            let epoch = model.epoch;
            model.epoch += 1;
            let full = seen.is_none() && model.held() >= LIMITS.tunnels;
            let result = registry.register(&registration(n, epoch), session(epoch), epoch, seen, model.now);
            assert_eq!(result, if full { Err((Conflict::Overloaded, epoch)) } else { Ok(()) });
            if !full {
                let owed = match model.state(n) {
                    Now::Absent => None,
                    Now::Up(_, owed) => owed,
                    Now::Grace(_, until) => Some(until),
                };
                model.set(n, Now::Up(epoch, owed));
                model.answer_all(n, &Ok(epoch));
                model.wakes[usize::from(n)].take_if(|(_, _, runs)| !*runs);
            }
        }
        Op::Lose { key: n, stale, hold } => {
            let (epoch, owed) = match model.state(n) {
                Now::Up(epoch, owed) if !stale => (epoch, owed),
                _ => (0, None),
            };
            let grace = hold.map_or(Grace::Drop, |hold| Grace::Hold(ms(hold)));
            let now = model.now;
            let counted = registry.link_lost(&key(n), Epoch::new(epoch), LossCause::Lost, grace, false, (now, now));
            assert_eq!(counted, epoch != 0);
            match hold {
                _ if epoch == 0 => {}
                None => {
                    model.set(n, Now::Absent);
                    model.answer_all(n, &Err(Refusal::NoConnection));
                }
                Some(hold) => {
                    model.set(n, Now::Grace(epoch, owed.unwrap_or(now + ms(hold))));
                    model.waiters.iter_mut().filter(|waits| waits.of == n).for_each(|waits| waits.own = None);
                    model.expire();
                }
            }
        }
        Op::Dial { key: n, dead, absent, most } => {
            let not_before = match model.state(n) {
                Now::Up(epoch, _) if dead => epoch + 1,
                _ => 0,
            };
            let most = most.map(ms);
            let wanted = Ask { not_before: Epoch::new(not_before), absent, limit: PER_KEY, unreported, most };
            let step = match registry.dial(&key(n), wanted, model.now) {
                DialStep::Refused(refusal) => DialStep::Refused(unexplained(refusal)),
                step => step,
            };
            let (own, refusal) = match (model.state(n), absent) {
                (Now::Up(epoch, _), _) if !dead => {
                    assert_eq!(step, DialStep::Ready(Epoch::new(epoch), epoch));
                    return;
                }
                (Now::Absent, Absence::Refuse) => {
                    assert_eq!(step, DialStep::Refused(Refusal::NoConnection));
                    return;
                }
                (Now::Up(..), _) => (Some(model.now + unreported), Refusal::ReconnectTimeout),
                (Now::Grace(..), _) => (None, Refusal::ReconnectTimeout),
                (Now::Absent, Absence::Wait(wait)) => (Some(model.now + wait), Refusal::NoConnection),
                (Now::Absent, Absence::Wake(_)) => (None, Refusal::NoConnection),
            };
            if most == Some(Duration::ZERO) {
                assert_eq!(step, DialStep::Refused(refusal));
                return;
            }
            let wakes = match absent {
                Absence::Wake(within) if model.state(n) == Now::Absent => {
                    model.wakes[usize::from(n)].is_none().then(|| model.now + within)
                }
                _ => None,
            };
            let full = model.waiters.len() >= LIMITS.waiting || model.waiting_for(n) >= PER_KEY;
            let ticket = match step {
                DialStep::Wait(ticket, _) if !full && wakes.is_none() => ticket,
                DialStep::Wake(ticket, until) if !full && wakes == Some(until) => {
                    model.wakes[usize::from(n)] = Some((ticket, until, true));
                    ticket
                }
                step => {
                    assert_eq!((step, full), (DialStep::Refused(Refusal::TooManyPending), true));
                    return;
                }
            };
            assert!(model.waiters.iter().all(|earlier| earlier.ticket < ticket), "tickets rise");
            model.waiters.push(Waits { of: n, ticket, own, last: most.map(|most| model.now + most) });
            model.issued.insert(ticket, n);
        }
        Op::Woken { key: n, late, fails } => {
            let outcome = if fails { Err(Refusal::NotWoken("no room".into(), None)) } else { Ok(()) };
            let wake = model.wakes[usize::from(n)];
            let by = wake.filter(|_| !late).map_or(Ticket(u64::MAX), |(by, _, _)| by);
            registry.woken(&key(n), by, outcome, model.now);
            match (wake, fails, model.state(n)) {
                (Some((by, until, _)), false, Now::Absent) if !late => {
                    model.wakes[usize::from(n)] = Some((by, until, false));
                }
                (Some(_), ..) if !late => {
                    model.wakes[usize::from(n)] = None;
                    if model.state(n) == Now::Absent {
                        model.answer_all(n, &Err(Refusal::NotWoken("no room".into(), None)));
                    }
                }
                _ => {}
            }
        }
        Op::GiveBack { nth } => {
            if nth < model.waiters.len() {
                let Waits { of: n, ticket, .. } = model.waiters.remove(nth);
                registry.give_back(&key(n), ticket);
                registry.give_back(&key(n), ticket);
            }
        }
        Op::Hear { key: n } => {
            if let Now::Up(epoch, _) = model.state(n) {
                registry.heard(&key(n), Epoch::new(epoch));
                registry.heard(&key(n), Epoch::new(epoch.wrapping_add(1)));
                model.set(n, Now::Up(epoch, None));
            }
        }
        Op::Close { key: n } => {
            let there = registry.close(&key(n), CloseCode::CREDENTIALS, &Refusal::NoConnection, model.now);
            assert_eq!(there, model.state(n) != Now::Absent);
            model.set(n, Now::Absent);
            model.answer_all(n, &Err(Refusal::NoConnection));
        }
        Op::Advance { ms: n } => model.now += ms(n),
        Op::AdvanceToDeadline { exactly } => {
            if let Some(next) = registry.next_deadline() {
                let to = if exactly { next } else { next - Duration::from_nanos(1) };
                model.now = model.now.max(to);
            }
        }
    }
}

/// What holds between any two steps.
fn check(registry: &mut Registry<u64>, model: &mut Model) {
    model.expire();
    registry.expire(model.now);
    // Two keys may end in any order; each key's answers come in theirs.
    let mut got = answers(&registry.take_effects());
    let mut wanted = std::mem::take(&mut model.answers);
    got.sort_by_key(|(ticket, _)| model.issued[ticket]);
    wanted.sort_by_key(|(ticket, _)| model.issued[ticket]);
    assert_eq!(got, wanted);
    assert_eq!(registry.next_deadline(), model.deadlines().map(|(at, _)| at).min());
    let is = |wanted: fn(&Now) -> bool| model.keys.iter().filter(|state| wanted(state)).count();
    let counts = Counts {
        connected: is(|state| matches!(state, Now::Up(..))),
        grace: is(|state| matches!(state, Now::Grace(..))),
        waiting: model.waiters.len(),
        waiting_keys: (0..3).filter(|n| model.waiting_for(*n) > 0).count(),
        waking: model.waking(),
        leaving: 0,
    };
    assert_eq!(registry.counts(), counts);
    assert!(counts.connected + counts.grace <= LIMITS.tunnels && counts.waiting <= LIMITS.waiting);
    let kept =
        |n: &u8| model.state(*n) != Now::Absent || model.waiting_for(*n) > 0 || model.wakes[usize::from(*n)].is_some();
    let in_memory = (0..3).filter(kept).count();
    assert_eq!(registry.slots.len(), in_memory, "absent keys that nobody waits for or starts are forgotten");
    assert_eq!(registry.due.len(), model.deadlines().count());
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_registry_does_what_its_model_does(ops in prop::collection::vec(op(), 0..80)) {
        let mut registry = Registry::new(LIMITS);
        let mut model = Model {
            keys: [Now::Absent; 3],
            wakes: [None; 3],
            waiters: Vec::new(),
            answers: Vec::new(),
            issued: HashMap::new(),
            epoch: 1,
            now: Instant::now(),
        };
        for op in ops {
            apply(&mut registry, &mut model, &op);
            check(&mut registry, &mut model);
        }
        // In the end every ticket has been answered or given back.
        model.now += Duration::from_secs(3600);
        model.expire();
        check(&mut registry, &mut model);
        let up: Vec<u8> = (0..3).filter(|n| matches!(model.state(*n), Now::Up(..))).collect();
        for n in up {
            apply(&mut registry, &mut model, &Op::Close { key: n });
            check(&mut registry, &mut model);
        }
        prop_assert!(registry.slots.is_empty() && registry.due.is_empty());
    }
}

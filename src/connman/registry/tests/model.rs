//! The registry against a simple model of it, over random lists of operations.

mod steps;

use proptest::prelude::*;

use super::*;
use steps::apply;

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

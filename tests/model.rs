//! Does the session layer keep its promise in every order of events? A model of it, every walk up to stated bounds,
//! and each of its rules taken out once.

#[path = "model/act.rs"]
mod act;
#[path = "model/attach.rs"]
mod attach;
#[path = "model/half.rs"]
mod half;
#[path = "model/mutant.rs"]
mod mutant;
#[path = "model/possible.rs"]
mod possible;
#[path = "model/properties.rs"]
mod properties;
#[path = "model/real.rs"]
mod real;
#[path = "model/state.rs"]
mod state;
#[path = "model/talker.rs"]
mod talker;
#[path = "model/tunnel.rs"]
mod tunnel;
#[path = "model/walks.rs"]
mod walks;

use std::panic;

use stateright::{Checker, HasDiscoveries, Model};

use mutant::{CAUGHT_BY, Mutant};
use real::Real;
use state::State;
use talker::Speech;
use tunnel::{Action, Talk, Tunnel};
use walks::Walk;

/// Few words, two faults.
const SMALL: Tunnel = free([3, 2], 2, 2);

/// An agent that has two dials under way, and uses the answers in any order.
const BESIDE: Tunnel = Tunnel { links: 4, dials: 2, ..SMALL };

/// All states of these are visited.
const BOUNDS: &[Tunnel] = if cfg!(debug_assertions) {
    &[SMALL, free([2, 1], 1, 3), stream(3, 3)]
} else {
    &[free([5, 4], 2, 2), free([4, 3], 3, 2), free([4, 3], 2, 3), free([2, 1], 1, 4), stream(4, 4)]
};

const fn free([server, agent]: [u8; 2], bound: u8, faults: u8) -> Tunnel {
    let talk = Talk::Free { server, agent };
    Tunnel { talk, bound, faults, links: faults + 1, dials: 1, ends: true, mutant: None }
}

const fn stream(data: u8, faults: u8) -> Tunnel {
    Tunnel { talk: Talk::Stream { data }, ..free([0, 0], 2, faults) }
}

fn check(tunnel: &Tunnel) {
    let checker = tunnel.clone().checker().threads(2).spawn_dfs().join();
    println!("{} states of {tunnel:?}", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn whatever_happens_in_whatever_order_everything_arrives_once_and_in_order() {
    BOUNDS.iter().for_each(check);
}

/// A link that is used too late is refused, and the session lost with it; but what is not refused is not stale.
#[test]
fn attempts_keep_the_order_of_two_dials_at_once_where_links_do_not() {
    check(&Tunnel { ends: false, ..BESIDE });
}

#[test]
fn each_rule_is_needed() {
    let missed: Vec<_> = CAUGHT_BY.into_iter().flat_map(|(mutant, by)| missed(mutant, by)).collect();
    assert!(missed.is_empty(), "these do not break: {missed:#?}");
}

/// The properties that a mutant does not break, though it should.
fn missed(mutant: Mutant, by: &[&'static str]) -> Vec<(Mutant, &'static str)> {
    let base = match mutant {
        Mutant::AttemptUnchecked => Tunnel { ends: false, ..BESIDE },
        Mutant::DialsBeside => BESIDE,
        Mutant::CreditUncounted | Mutant::FinUncounted => stream(3, 2),
        _ => SMALL,
    };
    let tunnel = Tunnel { mutant: Some(mutant), ..base };
    let found = HasDiscoveries::AllOf(by.iter().copied().collect());
    let checker = tunnel.checker().finish_when(found).spawn_bfs().join();
    let discoveries = checker.discoveries();
    for (property, path) in by.iter().filter_map(|property| discoveries.get_key_value(property)) {
        println!("{mutant:?} breaks: {property}, by {:?}", path.clone().into_actions());
    }
    by.iter().filter(|property| !discoveries.contains_key(*property)).map(|property| (mutant, *property)).collect()
}

/// Takes a walk with real sessions; says which it was if they differ.
fn follow(tunnel: &Tunnel, speech: &Speech, walk: &Walk) {
    if let Err(panic) = panic::catch_unwind(|| Real::follow(tunnel, speech, walk)) {
        eprintln!("on the walk {:?}", walk.iter().map(|(action, _)| action).collect::<Vec<_>>());
        panic::resume_unwind(panic);
    }
}

#[test]
fn real_sessions_take_every_short_walk_of_the_model() {
    let depth = if cfg!(debug_assertions) { 11 } else { 13 };
    let speech = Speech::short();
    walks::all(&SMALL, depth, &mut |walk| follow(&SMALL, &speech, walk));
}

#[test]
fn real_sessions_take_every_action_of_the_model_in_every_state() {
    let talk = if cfg!(debug_assertions) { free([2, 1], 2, 2).talk } else { SMALL.talk };
    let speech = Speech::short();
    for tunnel in [Tunnel { talk, ..SMALL }, Tunnel { talk, ends: false, ..BESIDE }] {
        walks::to_every_action(&tunnel, &mut |walk| follow(&tunnel, &speech, walk));
    }
}

#[test]
fn real_sessions_take_long_walks_of_the_model() {
    // Not more links in a row without an ack than a server puts up with.
    let tunnel = free([40, 30], 8, 10);
    let anything = |_: &State, _| true;
    take_random(&tunnel, &Speech::short(), if cfg!(debug_assertions) { 300 } else { 5_000 }, anything);
}

/// A bound in bytes is the model's as long as only words of one length are kept: the first is acked before the second.
#[test]
fn real_sessions_send_again_what_fills_their_bound() {
    let tunnel = free([6, 5], 2, 6);
    let one_length = |state: &State, action| match action {
        Action::Send(side) => state.half(side).is_some_and(|half| half.made == 0 || half.acked > 0 || half.given == 0),
        _ => true,
    };
    take_random(&tunnel, &Speech::long(), if cfg!(debug_assertions) { 100 } else { 1_000 }, one_length);
}

fn take_random(tunnel: &Tunnel, speech: &Speech, walks: u64, allowed: fn(&State, Action) -> bool) {
    for seed in 0..walks {
        let walk = walks::random(tunnel, seed, allowed);
        if let Err(panic) = panic::catch_unwind(|| follow(tunnel, speech, &walk)) {
            eprintln!("seed {seed} fails");
            panic::resume_unwind(panic);
        }
    }
}

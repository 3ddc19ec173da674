//! Which walks of the model are taken with real sessions, too?

use std::collections::HashMap;

use stateright::Model;

use crate::{
    state::State,
    tunnel::{Action, Tunnel},
};

/// Actions, each with the state that it leads to.
pub(crate) type Walk = Vec<(Action, State)>;

/// Every walk of so many actions, and every shorter one that cannot go on.
pub(crate) fn all(tunnel: &Tunnel, depth: usize, take: &mut impl FnMut(&Walk)) {
    let start = start(tunnel);
    extend(tunnel, &start, depth, &mut Vec::new(), take);
}

fn extend(tunnel: &Tunnel, state: &State, depth: usize, walk: &mut Walk, take: &mut impl FnMut(&Walk)) {
    let next = if depth == 0 { Vec::new() } else { tunnel.next_steps(state) };
    if next.is_empty() {
        take(walk);
    }
    for (action, next) in next {
        walk.push((action, next.clone()));
        extend(tunnel, &next, depth - 1, walk, take);
        walk.pop();
    }
}

/// For every action that is possible in any state of the model a shortest walk that ends with it.
pub(crate) fn to_every_action(tunnel: &Tunnel, take: &mut impl FnMut(&Walk)) {
    let start = start(tunnel);
    // Each state that was found, with the action and the state before it.
    let mut found: Vec<(State, Option<(Action, usize)>)> = vec![(start.clone(), None)];
    let mut known = HashMap::from([(start, 0)]);
    let mut next = 0;
    while let Some((state, _)) = found.get(next) {
        let mut walk = walk_to(&found, next);
        for (action, state) in tunnel.next_steps(state) {
            walk.push((action, state.clone()));
            take(&walk);
            walk.pop();
            if !known.contains_key(&state) {
                known.insert(state.clone(), found.len());
                found.push((state, Some((action, next))));
            }
        }
        next += 1;
    }
}

fn walk_to(found: &[(State, Option<(Action, usize)>)], mut at: usize) -> Walk {
    let mut walk = Walk::new();
    while let Some((action, before)) = found[at].1 {
        walk.push((action, found[at].0.clone()));
        at = before;
    }
    walk.reverse();
    walk
}

/// A walk drawn from a seed, to where nothing can happen any more that is `allowed`. One action in eight is a fault.
pub(crate) fn random(tunnel: &Tunnel, seed: u64, allowed: fn(&State, Action) -> bool) -> Walk {
    let mut random = SplitMix64(seed);
    let mut state = start(tunnel);
    let mut walk = Walk::new();
    loop {
        let possible = tunnel.possible(&state).into_iter().filter(|(action, _)| allowed(&state, *action));
        let (faults, others): (Vec<_>, Vec<_>) = possible.partition(|(_, fault)| *fault);
        let choice = if others.is_empty() || random.below(8) == 0 && !faults.is_empty() { faults } else { others };
        if choice.is_empty() {
            return walk;
        }
        let (action, _) = choice[random.below(choice.len())];
        state = tunnel.next_state(&state, action).expect("a possible action");
        walk.push((action, state.clone()));
    }
}

fn start(tunnel: &Tunnel) -> State {
    tunnel.init_states().remove(0)
}

struct SplitMix64(u64);

impl SplitMix64 {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

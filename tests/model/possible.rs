//! What can happen next?

use crate::{
    half::Turn,
    mutant::Mutant,
    state::{End, Epoch, Side, State},
    tunnel::{Action, Tunnel},
};

impl Tunnel {
    /// What can happen, and whether it is a fault.
    pub(crate) fn possible(&self, state: &State) -> Vec<(Action, bool)> {
        let mut possible = Vec::new();
        if state.wrong.is_some() {
            return possible;
        }
        possible.extend(self.next_links(state).map(|epoch| (Action::Hello(epoch), false)));
        for side in [Side::Server, Side::Agent] {
            self.in_session(state, side, &mut possible);
            self.on_links(state, side, &mut possible);
        }
        if state.server.judged.is_some() {
            possible.push((Action::Bind, false));
        }
        if self.ends {
            possible.extend(self.ends_of(state).map(|action| (action, true)));
        }
        possible.retain(|(_, fault)| !fault || state.faults > 0);
        possible
    }

    /// The links of which the agent may say HELLO on one. Without a session it has nothing to hurry for.
    fn next_links(&self, state: &State) -> impl Iterator<Item = Epoch> {
        let dials = match (state.agent.link, state.agent.session) {
            (Some(_), _) => 0,
            (None, 0) => 1,
            (None, _) => self.dials,
        };
        (0..).zip(&state.links).filter(|(_, link)| link.agent == End::Unused).map(|(epoch, _)| epoch).take(dials)
    }

    fn in_session(&self, state: &State, side: Side, possible: &mut Vec<(Action, bool)>) {
        let Some(half) = state.half(side) else { return };
        let bound = state.bound(side).is_some();
        let early = self.lack(Mutant::SendsBeforeWelcome) && side == Side::Agent && state.agent.link.is_some();
        if (bound || early) && half.turn(side, self).is_some() {
            possible.push((Action::Send(side), false));
        }
        if bound && half.ack_due && !self.lack(Mutant::NoAckTimer) {
            possible.push((Action::Ack(side), false));
        }
        if half.waiting.is_some() {
            possible.push((Action::Handle(side), false));
        }
    }

    /// To find that the other end is closed is no fault; to take it for closed is one.
    fn on_links(&self, state: &State, side: Side, possible: &mut Vec<(Action, bool)>) {
        for (epoch, link) in (0..).zip(&state.links).filter(|(_, link)| link.end(side) == End::Open) {
            if !link.queue(side).is_empty() {
                possible.push((Action::Deliver(side, epoch), false));
            } else if self.may_send_stale(state, side, epoch) {
                possible.push((Action::SendStale(epoch), false));
            }
            possible.push((Action::Lose(side, epoch), link.end(side.other()) == End::Open));
        }
    }

    fn may_send_stale(&self, state: &State, side: Side, epoch: Epoch) -> bool {
        let has_turn = || state.half(side).is_some_and(|half| half.turn(side, self).is_some());
        self.lack(Mutant::NoFenceOnTransmit) && side == Side::Server && state.bound(side) > Some(epoch) && has_turn()
    }

    /// How a session may end: the server's only without a link, the agent's only before WELCOME.
    fn ends_of(&self, state: &State) -> impl Iterator<Item = Action> {
        let server = state.server.session.as_ref();
        let expires = |bound: Option<Epoch>| bound.is_none() || self.lack(Mutant::ExpiresWhileBound);
        let expire = server.filter(|session| expires(session.bound)).map(|_| Action::Expire);
        let give_up = (state.agent.session != 0 && !state.agent.welcomed).then_some(Action::GiveUp);
        let restart = server.map(|_| Action::Restart);
        expire.into_iter().chain(give_up).chain(restart)
    }

    /// Whether nothing can happen any more but faults.
    pub(crate) fn at_rest(&self, state: &State) -> bool {
        self.possible(state).iter().all(|(_, fault)| *fault)
    }

    /// Whether a side would send again now what it kept.
    pub(crate) fn is_replaying(&self, state: &State, side: Side) -> bool {
        state.bound(side).is_some() && state.half(side).is_some_and(|half| half.turn(side, self) == Some(Turn::Replay))
    }
}

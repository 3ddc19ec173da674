//! What must hold in every state, and what must be reached by some walk?

use crate::{
    state::{End, Link, Message, Side, State, Wrong},
    tunnel::Tunnel,
};

type Property = stateright::Property<Tunnel>;

pub(crate) const ONCE: &str = "nothing is received twice";
pub(crate) const ORDER: &str = "what is handled is what the peer sent next in this session";
pub(crate) const RULES: &str = "neither side sees a rule broken";
pub(crate) const STOLEN: &str = "the server never cuts off the link that the agent is on";
pub(crate) const REFUSED: &str = "the agent's current attempt is never stale";
pub(crate) const LOST: &str = "a session is lost by expiry or restart only";
pub(crate) const COUNTS: &str = "acked <= received by the peer <= sent";
pub(crate) const BOUND: &str = "what is kept stays within its bound";
pub(crate) const LINKS: &str = "one link at most is bound, it is open, and those before it are closed";
pub(crate) const LIVE: &str = "when faults have stopped, everything arrives and is acked";

pub(crate) fn all() -> Vec<Property> {
    vec![
        Property::always(ONCE, |_, state| state.wrong != Some(Wrong::Duplicate)),
        Property::always(ORDER, |_, state| state.wrong != Some(Wrong::Order)),
        Property::always(RULES, |_, state| state.wrong != Some(Wrong::Violation)),
        Property::always(STOLEN, |_, state| state.wrong != Some(Wrong::Stolen)),
        Property::always(REFUSED, |_, state| state.wrong != Some(Wrong::Refused)),
        Property::always(LOST, |_, state| state.wrong != Some(Wrong::Lost)),
        Property::always(COUNTS, |_, state| counts_fit(state, Side::Server) && counts_fit(state, Side::Agent)),
        Property::always(BOUND, |model, state| {
            let kept = |side| state.half(side).map_or(0, |half| half.kept.len());
            kept(Side::Server).max(kept(Side::Agent)) <= usize::from(model.bound)
        }),
        Property::always(LINKS, |_, state| links_fit(state, Side::Server) && links_fit(state, Side::Agent)),
        // Nothing in the model repeats, so that every walk without faults comes to rest.
        Property::always(LIVE, |model, state| {
            state.wrong.is_some() || is_complete(model, state) || !model.at_rest(state)
        }),
        Property::sometimes("the server sends again", |model, state| model.is_replaying(state, Side::Server)),
        Property::sometimes("the agent sends again", |model, state| model.is_replaying(state, Side::Agent)),
        Property::sometimes("what is kept reaches the bound", |model, state| {
            state.half(Side::Server).is_some_and(|half| half.kept.len() == usize::from(model.bound))
        }),
        Property::sometimes("the server reads a link that the agent has left", |_, state| {
            let bound = state.bound(Side::Server).map(|epoch| &state.links[usize::from(epoch)]);
            bound.is_some_and(|link| link.agent == End::Closed && !link.to_server.is_empty())
        }),
        Property::sometimes("two HELLOs are on their way", |_, state| {
            let is_hello = |message: &Message| matches!(message, Message::Hello(_));
            state.links.iter().filter(|link| link.to_server.iter().any(is_hello)).count() == 2
        }),
        Property::sometimes("a HELLO comes that is older than the link that is bound", |_, state| {
            let newest = state.server.newest;
            (0..).zip(&state.links).any(|(epoch, link)| {
                newest > Some(epoch) && link.agent == End::Closed && matches!(link.to_server[..], [Message::Hello(_)])
            })
        }),
        Property::sometimes("a session follows one that has ended", |model, state| {
            !model.ends || (state.ended > 0 && state.agent.welcomed && state.agent.session > state.ended)
        }),
    ]
}

fn counts_fit(state: &State, side: Side) -> bool {
    match (state.half(side), state.half(side.other())) {
        (Some(half), Some(peer)) if state.agreed() && state.wrong.is_none() => {
            half.acked <= peer.received && peer.received <= half.sent()
        }
        _ => true,
    }
}

fn links_fit(state: &State, side: Side) -> bool {
    let Some(bound) = state.bound(side).map(usize::from) else { return true };
    // A late HELLO is not judged yet.
    let is_closed =
        |link: &Link<Message>| link.end(side) != End::Open || matches!(link.queue(side), [Message::Hello(_)]);
    state.links[bound].end(side) == End::Open && state.links[..bound].iter().all(is_closed)
}

/// Both sides are on one link of one session, have said everything, were given everything, and know it.
fn is_complete(model: &Tunnel, state: &State) -> bool {
    let complete = |side: Side| {
        state.half(side).is_some_and(|half| {
            half.made == model.words(side) && half.handled == model.words(side.other()) && half.kept.is_empty()
        })
    };
    let linked = state.bound(Side::Agent).is_some() && state.bound(Side::Agent) == state.bound(Side::Server);
    linked && state.agreed() && complete(Side::Server) && complete(Side::Agent)
}

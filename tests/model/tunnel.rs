//! What is the model, and what are the bounds of its walks?

use stateright::{Model, Property};

use crate::{
    half::Half,
    mutant::Mutant,
    properties,
    state::{Agent, Epoch, Link, Server, Side, State},
};

/// What the two applications say to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Talk {
    /// So many words of each side at any time; but the server, which opens streams, has the first.
    Free { server: u8, agent: u8 },
    /// One stream with so much data from the server, then its end. The agent grants credit for one more with each that
    /// it was given, and for one at first.
    Stream { data: u8 },
}

/// The model: an agent and a server with one key, and the bounds of the walk.
#[derive(Debug, Clone)]
pub(crate) struct Tunnel {
    pub(crate) talk: Talk,
    /// The most messages that are kept.
    pub(crate) bound: u8,
    /// Losses of links, expiries and restarts.
    pub(crate) faults: u8,
    /// Links that the agent can dial. It needs one, and one more for each fault, and for each that it uses too late.
    pub(crate) links: u8,
    /// How many it dials at once; of these it may use any first.
    pub(crate) dials: usize,
    /// Whether sessions end: by expiry on either side, or with the server.
    pub(crate) ends: bool,
    pub(crate) mutant: Option<Mutant>,
}

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// The agent says HELLO on a new link.
    Hello(Epoch),
    /// A side sends on its link what is next.
    Send(Side),
    /// A side's ack timer runs out.
    Ack(Side),
    /// A side takes the next message off a link.
    Deliver(Side, Epoch),
    /// A side's end of a link fails, or finds that the other end is closed.
    Lose(Side, Epoch),
    /// The server's grace ends.
    Expire,
    /// The agent's hold ends.
    GiveUp,
    /// The server forgets everything.
    Restart,
    /// Only in mutants: the server acts on a HELLO that it judged before.
    Bind,
    /// Only in mutants: what was counted is handled.
    Handle(Side),
    /// Only in mutants: the server sends on a link that it has replaced.
    SendStale(Epoch),
}

impl Tunnel {
    /// Whether a rule is taken out.
    pub(crate) fn lack(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// How much a side says in a session.
    pub(crate) fn words(&self, side: Side) -> u8 {
        match (self.talk, side) {
            (Talk::Free { server, .. }, Side::Server) => server,
            (Talk::Free { agent, .. }, Side::Agent) => agent,
            (Talk::Stream { data }, Side::Server) => data + 1,
            (Talk::Stream { data }, Side::Agent) => data - 1,
        }
    }

    /// Whether an application has something to say.
    pub(crate) fn may_write(&self, side: Side, half: &Half) -> bool {
        let more = half.made < self.words(side);
        more && match (self.talk, side) {
            (Talk::Free { .. }, Side::Server) => true,
            (Talk::Free { .. }, Side::Agent) => half.handled >= 1,
            (Talk::Stream { data }, Side::Server) => half.made == data || half.made < 1 + half.handled,
            (Talk::Stream { .. }, Side::Agent) => half.made < half.handled,
        }
    }

    /// Whether a word of the application travels in a message of number 0.
    pub(crate) fn is_uncounted(&self, side: Side, place: u8) -> bool {
        match (self.talk, side) {
            (Talk::Free { .. }, _) => false,
            (Talk::Stream { data }, Side::Server) => self.lack(Mutant::FinUncounted) && place > data,
            (Talk::Stream { .. }, Side::Agent) => self.lack(Mutant::CreditUncounted),
        }
    }
}

impl Model for Tunnel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            agent: Agent { session: 0, attempt: 0, link: None, welcomed: false, old_link: None, half: Half::default() },
            server: Server { session: None, sessions_made: 0, newest: None, judged: None },
            links: vec![Link::unused(); usize::from(self.links)],
            faults: self.faults,
            ended: 0,
            wrong: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend(self.possible(state).into_iter().map(|(action, _)| action));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let (_, fault) = self.possible(state).into_iter().find(|(possible, _)| *possible == action)?;
        let mut next = state.clone();
        next.faults -= u8::from(fault);
        next.wrong = self.act(&mut next, action).err();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

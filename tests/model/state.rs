//! What is the state of the model? An agent, a server, the links between them and what is on its way.

use crate::half::{Half, Payload};

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    Server,
    Agent,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Server => Self::Agent,
            Self::Agent => Self::Server,
        }
    }
}

/// A session, by the order in which the server made them; 0 in a HELLO asks for a new one.
pub(crate) type Id = u8;

/// A link, by the order in which the server answered 101.
pub(crate) type Epoch = u8;

/// What travels on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Message {
    Hello(Hello),
    Welcome {
        session: Id,
        attempt: u8,
        resumed: bool,
        received: u8,
    },
    /// The link is closed with 4409.
    Refused,
    Counted {
        number: u8,
        payload: Payload,
        received: u8,
    },
    /// A message of number 0 that only says what was received.
    Ack {
        received: u8,
    },
    /// What should have been counted, in a message of number 0: only mutants send it.
    Uncounted {
        payload: Payload,
        received: u8,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Hello {
    pub(crate) session: Id,
    pub(crate) attempt: u8,
    pub(crate) received: u8,
}

/// One side's end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// The agent has not dialled it yet.
    Unused,
    Open,
    /// Left, lost or cut off: it reads and sends no more.
    Closed,
}

/// A link; each direction is a queue. What an open end was sent it may still read after the other end was closed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Link<M> {
    pub(crate) agent: End,
    pub(crate) server: End,
    pub(crate) to_server: Vec<M>,
    pub(crate) to_agent: Vec<M>,
}

impl<M> Link<M> {
    pub(crate) fn unused() -> Self {
        Self { agent: End::Unused, server: End::Unused, to_server: Vec::new(), to_agent: Vec::new() }
    }

    pub(crate) fn open(&mut self) {
        (self.agent, self.server) = (End::Open, End::Open);
    }

    pub(crate) fn end(&self, side: Side) -> End {
        match side {
            Side::Server => self.server,
            Side::Agent => self.agent,
        }
    }

    /// What is on its way to a side.
    pub(crate) fn queue(&self, to: Side) -> &[M] {
        match to {
            Side::Server => &self.to_server,
            Side::Agent => &self.to_agent,
        }
    }

    pub(crate) fn queue_mut(&mut self, to: Side) -> &mut Vec<M> {
        match to {
            Side::Server => &mut self.to_server,
            Side::Agent => &mut self.to_agent,
        }
    }

    /// What is sent to an end that is closed is lost, and the sender does not know.
    pub(crate) fn push(&mut self, to: Side, message: M) {
        if self.end(to) == End::Open {
            self.queue_mut(to).push(message);
        }
    }

    /// Nothing is read at this end any more.
    pub(crate) fn close(&mut self, side: Side) {
        match side {
            Side::Server => self.server = End::Closed,
            Side::Agent => self.agent = End::Closed,
        }
        self.queue_mut(side).clear();
    }
}

/// The agent: at most one link, and the session of which it knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Agent {
    pub(crate) session: Id,
    /// The last attempt for this session, or for a new one.
    pub(crate) attempt: u8,
    pub(crate) link: Option<Epoch>,
    /// Whether WELCOME has come on that link.
    pub(crate) welcomed: bool,
    /// A link that it still reads beside it: only a mutant has one.
    pub(crate) old_link: Option<Epoch>,
    pub(crate) half: Half,
}

impl Agent {
    /// It has no session any more.
    pub(crate) fn begin_anew(&mut self) {
        self.session = 0;
        self.attempt = 0;
        self.half = Half::default();
    }
}

/// The server's side of a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    pub(crate) id: Id,
    /// The attempt with which it was last resumed.
    pub(crate) attempt: u8,
    pub(crate) bound: Option<Epoch>,
    pub(crate) half: Half,
}

/// The server, as far as it has to do with the agent's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    pub(crate) session: Option<Session>,
    pub(crate) sessions_made: Id,
    /// The newest link that it ever bound.
    pub(crate) newest: Option<Epoch>,
    /// A HELLO that was judged and is not acted upon yet, and the count for its WELCOME: only a mutant has one.
    pub(crate) judged: Option<(Epoch, Hello, u8)>,
}

/// What must not happen. The walk ends there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Wrong {
    /// A counted message was received that had been received before.
    Duplicate,
    /// Something was handled that is not what the peer sent next in this session.
    Order,
    /// One side sees a rule broken by the other.
    Violation,
    /// The server cut off the link that the agent is on.
    Stolen,
    /// The agent's current attempt was refused as stale.
    Refused,
    /// The agent is told of a new session while its own neither expired nor fell to a restart.
    Lost,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) agent: Agent,
    pub(crate) server: Server,
    pub(crate) links: Vec<Link<Message>>,
    /// Faults that may still happen.
    pub(crate) faults: u8,
    /// All sessions up to this one have ended for a reason: expiry or restart.
    pub(crate) ended: Id,
    pub(crate) wrong: Option<Wrong>,
}

impl State {
    pub(crate) fn link(&mut self, epoch: Epoch) -> &mut Link<Message> {
        &mut self.links[usize::from(epoch)]
    }

    /// A side's counts, if it has a session.
    pub(crate) fn half(&self, side: Side) -> Option<&Half> {
        match side {
            Side::Server => self.server.session.as_ref().map(|session| &session.half),
            Side::Agent => (self.agent.session != 0).then_some(&self.agent.half),
        }
    }

    /// A side's counts to be changed, with its session.
    pub(crate) fn half_mut(&mut self, side: Side) -> Option<(&mut Half, Id)> {
        match side {
            Side::Server => self.server.session.as_mut().map(|session| (&mut session.half, session.id)),
            Side::Agent => (self.agent.session != 0).then_some((&mut self.agent.half, self.agent.session)),
        }
    }

    /// The link on which a side may send and receive messages of its session.
    pub(crate) fn bound(&self, side: Side) -> Option<Epoch> {
        match side {
            Side::Server => self.server.session.as_ref()?.bound,
            Side::Agent => self.agent.link.filter(|_| self.agent.welcomed),
        }
    }

    /// The server forgets its session, for a reason.
    pub(crate) fn expire(&mut self) {
        if let Some(session) = self.server.session.take() {
            self.ended = session.id;
        }
    }

    /// Whether both sides have the same session.
    pub(crate) fn agreed(&self) -> bool {
        self.server.session.as_ref().is_some_and(|session| session.id == self.agent.session)
    }
}

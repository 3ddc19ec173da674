//! Do real sessions do what the model says? Each action of a walk is done to them, and all that both have is compared.

use std::time::Instant;

use bytes::Bytes;
use revdial::{
    frame::{Bounds, CloseCode, Hello, InstanceId, MessageHead, SessionId, Welcome, decode},
    proto::{Attempts, Judgement, Known, Role, SessionEnd, Welcomed, judge_attach},
};

use crate::{
    state::{End, Epoch, Id, Link, Message, Side, State},
    talker::{Speech, Talker},
    tunnel::{Action, Tunnel},
    walks::Walk,
};

/// What travels on a link here.
#[derive(Debug)]
enum Wire {
    Hello(Hello, u64),
    Welcome(Welcome, u64),
    Refused,
    Message(Bytes),
}

/// The agent and the server, with real sessions between links of the model.
pub(crate) struct Real<'a> {
    tunnel: &'a Tunnel,
    speech: &'a Speech,
    now: Instant,
    agent: Option<Talker>,
    attempts: Attempts,
    agent_link: Option<Epoch>,
    welcomed: bool,
    server: Option<Talker>,
    /// The attempt with which the server's session was last resumed.
    attempt: u64,
    server_link: Option<Epoch>,
    newest: Option<Epoch>,
    sessions_made: Id,
    links: Vec<Link<Wire>>,
}

impl<'a> Real<'a> {
    /// Takes a walk, and panics where it differs.
    pub(crate) fn follow(tunnel: &'a Tunnel, speech: &'a Speech, walk: &Walk) {
        let mut real = Self {
            tunnel,
            speech,
            now: Instant::now(),
            agent: None,
            attempts: Attempts::default(),
            agent_link: None,
            welcomed: false,
            server: None,
            attempt: 0,
            server_link: None,
            newest: None,
            sessions_made: 0,
            links: (0..tunnel.links).map(|_| Link::unused()).collect(),
        };
        for (action, state) in walk {
            real.act(*action);
            real.compare(state);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Hello(epoch) => self.hello(epoch),
            Action::Send(side) => self.send(side),
            Action::Ack(side) => self.ack(side),
            Action::Deliver(side, epoch) => {
                let wire = self.link(epoch).queue_mut(side).remove(0);
                self.deliver(side, epoch, wire);
            }
            Action::Lose(Side::Server, epoch) => {
                self.link(epoch).close(Side::Server);
                self.on_server_lost(epoch);
            }
            Action::Lose(Side::Agent, epoch) => self.leave(epoch),
            Action::Expire => self.end_server(),
            Action::GiveUp => {
                if let Some(epoch) = self.agent_link {
                    self.leave(epoch);
                }
                self.end_agent();
            }
            Action::Restart => {
                self.end_server();
                self.newest = None;
                let open = self.links.iter_mut().filter(|link| link.server == End::Open);
                open.for_each(|link| link.close(Side::Server));
            }
            Action::Bind | Action::Handle(_) | Action::SendStale(_) => unreachable!("only mutants do that"),
        }
    }

    fn link(&mut self, epoch: Epoch) -> &mut Link<Wire> {
        &mut self.links[usize::from(epoch)]
    }

    fn talker(&mut self, side: Side) -> &mut Talker {
        let talker = match side {
            Side::Server => &mut self.server,
            Side::Agent => &mut self.agent,
        };
        talker.as_mut().expect("a session, as in the model")
    }

    fn new_talker(&self, side: Side, id: Id) -> Talker {
        let role = if side == Side::Server { Role::Server } else { Role::Agent };
        Talker::new(role, self.speech, id, [self.tunnel.words(side), self.tunnel.words(side.other())])
    }

    fn bound(&self, side: Side) -> Option<Epoch> {
        match side {
            Side::Server => self.server_link,
            Side::Agent => self.agent_link.filter(|_| self.welcomed),
        }
    }

    fn push(&mut self, from: Side, epoch: Option<Epoch>, wire: Wire) {
        let epoch = epoch.expect("a link, as in the model");
        self.link(epoch).push(from.other(), wire);
    }

    fn hello(&mut self, epoch: Epoch) {
        let hello = self.attempts.hello(&Hello::new(InstanceId::new([1; 16]), Bounds::default()));
        let received = self.agent.as_ref().map_or(0, |talker| talker.session.received());
        self.link(epoch).open();
        self.agent_link = Some(epoch);
        self.push(Side::Agent, Some(epoch), Wire::Hello(hello, received));
    }

    fn send(&mut self, side: Side) {
        let (now, epoch) = (self.now, self.bound(side));
        let message = self.talker(side).say(now);
        self.push(side, epoch, Wire::Message(message));
    }

    fn ack(&mut self, side: Side) {
        self.now += self.speech.config.ack_delay;
        let (now, epoch) = (self.now, self.bound(side));
        let session = &mut self.talker(side).session;
        session.handle_timeout(now);
        let message = session.poll_transmit(now).map(Bytes::from).expect("an ack is due");
        self.push(side, epoch, Wire::Message(message));
    }

    fn deliver(&mut self, to: Side, epoch: Epoch, wire: Wire) {
        match wire {
            Wire::Hello(hello, received) => self.on_hello(epoch, &hello, received),
            Wire::Welcome(welcome, received) => self.on_welcome(&welcome, received),
            Wire::Refused => {
                self.leave(epoch);
                self.end_agent();
            }
            Wire::Message(message) => {
                assert_eq!(self.bound(to), Some(epoch), "a message on a link that is not bound");
                let now = self.now;
                self.talker(to).hear(now, message);
            }
        }
    }

    fn on_hello(&mut self, epoch: Epoch, hello: &Hello, received: u64) {
        let same = self.server.as_ref().is_some_and(|talker| talker.session_id() == hello.session);
        let known = same.then_some(Known { same_maker: true, attempt: self.attempt });
        let judgement = judge_attach(hello.attempt, self.newest <= Some(epoch), known);
        match judgement {
            Judgement::Refuse(code) => {
                assert_eq!(code, CloseCode::STALE);
                self.push(Side::Server, Some(epoch), Wire::Refused);
                self.link(epoch).close(Side::Server);
                return;
            }
            Judgement::Fresh => {
                self.sessions_made += 1;
                self.attempt = 0;
                self.server = Some(self.new_talker(Side::Server, self.sessions_made));
            }
            Judgement::Resume => self.attempt = hello.attempt,
        }
        if let Some(old) = self.server_link.replace(epoch) {
            self.link(old).close(Side::Server);
        }
        self.newest = Some(epoch);
        let (now, talker) = (self.now, self.talker(Side::Server));
        let has = talker.session.received();
        let mut welcome = Welcome::new(talker.session_id(), hello.attempt, Bounds::default(), 0);
        welcome.resumed = judgement == Judgement::Resume;
        // What the agent has of another session counts for nothing here.
        talker.link_up(now, if welcome.resumed { received } else { 0 });
        self.push(Side::Server, Some(epoch), Wire::Welcome(welcome, has));
    }

    fn on_welcome(&mut self, welcome: &Welcome, received: u64) {
        let welcomed = self.attempts.welcomed(welcome).expect("the answer to the last HELLO");
        if welcomed == Welcomed::Fresh {
            self.agent = Some(self.new_talker(Side::Agent, welcome.session.as_bytes()[0]));
        }
        self.welcomed = true;
        let now = self.now;
        self.talker(Side::Agent).link_up(now, received);
    }

    fn on_server_lost(&mut self, epoch: Epoch) {
        if self.server_link == Some(epoch) {
            self.server_link = None;
            let now = self.now;
            self.talker(Side::Server).session.link_down(now);
        }
    }

    fn leave(&mut self, epoch: Epoch) {
        self.link(epoch).close(Side::Agent);
        if self.agent_link == Some(epoch) {
            self.agent_link = None;
            self.welcomed = false;
            let now = self.now;
            if let Some(talker) = &mut self.agent {
                talker.session.link_down(now);
            }
        }
    }

    fn end_server(&mut self) {
        self.server_link = None;
        if let Some(mut talker) = self.server.take() {
            talker.session.end(SessionEnd::Lost);
        }
    }

    fn end_agent(&mut self) {
        self.attempts = Attempts::default();
        if let Some(mut talker) = self.agent.take() {
            talker.session.end(SessionEnd::Lost);
        }
    }

    /// I5 and all else that both have.
    fn compare(&self, state: &State) {
        for side in [Side::Server, Side::Agent] {
            let talker = if side == Side::Server { &self.server } else { &self.agent };
            assert_eq!(talker.is_some(), state.half(side).is_some(), "{side:?} has a session");
            if let (Some(talker), Some(half)) = (talker, state.half(side)) {
                let due = talker.session.poll_timeout().is_some_and(|at| at <= self.now + self.speech.config.ack_delay);
                assert_eq!(due, half.ack_due, "{side:?} owes an ack");
                talker.compare(half);
            }
            assert_eq!(self.bound(side), state.bound(side), "the link of {side:?}");
        }
        for (epoch, (real, model)) in self.links.iter().zip(&state.links).enumerate() {
            for to in [Side::Server, Side::Agent] {
                let (real, model) = (real.queue(to), model.queue(to));
                assert_eq!(real.len(), model.len(), "on link {epoch} to {to:?}");
                let differs = real.iter().zip(model).find(|(real, model)| !same(real, model));
                assert!(differs.is_none(), "on link {epoch} to {to:?}: {differs:?}");
            }
        }
    }
}

fn same(real: &Wire, model: &Message) -> bool {
    match (real, *model) {
        (Wire::Hello(hello, received), Message::Hello(model)) => {
            (hello.session, hello.attempt, *received)
                == (id(model.session), model.attempt.into(), model.received.into())
        }
        (Wire::Welcome(welcome, has), Message::Welcome { session, attempt, resumed, received }) => {
            (welcome.session, welcome.attempt, welcome.resumed, *has)
                == (id(session), attempt.into(), resumed, received.into())
        }
        (Wire::Refused, Message::Refused) => true,
        (Wire::Message(real), Message::Counted { number, received, .. }) => {
            head(real) == MessageHead { number: number.into(), received: received.into() }
        }
        (Wire::Message(real), Message::Ack { received }) => {
            head(real) == MessageHead { number: 0, received: received.into() }
        }
        _ => false,
    }
}

fn head(message: &Bytes) -> MessageHead {
    decode(message.clone()).expect("a message of ours").0
}

/// The real id of a session of the model.
pub(crate) fn id(session: Id) -> SessionId {
    SessionId::new([session; 16])
}

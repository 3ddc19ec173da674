//! How does a link come to be bound? The agent's HELLO, the server's check of it, and the answer.

use crate::{
    half::Half,
    mutant::Mutant,
    state::{End, Epoch, Hello, Message, Session, Side, State, Wrong},
    tunnel::Tunnel,
};

impl Tunnel {
    /// The agent dials, and says HELLO once the server has answered 101.
    pub(crate) fn hello(&self, state: &mut State, epoch: Epoch) {
        let agent = &mut state.agent;
        if !self.lack(Mutant::AttemptNotRaised) || agent.attempt == 0 {
            agent.attempt += 1;
        }
        agent.link = Some(epoch);
        let hello = Hello { session: agent.session, attempt: agent.attempt, received: agent.half.received };
        let link = state.link(epoch);
        link.open();
        link.push(Side::Server, Message::Hello(hello));
    }

    /// The server judges a HELLO and binds its link at once. What is stale touches no session.
    pub(crate) fn on_hello(&self, state: &mut State, epoch: Epoch, hello: Hello) -> Result<(), Wrong> {
        let known = state.server.session.as_ref().filter(|session| session.id == hello.session);
        let old_link = state.server.newest > Some(epoch) && !self.lack(Mutant::LinkOrderUnchecked);
        let old_attempt = known.is_some_and(|session| hello.attempt <= session.attempt);
        if old_link || old_attempt && !self.lack(Mutant::AttemptUnchecked) {
            let link = state.link(epoch);
            link.push(Side::Agent, Message::Refused);
            link.close(Side::Server);
            return Ok(());
        }
        let Some(has) = known.map(|session| session.half.received) else {
            return self.bind_new(state, epoch, hello);
        };
        if self.lack(Mutant::CheckAndBindApart) {
            state.server.judged = Some((epoch, hello, has));
            return Ok(());
        }
        self.bind(state, epoch, hello, has)
    }

    fn bind_new(&self, state: &mut State, epoch: Epoch, hello: Hello) -> Result<(), Wrong> {
        self.replace(state, epoch)?;
        state.server.sessions_made += 1;
        let id = state.server.sessions_made;
        // Attempt and count of HELLO are those of another session, or of none.
        let attempt = if self.lack(Mutant::AttemptOfAnotherSession) { hello.attempt } else { 0 };
        let has = if self.lack(Mutant::CountOfAnotherSession) { hello.received } else { 0 };
        let mut session = Session { id, attempt, bound: Some(epoch), half: Half::default() };
        session.half.link_up(has, self)?;
        state.server.session = Some(session);
        state.server.newest = Some(epoch);
        let welcome = Message::Welcome { session: id, attempt: hello.attempt, resumed: false, received: 0 };
        state.link(epoch).push(Side::Agent, welcome);
        Ok(())
    }

    /// Cuts off exactly the link that was bound, and binds the new one: from here on the peer has what HELLO says, and
    /// this side `has` what WELCOME says.
    pub(crate) fn bind(&self, state: &mut State, epoch: Epoch, hello: Hello, has: u8) -> Result<(), Wrong> {
        self.replace(state, epoch)?;
        state.server.newest = Some(epoch);
        let Some(session) = &mut state.server.session else { return Ok(()) };
        session.attempt = hello.attempt;
        session.bound = Some(epoch);
        session.half.link_up(hello.received, self)?;
        let welcome = Message::Welcome { session: session.id, attempt: hello.attempt, resumed: true, received: has };
        state.link(epoch).push(Side::Agent, welcome);
        Ok(())
    }

    fn replace(&self, state: &mut State, by: Epoch) -> Result<(), Wrong> {
        let bound = state.server.session.as_mut().and_then(|session| {
            session.half.link_down();
            session.bound.take()
        });
        let all = self.lack(Mutant::CutMoreThanBound);
        let others = (0..self.links).filter(|epoch| all && *epoch != by);
        for epoch in others.chain(bound) {
            self.cut_off(state, epoch)?;
        }
        Ok(())
    }

    fn cut_off(&self, state: &mut State, epoch: Epoch) -> Result<(), Wrong> {
        let stolen = state.agent.link == Some(epoch);
        let link = state.link(epoch);
        match self.mutant {
            // It stays to be read, or only to fail later, or only to be sent on.
            Some(Mutant::NoFenceOnReceive | Mutant::ReportsUnchecked) => {}
            Some(Mutant::NoFenceOnTransmit) => link.to_server.clear(),
            _ if link.server == End::Open => link.close(Side::Server),
            _ => {}
        }
        if stolen { Err(Wrong::Stolen) } else { Ok(()) }
    }

    /// WELCOME has come on the agent's link.
    pub(crate) fn on_welcome(&self, state: &mut State, welcome: Message) -> Result<(), Wrong> {
        let Message::Welcome { session, attempt, resumed, received } = welcome else { return Err(Wrong::Violation) };
        let agent = &mut state.agent;
        let same = agent.session == session;
        if attempt != agent.attempt || same != resumed {
            return Err(Wrong::Violation);
        }
        if !resumed {
            if agent.session > state.ended {
                return Err(Wrong::Lost);
            }
            agent.session = session;
            agent.attempt = 0;
            if !self.lack(Mutant::NoReset) {
                agent.half = Half::default();
            }
        }
        agent.welcomed = true;
        if let Some(old) = state.agent.old_link.take() {
            state.link(old).close(Side::Agent);
        }
        state.agent.half.link_up(received, self)
    }

    /// The agent's attempt was refused: its session is in other hands. Between these two that cannot be, but for an
    /// agent that dials two links at once and uses the older one last.
    pub(crate) fn on_refused(&self, state: &mut State, epoch: Epoch) -> Result<(), Wrong> {
        let out_of_order = state.links[usize::from(epoch) + 1..].iter().any(|link| link.agent != End::Unused);
        if !out_of_order {
            return Err(Wrong::Refused);
        }
        self.leave(state, epoch);
        state.agent.begin_anew();
        Ok(())
    }
}

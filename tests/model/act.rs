//! What does an action do?

use crate::{
    mutant::Mutant,
    state::{End, Epoch, Message, Side, State, Wrong},
    tunnel::{Action, Tunnel},
};

impl Tunnel {
    /// Does what is possible.
    pub(crate) fn act(&self, state: &mut State, action: Action) -> Result<(), Wrong> {
        match action {
            Action::Hello(epoch) => self.hello(state, epoch),
            Action::Send(side) => {
                let early = state.agent.link;
                self.send(state, side, state.bound(side).or(early));
            }
            Action::SendStale(epoch) => self.send(state, Side::Server, Some(epoch)),
            Action::Ack(side) => {
                let ack = state.half_mut(side).map(|(half, _)| half.ack());
                push(state, side, state.bound(side), ack);
            }
            Action::Deliver(side, epoch) => return self.deliver(state, side, epoch),
            Action::Handle(side) => return state.half_mut(side).map_or(Ok(()), |(half, id)| half.on_handled(id)),
            Action::Lose(Side::Server, epoch) => self.lose(state, epoch),
            Action::Lose(Side::Agent, epoch) => self.leave(state, epoch),
            Action::Expire => state.expire(),
            Action::GiveUp => {
                if let Some(epoch) = state.agent.link {
                    self.leave(state, epoch);
                }
                state.agent.begin_anew();
            }
            Action::Restart => restart(state),
            Action::Bind => {
                let judged = state.server.judged.take();
                return judged.map_or(Ok(()), |(epoch, hello, has)| self.bind(state, epoch, hello, has));
            }
        }
        Ok(())
    }

    fn send(&self, state: &mut State, side: Side, epoch: Option<Epoch>) {
        let message = state.half_mut(side).and_then(|(half, id)| half.next(side, id, self));
        push(state, side, epoch, message);
    }

    fn deliver(&self, state: &mut State, to: Side, epoch: Epoch) -> Result<(), Wrong> {
        let message = state.link(epoch).queue_mut(to).remove(0);
        match to {
            Side::Server => self.deliver_to_server(state, epoch, message),
            Side::Agent => self.deliver_to_agent(state, epoch, message),
        }
    }

    fn deliver_to_server(&self, state: &mut State, epoch: Epoch, message: Message) -> Result<(), Wrong> {
        let unfenced = self.lack(Mutant::NoFenceOnReceive);
        match (message, &mut state.server.session) {
            (Message::Hello(hello), _) => self.on_hello(state, epoch, hello),
            (_, Some(session)) if session.bound == Some(epoch) || unfenced => {
                session.half.on_message(message, session.id, self)
            }
            // A link that was bound before has no effect; on one that never was there is nothing but HELLO.
            _ if state.server.newest >= Some(epoch) => Ok(()),
            _ => Err(Wrong::Violation),
        }
    }

    fn deliver_to_agent(&self, state: &mut State, epoch: Epoch, message: Message) -> Result<(), Wrong> {
        let agent = &mut state.agent;
        let current = agent.link == Some(epoch);
        match message {
            Message::Refused if current => self.on_refused(state, epoch),
            _ if current && !agent.welcomed => self.on_welcome(state, message),
            _ => agent.half.on_message(message, agent.session, self),
        }
    }

    /// The server's end of a link fails. That is reported, and unbinds the session if it is its link.
    fn lose(&self, state: &mut State, epoch: Epoch) {
        state.link(epoch).close(Side::Server);
        let server = &mut state.server;
        server.judged = server.judged.filter(|(judged, ..)| *judged != epoch);
        let reported = |bound: Option<Epoch>| bound == Some(epoch) || self.lack(Mutant::ReportsUnchecked);
        if let Some(session) = server.session.as_mut().filter(|session| reported(session.bound)) {
            session.bound = None;
            session.half.link_down();
        }
    }

    /// The agent leaves a link completely, before it dials the next.
    pub(crate) fn leave(&self, state: &mut State, epoch: Epoch) {
        let agent = &mut state.agent;
        let current = agent.link == Some(epoch);
        let reads_on = current && agent.welcomed && self.lack(Mutant::AgentReadsBothLinks);
        if current {
            agent.link = None;
            agent.welcomed = false;
            agent.half.link_down();
        }
        if reads_on {
            agent.old_link = Some(epoch);
            return;
        }
        agent.old_link = agent.old_link.filter(|old| *old != epoch);
        state.link(epoch).close(Side::Agent);
    }
}

fn push(state: &mut State, from: Side, epoch: Option<Epoch>, message: Option<Message>) {
    if let (Some(epoch), Some(message)) = (epoch, message) {
        state.link(epoch).push(from.other(), message);
    }
}

/// All links go down with the server.
fn restart(state: &mut State) {
    state.expire();
    state.ended = state.server.sessions_made;
    state.server.newest = None;
    state.server.judged = None;
    state.links.iter_mut().filter(|link| link.server == End::Open).for_each(|link| link.close(Side::Server));
}

//! What happens next? The earliest of all that is due, at its time; a machine that sleeps does it when it wakes up.

use std::time::Instant;

use revdial::frame::CloseCode;

use super::{
    World,
    ledger::Serial,
    link::{Item, LinkId, ServerEnd},
    seen::What,
    traffic::At,
};

/// More than any seed needs.
const ENDLESS: u32 = 200_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    ToServer(LinkId),
    ToAgent(LinkId),
    Server(Serial),
    Agent(usize, Serial),
    Hello(LinkId),
    Expiry,
    Turn(usize),
}

impl World {
    pub(crate) fn run_until(&mut self, then: Instant) {
        while let Some((at, due)) = self.next().filter(|(at, _)| *at <= then) {
            self.now = self.now.max(at);
            self.happened += 1;
            assert!(self.happened < ENDLESS, "the world does not come to rest: {due:?}");
            self.fire(due);
            self.settle();
        }
        self.now = then;
    }

    fn next(&self) -> Option<(Instant, Due)> {
        let server = self.server.asleep;
        let links = self.links.iter().flat_map(|(id, link)| {
            let to_server = link.to_server.due().map(|at| (at.max(server), Due::ToServer(*id)));
            let asleep = self.agents.get(link.agent).map_or(self.now, |agent| agent.asleep);
            let to_agent = link.to_agent.due().map(|at| (at.max(asleep), Due::ToAgent(*id)));
            let hello = match link.server {
                ServerEnd::Answered { hello_by } => Some((hello_by.max(server), Due::Hello(*id))),
                _ => None,
            };
            to_server.into_iter().chain(to_agent).chain(hello)
        });
        let sessions = self.server.sessions.iter().filter_map(|(serial, held)| {
            held.end.session.poll_timeout().map(|at| (at.max(server), Due::Server(*serial)))
        });
        let expiry = self.next_expiry().map(|at| (at.max(server), Due::Expiry));
        let agents = self.agents.iter().enumerate().flat_map(|(ix, agent)| {
            let turn = agent.due().map(|at| (at.max(agent.asleep), Due::Turn(ix)));
            let lives = agent.lives.iter().filter_map(move |life| {
                let at = life.end.session.poll_timeout()?.max(agent.asleep);
                Some((at, Due::Agent(ix, life.end.serial)))
            });
            lives.chain(turn)
        });
        links.chain(sessions).chain(expiry).chain(agents).min()
    }

    fn fire(&mut self, due: Due) {
        match due {
            Due::ToServer(id) => {
                if let Some(item) = self.links.get_mut(&id).and_then(|link| link.to_server.take()) {
                    self.server_receives(id, item);
                }
            }
            Due::ToAgent(id) => {
                if let Some(item) = self.links.get_mut(&id).and_then(|link| link.to_agent.take()) {
                    self.agent_receives(id, item);
                }
            }
            Due::Server(serial) => self.on_timer(At::Server(serial)),
            Due::Agent(ix, serial) => self.on_timer(At::Agent(ix, serial)),
            Due::Hello(id) => self.close_link(id, Some(CloseCode::DEAD_PEER)),
            Due::Expiry => self.expire(),
            Due::Turn(ix) => self.agent_turns(ix),
        }
        self.links.retain(|_, link| !link.is_over());
    }

    fn on_timer(&mut self, at: At) {
        let now = self.now;
        if let Some((end, _)) = self.end_mut(at) {
            end.call(|session| session.handle_timeout(now));
        }
    }

    /// All that sessions ask for is done, and what they have to say is given to their links.
    pub(crate) fn settle(&mut self) {
        let mut again = true;
        while again {
            again = false;
            if self.server.asleep <= self.now {
                let all: Vec<Serial> = self.server.sessions.keys().copied().collect();
                again |= all.into_iter().filter(|serial| self.settle_server(*serial)).count() > 0;
            }
            for ix in 0..self.agents.len() {
                if self.agents[ix].asleep <= self.now {
                    let all: Vec<Serial> = self.agents[ix].lives.iter().map(|life| life.end.serial).collect();
                    again |= all.into_iter().filter(|serial| self.settle_agent(ix, *serial)).count() > 0;
                }
            }
        }
    }

    /// Whether it changed anything but what is under way.
    fn settle_server(&mut self, serial: Serial) -> bool {
        let Some(held) = self.server.sessions.get_mut(&serial) else { return true };
        let record = self.records.get_mut(&serial).expect("a record of each session");
        let asks = held.end.take_events(self.now, record);
        if let Some(link) = held.link {
            let link = self.links.get_mut(&link).expect("the bound link");
            while link.to_agent.has_room()
                && let Some(message) = held.end.say(self.now, record)
            {
                link.to_agent.put(self.now, Item::Message(message));
            }
        }
        if held.end.session.ended().is_some() {
            self.on_server_ended(serial);
        } else if let Some(link) = held.link.filter(|_| asks.dead) {
            self.seen.see(What::Dead);
            self.on_server_lost(link, Some(CloseCode::DEAD_PEER));
        } else if let Some((_, drain, _)) = asks.drains {
            self.on_agent_drains(serial, drain);
        } else {
            held.end.check_watch(self.now, record);
            return false;
        }
        true
    }

    fn settle_agent(&mut self, ix: usize, serial: Serial) -> bool {
        let Some(life) = self.agents[ix].life(serial) else { return true };
        let record = self.records.get_mut(&serial).expect("a record of each session");
        let asks = life.end.take_events(self.now, record);
        if let Some(link) = life.link {
            let link = self.links.get_mut(&link).expect("the link of a session");
            while link.to_server.has_room()
                && let Some(message) = life.end.say(self.now, record)
            {
                link.to_server.put(self.now, Item::Message(message));
            }
        }
        if life.end.session.ended().is_some() {
            self.on_life_ended(ix, serial);
        } else if asks.dead && life.link.is_some() {
            self.on_agent_lost(ix, serial, None, Some(CloseCode::DEAD_PEER));
        } else if let Some((code, _, jitter)) = asks.drains {
            self.on_server_drains(ix, serial, code, jitter);
        } else {
            life.end.check_watch(self.now, record);
            return false;
        }
        true
    }
}

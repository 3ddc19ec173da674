//! How does it go wrong? Each fault, once.

use std::time::{Duration, Instant};

use revdial::{
    frame::{CloseCode, Frame, Hello, InstanceId},
    proto::SessionEnd,
};

use super::{
    World,
    agent::Agent,
    keys::{Place, Vacancy},
    ledger::{Cause, Serial, id_of},
    life::CLOSE_WITHIN,
    link::{Item, Link, LinkId, Wire},
    swarm::Fault,
    traffic::At,
    words::alone,
};
use crate::pair::Side;

/// The agent of links that belong to none.
pub(crate) const STRANGER: usize = usize::MAX;

impl World {
    pub(crate) fn go_wrong(&mut self, fault: Fault) {
        self.tell(|_| format!("{fault:?}"));
        let (now, which) = (self.now, self.random.below(1 << 16));
        match fault {
            Fault::Cut => {
                if let Some(id) = self.some_link() {
                    self.cut(id);
                }
            }
            Fault::Silence if which % 3 == 0 => {
                self.armed.push(fault); // behind a WELCOME
                if let Some(id) = self.some_link() {
                    self.cut(id);
                }
            }
            Fault::Silence => self.on_wire(which, |wire| wire.break_behind(wire.len(), None)),
            Fault::Stall => {
                let until = now + self.random.up_to(Duration::from_secs(60));
                self.on_wire(which, |wire| wire.stall(until));
            }
            Fault::Delay => {
                let delay = self.random.up_to(Duration::from_secs(5));
                self.on_wire(which, |wire| wire.latency = delay);
            }
            Fault::Redial | Fault::LateLink => self.redial(fault == Fault::LateLink),
            Fault::LostHello | Fault::LostWelcome | Fault::LateHello | Fault::NearExpiry => {
                self.armed.push(fault);
                // Something for it to happen to.
                if let Some(id) = self.some_link().filter(|_| which.is_multiple_of(2)) {
                    self.cut(id);
                }
            }
            Fault::Fruitless => {
                self.fruitless = 9 + which % 6;
                if let Some(id) = self.some_link() {
                    self.cut(id);
                }
            }
            Fault::ServerRestart => self.restart_server(),
            Fault::AgentRestart => self.restart_agent(which),
            Fault::SecondAgent => self.add_rival(which),
            Fault::Copy => self.copy_agent(which),
            Fault::Stranger => self.send_stranger(which),
            Fault::Suspend => self.suspend(which),
            Fault::DrainByServer => self.drain_by_server(which),
            Fault::DrainAll => self.drain_all(),
            Fault::DrainByAgent => self.drain_by_agent(which),
            Fault::ShutdownByServer | Fault::ShutdownByAgent => self.shut_down(fault, which),
            _ => unreachable!("a manner is no event"),
        }
    }

    fn some_link(&mut self) -> Option<LinkId> {
        let all: Vec<LinkId> =
            self.links.iter().filter(|(_, link)| !link.to_server.is_broken()).map(|(id, _)| *id).collect();
        self.random.pick(&all)
    }

    fn on_wire(&mut self, which: usize, strike: impl FnOnce(&mut Wire)) {
        let Some(link) = self.some_link().and_then(|id| self.links.get_mut(&id)) else { return };
        let wire = if which.is_multiple_of(2) { &mut link.to_server } else { &mut link.to_agent };
        strike(wire);
    }

    /// A link breaks, and each side learns of it in its own time, or by its timers.
    pub(crate) fn cut(&mut self, id: LinkId) {
        let notices = [(); 2].map(|()| match self.random.below(5) {
            0 | 1 => Some(self.now),
            2 => Some(self.now + self.random.up_to(Duration::from_millis(500))),
            3 => Some(self.now + self.random.up_to(Duration::from_secs(20))),
            _ => None,
        });
        self.tell(|_| {
            format!(
                "link {id}: cut, noticed by server and agent at {:?}",
                notices.map(|at| at.map(|at| at - self.start))
            )
        });
        if let Some(link) = self.links.get_mut(&id) {
            link.cut(&mut self.random, notices);
        }
    }

    /// An agent leaves a link that is whole; what it said there may still arrive, late.
    fn redial(&mut self, late: bool) {
        let linked = |(ix, agent): (usize, &Agent)| {
            let lives = agent.lives.iter().filter_map(|life| Some((life.end.serial, life.link?)));
            lives.map(|(serial, link)| (ix, serial, link)).collect::<Vec<_>>()
        };
        let all: Vec<_> = self.agents.iter().enumerate().flat_map(linked).collect();
        let Some((ix, serial, link)) = self.random.pick(&all) else { return };
        if late {
            let until = self.now + self.random.up_to(Duration::from_secs(10));
            self.links.get_mut(&link).expect("the link of a session").to_server.stall(until);
        }
        self.on_agent_lost(ix, serial, None, None);
        if let Some(life) = self.agents[ix].life(serial) {
            life.retry = Some(self.now);
        }
    }

    pub(crate) fn restart_server(&mut self) {
        self.tell(|_| "the server restarts".to_owned());
        let all: Vec<Serial> = self.server.sessions.keys().copied().collect();
        let drained = self.server.drains.take().is_some();
        for serial in all {
            let held = self.server.sessions.get_mut(&serial).expect("one of all");
            if drained {
                held.end.close(CloseCode::RESTART, &SessionEnd::Shutdown, Cause::DrainOver);
            } else {
                held.end.end(&SessionEnd::Lost, Cause::Gone);
                // A process that goes away says nothing.
                if let Some(link) = held.link.take() {
                    held.end.down(self.now);
                    self.close_link(link, None);
                }
            }
            self.on_server_ended(serial);
        }
        self.links.values_mut().for_each(|link| link.close(self.now, None));
        self.server.vacancies.clear();
        self.server.numbers = 0;
        self.server.down = self.now + self.random.up_to(Duration::from_secs(5));
    }

    fn restart_agent(&mut self, which: usize) {
        let ix = which % self.agents.len();
        let dead = self.random.chance(30);
        for link in self.links.values_mut().filter(|link| link.agent == ix && dead) {
            link.to_server.break_behind(link.to_server.len(), None); // nobody learns of it
        }
        self.stop(ix, Cause::Gone);
        let after = self.random.up_to(Duration::from_secs(3));
        // Its old links are nobody's: another machine in the place of this one.
        let (key, new) = (self.agents[ix].key, self.agents.len());
        if new < 12 {
            self.add_agent(key, after);
        } else {
            let instance = self.new_instance();
            let agent = &mut self.agents[ix];
            (agent.stopped, agent.instance, agent.begin) = (false, instance, Some(self.now + after));
        }
        if self.agents.iter().filter(|agent| agent.key == key && !agent.stopped).count() > 1 {
            self.rivals.push(key); // there was one beside it
        }
    }

    fn add_rival(&mut self, which: usize) {
        let key = self.agents[which % self.agents.len()].key;
        if self.agents.len() < 12 {
            self.rivals.push(key);
            self.add_agent(key, Duration::ZERO);
        }
    }

    fn copy_agent(&mut self, which: usize) {
        let (ix, new, hold) = (which % self.agents.len(), self.agents.len(), self.swarm.hold());
        let agent = &mut self.agents[ix];
        if agent.lives.len() != 1 || agent.dial.is_some() || agent.stopped || agent.going.is_some() || new >= 12 {
            return;
        }
        let linked = agent.lives[0].link;
        let Some(life) = agent.lives[0].copy(self.now, hold) else { return };
        let (key, instance, begin, serial) = (agent.key, agent.instance, agent.begin, life.end.serial);
        self.add_agent(key, Duration::ZERO);
        let copy = &mut self.agents[new];
        (copy.instance, copy.begin) = (instance, begin);
        copy.lives.push(life);
        self.rivals.push(key);
        let bound = self.server.sessions.get(&serial).is_some_and(|held| held.link.is_some());
        self.records.entry(serial).or_default().copy((linked.is_some() || bound).then_some(ix));
        self.tell(|_| format!("agent {new} is a copy of agent {ix}"));
    }

    /// M-40.3: a session of another principal's.
    fn send_stranger(&mut self, which: usize) {
        let all: Vec<Serial> = self.server.sessions.keys().copied().collect();
        let Some(serial) = self.random.pick(&all) else { return };
        let key = self.server.sessions[&serial].key;
        let mut hello = Hello::new(InstanceId::new([9; 16]), self.swarm.agent.bounds());
        (hello.session, hello.attempt) = (id_of(serial), u64::MAX);
        let mut link = Link::new(STRANGER, key, 9, Duration::from_millis(which as u64 % 50));
        link.to_server.put(self.now, Item::Upgrade);
        link.to_server.put(self.now, Item::Message(alone(&Frame::Hello(hello), 0)));
        link.agent_open = false;
        self.links_made += 1;
        self.links.insert(self.links_made, link);
    }

    fn suspend(&mut self, which: usize) {
        let until = self.now + self.random.up_to(Duration::from_secs(180));
        let machine = which % (self.agents.len() + 1);
        match self.agents.get_mut(machine) {
            Some(agent) => agent.asleep = agent.asleep.max(until),
            None => self.server.asleep = self.server.asleep.max(until),
        }
    }

    fn drain_by_server(&mut self, which: usize) {
        let all: Vec<Serial> = self.server.sessions.keys().copied().collect();
        let Some(serial) = self.random.pick(&all) else { return };
        let held = &self.server.sessions[&serial];
        if matches!(held.place, Place::Leaving { .. }) {
            return;
        }
        let vacancy = Vacancy { until: self.now + self.swarm.max_hold, last: held.last };
        self.server.vacancies.insert(held.key, vacancy);
        let drain = Duration::from_millis(1 + which as u64 % 40_000);
        self.leave(serial, CloseCode::DRAINED, drain, Duration::from_millis(which as u64 % 2_000));
    }

    fn drain_all(&mut self) {
        if self.server.drains.is_some() {
            return;
        }
        let drain = self.random.up_to(Duration::from_secs(30));
        self.server.drains = Some(self.now + drain);
        let all = self.server.sessions.iter().filter(|(_, held)| !matches!(held.place, Place::Leaving { .. }));
        for serial in all.map(|(serial, _)| *serial).collect::<Vec<_>>() {
            self.leave(serial, CloseCode::RESTART, drain, drain / 2);
        }
    }

    fn drain_by_agent(&mut self, which: usize) {
        let ix = which % self.agents.len();
        let drain = self.random.up_to(Duration::from_secs(20));
        let end: Instant = self.now + drain;
        let agent = &mut self.agents[ix];
        if agent.stopped || agent.going.is_some() {
            return;
        }
        (agent.going, agent.begin) = (Some([end, end + CLOSE_WITHIN]), None);
        for life in &mut agent.lives {
            self.records.entry(life.end.serial).or_default().drain(Side::Agent);
            life.end.drain(CloseCode::DRAINED, drain, Duration::ZERO);
        }
        if let Some(dial) = agent.dial.take_if(|dial| dial.life.is_none()) {
            self.links.get_mut(&dial.link).expect("the link of a dial").leave(self.now, None);
        }
        let key = self.agents[ix].key;
        if self.agents.len() < 12 {
            self.rivals.push(key); // its successor may come before it has gone
            self.add_agent(key, drain / 2);
        }
    }

    /// An orderly end of one session.
    fn shut_down(&mut self, fault: Fault, which: usize) {
        let of = |at: &At| matches!(at, At::Server(_)) == (fault == Fault::ShutdownByServer);
        let all: Vec<_> = self.everywhere().into_iter().filter(of).collect();
        let Some(at) = self.random.pick(&all) else { return };
        let code = if which.is_multiple_of(4) { CloseCode::NORMAL } else { CloseCode::DRAINED };
        let Some((end, record)) = self.end_mut(at) else { return };
        record.ask(end.side);
        end.call(|session| session.shutdown(code, "enough"));
    }
}

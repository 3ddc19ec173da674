//! What do sessions promise in a world that is against them? A server, agents, links and a clock, all under one seed.
//!
//! The sessions, the agents' attempts and the server's check of a HELLO are the real ones. The rest stands for what the
//! crate does around them with sockets and tasks, in simulated time.
//!
//! | file | answers |
//! | --- | --- |
//! | `swarm`, `random` | what goes wrong under a seed; what it draws |
//! | `link`, `words` | what is under way between an agent and the server; the first and the last of it |
//! | `end`, `holder` | what one side of a session does; what the holders of its streams do and see |
//! | `ledger`, `watch` | what may be seen of a stream and of a session; what a side owes on its link |
//! | `server`, `keys` | what the server does with its links; which session a key has |
//! | `agent`, `dial`, `life` | when an agent dials; what becomes of a dial; how a session of an agent lives and ends |
//! | `clock` | what happens next |
//! | `chaos`, `traffic` | how it goes wrong; what is written and read |
//! | `seen` | what has happened at all |
//! | `calm` | what must hold when nothing goes wrong any more |

mod agent;
mod calm;
mod chaos;
mod clock;
mod dial;
mod end;
mod holder;
mod keys;
mod ledger;
mod life;
mod link;
mod random;
mod seen;
mod server;
mod swarm;
mod traffic;
mod watch;
mod words;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use agent::Agent;
use ledger::{Record, Serial};
use link::{Item, Link, LinkId};
use random::Random;
pub(crate) use seen::Seen;
use server::Server;
use swarm::{Fault, Swarm};

#[derive(Debug)]
pub(crate) struct World {
    start: Instant,
    now: Instant,
    random: Random,
    swarm: Swarm,
    links: BTreeMap<LinkId, Link>,
    links_made: LinkId,
    server: Server,
    agents: Vec<Agent>,
    records: BTreeMap<Serial, Record>,
    sessions_made: Serial,
    /// No faults any more.
    calm: bool,
    /// Keys that several machines have contended for.
    rivals: Vec<u8>,
    /// So many of the next links break as soon as they are bound.
    fruitless: usize,
    /// What becomes of the next HELLO, WELCOME or link that is left.
    armed: Vec<Fault>,
    /// How much has happened, which is bounded.
    happened: u32,
    seen: Seen,
    loud: bool,
}

/// Runs a seed to its end; panics where a promise is broken. `loud`: tells all that happens.
pub(crate) fn run(seed: u64, loud: bool) -> Seen {
    let mut world = World::new(seed, loud);
    world.tell(|world| format!("{:?}", world.swarm));
    for _ in 0..world.swarm.steps {
        world.step();
    }
    world.calm_down();
    world.close_all();
    world.seen
}

impl World {
    fn new(seed: u64, loud: bool) -> Self {
        let mut random = Random::new(seed);
        let swarm = Swarm::draw(&mut random);
        let now = Instant::now();
        let mut world = Self {
            start: now,
            now,
            links: BTreeMap::new(),
            links_made: 0,
            server: Server::new(now),
            agents: Vec::new(),
            records: BTreeMap::new(),
            sessions_made: 0,
            calm: false,
            rivals: Vec::new(),
            fruitless: 0,
            armed: Vec::new(),
            happened: 0,
            seen: Seen::default(),
            loud,
            random,
            swarm,
        };
        for key in 0..world.swarm.agents {
            world.add_agent(key as u8, Duration::ZERO);
        }
        world
    }

    /// Some time passes, and somebody does something, or something goes wrong.
    fn step(&mut self) {
        let pause = match self.random.below(100) {
            0..70 => Duration::ZERO,
            70..90 => self.random.up_to(Duration::from_millis(60)),
            90..98 => self.random.up_to(Duration::from_secs(2)),
            _ => self.random.up_to(Duration::from_secs(20)),
        };
        self.run_until(self.now + pause);
        if self.random.chance(self.swarm.rate)
            && let Some(fault) = self.random.pick(&self.swarm.events)
        {
            self.go_wrong(fault);
        } else {
            self.traffic();
        }
        self.settle();
        self.check();
    }

    /// I4, I5, I6, after each step.
    fn check(&self) {
        for held in self.server.sessions.values() {
            held.end.check(&self.records[&held.end.serial]);
            let bound = self.links.values().filter(|link| link.server == link::ServerEnd::Bound(held.end.serial));
            assert!(bound.count() <= 1, "a session with two links");
            assert_eq!(held.end.session.is_up(), held.link.is_some());
        }
        for (agent, life) in self.agents.iter().flat_map(|agent| agent.lives.iter().map(move |life| (agent, life))) {
            let record = &self.records[&life.end.serial];
            life.end.check(record);
            assert_eq!(life.end.session.is_up(), life.link.is_some());
            let Some(held) = self.server.sessions.get(&life.end.serial).filter(|_| !record.copied) else { continue };
            assert!(held.end.acked <= life.end.session.received(), "I5 of {}", agent.key);
            assert!(life.end.session.received() <= held.end.sent(), "I5 of {}", agent.key);
            assert!(life.end.acked <= held.end.session.received(), "I5 of {}", agent.key);
            assert!(held.end.session.received() <= life.end.sent(), "I5 of {}", agent.key);
        }
    }

    fn new_link(&mut self, agent: usize, key: u8, principal: u8) -> LinkId {
        let latency = Duration::from_millis(self.random.pick(&[0, 1, 20, 100]).unwrap_or(0));
        let mut link = Link::new(agent, key, principal, latency);
        link.to_server.put(self.now, Item::Upgrade);
        self.links_made += 1;
        self.links.insert(self.links_made, link);
        self.links_made
    }

    /// Takes a fault that waits for its occasion.
    fn strikes(&mut self, fault: Fault) -> bool {
        let at = self.armed.iter().position(|armed| *armed == fault);
        at.map(|at| self.armed.swap_remove(at)).is_some()
    }

    fn tell(&self, what: impl FnOnce(&Self) -> String) {
        if self.loud {
            println!("{:>9.3} {}", (self.now - self.start).as_secs_f64(), what(self));
        }
    }
}

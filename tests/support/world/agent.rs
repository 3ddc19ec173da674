//! When does an agent dial? One link at a time, for a session that has lost its own or for a new one.

use std::time::{Duration, Instant};

use revdial::{
    frame::{CloseCode, InstanceId},
    proto::{Attempts, SessionEnd},
};

use super::{
    World,
    ledger::{Cause, Serial},
    life::Life,
    link::LinkId,
};

#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) key: u8,
    pub(crate) principal: u8,
    pub(crate) instance: InstanceId,
    /// Its sessions: at most one is current, the others finish what runs.
    pub(crate) lives: Vec<Life>,
    /// The attempts at a new session.
    pub(crate) fresh: Attempts,
    /// How many of them there were.
    pub(crate) tried: u64,
    /// When a new session is to be begun.
    pub(crate) begin: Option<Instant>,
    pub(crate) dial: Option<Dial>,
    failures: u32,
    /// Replaced, or shut down.
    pub(crate) stopped: bool,
    /// It goes down: in order until the first, at the second in any case.
    pub(crate) going: Option<[Instant; 2]>,
    pub(crate) asleep: Instant,
}

/// A dial under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dial {
    pub(crate) link: LinkId,
    /// For which session; `None`: for a new one.
    pub(crate) life: Option<Serial>,
    pub(crate) until: Instant,
}

impl Agent {
    pub(crate) fn life(&mut self, serial: Serial) -> Option<&mut Life> {
        self.lives.iter_mut().find(|life| life.end.serial == serial)
    }

    pub(crate) fn life_of(&mut self, link: LinkId) -> Option<&mut Life> {
        self.lives.iter_mut().find(|life| life.link == Some(link))
    }

    pub(crate) fn has_current(&self) -> bool {
        self.lives.iter().any(|life| life.current)
    }

    /// When it has something to do by itself.
    pub(crate) fn due(&self) -> Option<Instant> {
        let holds = self.lives.iter().filter_map(|life| life.hold_until);
        let retries = self.lives.iter().filter_map(|life| life.retry).chain(self.begin).filter(|_| self.dial.is_none());
        let going = self.going.iter().flatten().copied();
        holds.chain(retries).chain(self.dial.map(|dial| dial.until)).chain(going).min()
    }
}

impl World {
    pub(crate) fn add_agent(&mut self, key: u8, after: Duration) -> usize {
        let agent = Agent {
            key,
            principal: 1,
            instance: self.new_instance(),
            lives: Vec::new(),
            fresh: Attempts::default(),
            tried: 0,
            begin: Some(self.now + after),
            dial: None,
            failures: 0,
            stopped: false,
            going: None,
            asleep: self.now,
        };
        self.agents.push(agent);
        self.agents.len() - 1
    }

    pub(crate) fn new_instance(&mut self) -> InstanceId {
        let mut id = [1; 16];
        id[..8].copy_from_slice(&self.random.next().to_be_bytes());
        InstanceId::new(id)
    }

    /// What an agent does by itself, now.
    pub(crate) fn agent_turns(&mut self, ix: usize) {
        let now = self.now;
        let agent = &mut self.agents[ix];
        let going = agent.going;
        if going.is_some_and(|[_, cut]| cut <= now || agent.lives.is_empty()) {
            return self.stop(ix, Cause::Gone);
        }
        if going.is_some_and(|[end, _]| end <= now) {
            return self.finish(ix);
        }
        let overdue: Vec<Serial> =
            agent.lives.iter().filter(|life| life.is_overdue(now)).map(|life| life.end.serial).collect();
        for serial in overdue {
            self.depart(ix, serial, Cause::Expired);
        }
        if self.agents[ix].dial.is_some_and(|dial| dial.until <= now) {
            self.dial_failed(ix, None);
        }
        let agent = &mut self.agents[ix];
        if agent.dial.is_some() || agent.stopped {
            return;
        }
        let waiting =
            agent.lives.iter().find(|life| life.retry.is_some_and(|at| at <= now)).map(|life| life.end.serial);
        if waiting.is_some() || agent.begin.is_some_and(|at| at <= now) {
            self.dial(ix, waiting);
        }
    }

    /// How long to wait for the next attempt.
    pub(crate) fn delay(&mut self, ix: usize, code: Option<CloseCode>) -> Duration {
        if code.is_some_and(|code| [1000, 1008, 4401, 4403, 4411, 4426].contains(&code.number())) {
            return Duration::from_secs(30) + self.random.up_to(Duration::from_secs(30));
        }
        let agent = &mut self.agents[ix];
        let most = Duration::from_millis(250) * (1 << agent.failures.min(7));
        agent.failures += 1;
        self.random.up_to(most.min(self.swarm.backoff))
    }

    pub(crate) fn on_progress(&mut self, ix: usize) {
        self.agents[ix].failures = 0;
    }

    /// Ends all that an agent has; it does not come back.
    pub(crate) fn stop(&mut self, ix: usize, cause: Cause) {
        self.tell(|_| format!("agent {ix}: stops, {cause:?}"));
        self.agents[ix].stopped = true;
        let end = if cause == Cause::Replaced { SessionEnd::Replaced } else { SessionEnd::Lost };
        let lives: Vec<Serial> = self.agents[ix].lives.iter().map(|life| life.end.serial).collect();
        for serial in lives {
            let Some(life) = self.agents[ix].life(serial) else { continue };
            life.end.end(&end, cause);
            self.on_life_ended(ix, serial);
        }
        let agent = &mut self.agents[ix];
        (agent.begin, agent.going) = (None, None);
        if let Some(dial) = agent.dial.take() {
            self.links.get_mut(&dial.link).expect("the link of a dial").leave(self.now, None);
        }
    }
}

//! What becomes of a dial? 101, HELLO, WELCOME; or a refusal, or nothing.

use std::time::{Duration, Instant};

use bytes::Bytes;
use revdial::{
    frame::{CloseCode, Frame, Hello, Welcome},
    proto::{Attempts, Welcomed, check_bounds},
};

use super::{
    World,
    agent::Dial,
    end::End,
    ledger::{Cause, Serial, serial_of},
    life::Life,
    link::{Item, LinkId},
    swarm::Fault,
    words::{alone, first_frame},
};
use crate::pair::Side;

/// How long the answer to a dial and WELCOME may take together.
const DIAL_WITHIN: Duration = Duration::from_secs(20);

impl World {
    pub(crate) fn dial(&mut self, ix: usize, life: Option<Serial>) {
        let agent = &mut self.agents[ix];
        assert!(agent.dial.is_none() && !agent.stopped);
        match life.and_then(|serial| agent.life(serial)) {
            Some(life) => life.retry = None,
            None => agent.begin = None,
        }
        let (key, principal, until) = (agent.key, agent.principal, self.now + DIAL_WITHIN);
        let link = self.new_link(ix, key, principal);
        self.tell(|_| format!("agent {ix}: dials link {link} for {life:?}"));
        self.agents[ix].dial = Some(Dial { link, life, until });
    }

    pub(crate) fn agent_receives(&mut self, id: LinkId, item: Item) {
        let link = &self.links[&id];
        if !link.agent_open {
            return;
        }
        let ix = link.agent;
        let agent = &mut self.agents[ix];
        if let Some(dial) = agent.dial.filter(|dial| dial.link == id) {
            match item {
                Item::Answer => self.say_hello(ix, dial),
                Item::Message(message) => self.on_answer(ix, dial, &message),
                Item::Closed(code) => self.dial_failed(ix, Some(code)),
                Item::Unavailable | Item::Eof => self.dial_failed(ix, None),
                Item::Upgrade => panic!("an upgrade to the agent"),
            }
            return;
        }
        let life = agent.life_of(id).expect("the session of an open link");
        let serial = life.end.serial;
        match item {
            Item::Message(message) => life.end.hear(self.now, &message, &self.records[&serial]),
            Item::Closed(code) => self.on_agent_lost(ix, serial, Some(code), None),
            Item::Eof => self.on_agent_lost(ix, serial, None, None),
            item => panic!("{item:?} on a link that is bound"),
        }
    }

    fn say_hello(&mut self, ix: usize, dial: Dial) {
        let base = Hello::new(self.agents[ix].instance, self.swarm.agent.bounds());
        let agent = &mut self.agents[ix];
        let (hello, has, tried) = match dial.life {
            Some(serial) => {
                let life = agent.life(serial).expect("a dial ends with its session");
                life.tried += 1;
                (life.attempts.hello(&base), life.end.session.received(), life.tried)
            }
            None => {
                agent.tried += 1;
                (agent.fresh.hello(&base), 0, agent.tried)
            }
        };
        assert_eq!(hello.attempt, tried, "M-37");
        let near = dial.life.and_then(|serial| self.near_expiry(serial));
        let (lost, late) = (self.strikes(Fault::LostHello), self.strikes(Fault::LateHello));
        let delay = self.random.up_to(Duration::from_secs(12));
        let link = self.links.get_mut(&dial.link).expect("the link of a dial");
        link.to_server.put(self.now, Item::Message(alone(&Frame::Hello(hello), has)));
        if let Some(arrival) = near {
            link.to_server.stall(arrival);
        } else if late {
            link.to_server.stall(self.now + delay);
            self.dial_failed(ix, None);
        } else if lost {
            self.cut(dial.link);
        }
    }

    /// A millisecond around the end of a session's grace, if it is in one.
    fn near_expiry(&mut self, serial: Serial) -> Option<Instant> {
        let until = self.server.sessions.get(&serial)?.place.until().filter(|until| *until > self.now)?;
        let off = Duration::from_millis(self.random.below(3) as u64);
        self.strikes(Fault::NearExpiry).then(|| until - Duration::from_millis(1) + off)
    }

    fn on_answer(&mut self, ix: usize, dial: Dial, message: &Bytes) {
        let (welcome, has) = match first_frame(message) {
            (Frame::Welcome(welcome), has) => (welcome, has),
            (Frame::Close { code, .. }, _) => return self.dial_failed(ix, Some(code)),
            (frame, _) => panic!("{frame:?} before WELCOME"),
        };
        assert_eq!(check_bounds(&welcome.bounds), Ok(()));
        let agent = &mut self.agents[ix];
        let attempts = match dial.life {
            Some(serial) => &mut agent.life(serial).expect("a dial ends with its session").attempts,
            None => &mut agent.fresh,
        };
        let welcomed = attempts.welcomed(&welcome).expect("the answer to the last HELLO");
        let attempts = attempts.clone();
        agent.dial = None;
        match (welcomed, dial.life) {
            (Welcomed::Resumed, Some(serial)) => self.on_resumed(ix, serial, dial.link, has),
            (Welcomed::Resumed, None) => panic!("a new session that goes on"),
            (Welcomed::Fresh, old) => {
                if let Some(old) = old {
                    self.depart(ix, old, Cause::Unknown);
                }
                self.on_begun(ix, attempts, &welcome, dial.link, has);
            }
        }
    }

    fn on_resumed(&mut self, ix: usize, serial: Serial, link: LinkId, has: u64) {
        let life = self.agents[ix].life(serial).expect("a dial ends with its session");
        (life.link, life.hold_until) = (Some(link), None);
        if life.end.up(self.now, has, &self.records[&serial]).is_err() {
            self.on_life_ended(ix, serial);
        }
    }

    fn on_begun(&mut self, ix: usize, attempts: Attempts, welcome: &Welcome, link: LinkId, has: u64) {
        let serial = serial_of(welcome.session);
        let twin = self.swarm.has(Fault::Copy);
        let mut end = End::new(Side::Agent, serial, &self.swarm.agent, welcome.bounds, twin, self.now);
        end.up(self.now, has, &self.records[&serial]).expect("a new session");
        let agent = &mut self.agents[ix];
        assert!(agent.lives.iter().all(|life| !life.current), "two current sessions");
        (agent.fresh, agent.tried, agent.begin) = (Attempts::default(), 0, None);
        let older: Vec<Serial> = agent.lives.iter().map(|life| life.end.serial).collect();
        agent.lives.push(Life::new(end, attempts, link));
        for serial in older {
            self.move_on(ix, serial);
        }
    }

    /// A dial came to nothing: by a refusal with this code, or by the link.
    pub(crate) fn dial_failed(&mut self, ix: usize, code: Option<CloseCode>) {
        let Some(dial) = self.agents[ix].dial.take() else { return };
        self.tell(|_| format!("agent {ix}: the dial of link {} failed, {code:?}", dial.link));
        self.links.get_mut(&dial.link).expect("the link of a dial").leave(self.now, code);
        let delay = self.delay(ix, code);
        match (code, dial.life) {
            (Some(CloseCode::REPLACED), _) => self.stop(ix, Cause::Replaced),
            (Some(CloseCode::STALE), life) => self.on_stale(ix, life),
            (_, Some(serial)) => {
                let life = self.agents[ix].life(serial).expect("a dial ends with its session");
                life.retry = Some(self.now + delay);
            }
            (_, None) => self.agents[ix].begin = Some(self.now + delay),
        }
    }

    /// M-58: somebody else has the session, or the key.
    pub(crate) fn on_stale(&mut self, ix: usize, life: Option<Serial>) {
        let agent = &self.agents[ix];
        assert!(self.rivals.contains(&agent.key), "4409 to the only agent of its key");
        let (instance, begins) = (self.new_instance(), self.now + self.delay(ix, Some(CloseCode::STALE)));
        self.agents[ix].instance = instance;
        match life {
            Some(serial) => self.depart(ix, serial, Cause::Stale),
            None => self.agents[ix].begin = Some(begins),
        }
    }
}

//! How does a session of an agent live and end? Over one link after the other, as long as it is held.

use std::time::{Duration, Instant};

use revdial::{
    frame::CloseCode,
    proto::{Attempts, SessionEnd},
};

use super::{
    World,
    end::End,
    ledger::{Cause, Serial},
    link::{Item, LinkId},
    words::{close_code, ends_session},
};
use crate::pair::Side;

/// How long the orderly end of a session may take.
pub(crate) const CLOSE_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) end: End,
    pub(crate) attempts: Attempts,
    /// How many of them there were.
    pub(crate) tried: u64,
    pub(crate) link: Option<LinkId>,
    /// When it is to have a new link.
    pub(crate) retry: Option<Instant>,
    pub(crate) hold_until: Option<Instant>,
    /// The server opens streams in it.
    pub(crate) current: bool,
    /// There is a newer session: this one gets no other link.
    moved_on: bool,
    /// The server has said that another agent has the key.
    replaced: bool,
}

impl Life {
    pub(crate) fn new(end: End, attempts: Attempts, link: LinkId) -> Self {
        let (link, current) = (Some(link), true);
        Self { end, attempts, tried: 0, link, retry: None, hold_until: None, current, moved_on: false, replaced: false }
    }

    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.hold_until.is_some_and(|until| until <= now)
    }

    /// The same on another machine, which has lost its link and dials at once.
    pub(crate) fn copy(&mut self, now: Instant, hold: Duration) -> Option<Self> {
        let mut end = self.end.copy()?;
        end.down(now);
        let (retry, hold_until, attempts) = (Some(now), Some(now + hold), self.attempts.clone());
        Some(Self { end, attempts, link: None, retry, hold_until, ..*self })
    }
}

impl World {
    /// The link of a session ends, as its agent sees it: by the other side, or since the agent closes it with `own`.
    pub(crate) fn on_agent_lost(&mut self, ix: usize, serial: Serial, code: Option<CloseCode>, own: Option<CloseCode>) {
        self.tell(|_| format!("agent {ix}: lost its link of session {serial}, {code:?}, {own:?}"));
        let Some(life) = self.agents[ix].life(serial) else { return };
        let link = life.link.take().expect("a link that is lost");
        life.end.down(self.now);
        let (progress, replaced) = (life.end.session.progress(), life.replaced);
        self.links.get_mut(&link).expect("the link of a session").leave(self.now, own.or(code));
        if progress {
            self.on_progress(ix);
        }
        match code {
            Some(CloseCode::REPLACED) => return self.stop(ix, Cause::Replaced),
            None if replaced => return self.stop(ix, Cause::Replaced),
            Some(CloseCode::STALE) => return self.on_stale(ix, Some(serial)),
            Some(code) if ends_session(code) => return self.depart(ix, serial, Cause::Closed(code)),
            _ => {}
        }
        let hold = self.swarm.hold();
        let delay = if progress && code.is_none() { Duration::ZERO } else { self.delay(ix, code) };
        let life = self.agents[ix].life(serial).expect("it has just lost its link");
        (life.hold_until, life.retry) = (Some(self.now + hold), Some(self.now + delay));
        if life.moved_on {
            self.depart(ix, serial, Cause::MovedOn);
        } else if hold.is_zero() {
            self.depart(ix, serial, Cause::Expired);
        }
    }

    /// There is a newer session.
    pub(crate) fn move_on(&mut self, ix: usize, serial: Serial) {
        let life = self.agents[ix].life(serial).expect("an older session");
        life.moved_on = true;
        if life.link.is_none() {
            self.depart(ix, serial, Cause::MovedOn);
        }
    }

    /// The agent ends a session that has no link.
    pub(crate) fn depart(&mut self, ix: usize, serial: Serial, cause: Cause) {
        let life = self.agents[ix].life(serial).expect("a session that ends");
        match cause {
            Cause::Closed(code) => {
                life.end.end(&SessionEnd::ClosedByPeer { code, reason: "".into() }, cause);
            }
            _ => life.end.end(&SessionEnd::Lost, cause),
        }
        self.on_life_ended(ix, serial);
    }

    /// A session of an agent has ended, with CLOSE as its last message, if it has one.
    pub(crate) fn on_life_ended(&mut self, ix: usize, serial: Serial) {
        let agent = &mut self.agents[ix];
        let Some(at) = agent.lives.iter().position(|life| life.end.serial == serial) else { return };
        let mut life = agent.lives.remove(at);
        let end = life.end.session.ended().cloned();
        let cause = life.end.cause;
        self.tell(|_| format!("session {serial}: agent {ix}'s ended, {end:?}, {cause:?}"));
        if let Some(dial) = self.agents[ix].dial.take_if(|dial| dial.life == Some(serial)) {
            self.links.get_mut(&dial.link).expect("the link of a dial").leave(self.now, None);
        }
        let record = self.records.get_mut(&serial).expect("a record of each session");
        if let Some(link) = life.link {
            let last = life.end.last_word(self.now);
            let link = self.links.get_mut(&link).expect("the link of a session");
            if let Some(last) = &last {
                link.to_server.put(self.now, Item::Message(last.clone()));
            }
            // A process that goes away says nothing.
            let silent = cause == Some(Cause::Gone);
            link.leave(self.now, (!silent).then(|| close_code(last, end.as_ref())));
        }
        life.end.bury(self.now, record);
        let replaced = matches!(end, Some(SessionEnd::Replaced));
        if replaced && !self.agents[ix].stopped {
            return self.stop(ix, Cause::Replaced);
        }
        let told = match &end {
            Some(SessionEnd::ClosedByPeer { code, .. }) => Some(*code),
            _ => None,
        };
        if told == Some(CloseCode::STALE) {
            self.agents[ix].instance = self.new_instance();
        }
        let idle = !self.agents[ix].stopped && self.agents[ix].going.is_none();
        if life.current && idle {
            let delay = self.delay(ix, told);
            self.agents[ix].begin = Some(self.now + delay);
        }
    }

    /// The server drains a session.
    pub(crate) fn on_server_drains(&mut self, ix: usize, serial: Serial, code: CloseCode, jitter: Duration) {
        let next = self.now + self.random.up_to(jitter);
        let agent = &mut self.agents[ix];
        let going = agent.going.is_some();
        let life = agent.life(serial).expect("a session that drains");
        life.replaced |= code == CloseCode::REPLACED;
        if life.current && !life.replaced && !going {
            life.current = false;
            agent.begin = Some(next);
        }
    }

    /// What an agent that goes down still has is ended, in order where there is a link.
    pub(crate) fn finish(&mut self, ix: usize) {
        let agent = &mut self.agents[ix];
        agent.begin = None;
        if let Some([first, cut]) = &mut agent.going {
            *first = *cut;
        }
        for life in &mut agent.lives {
            let record = self.records.get_mut(&life.end.serial).expect("a record of each session");
            let handles: Vec<_> = life.end.handles.keys().copied().collect();
            handles.into_iter().for_each(|id| life.end.detach(record, id));
            record.ask(Side::Agent);
            life.end.call(|session| session.shutdown(CloseCode::DRAINED, "the agent goes down"));
        }
    }
}

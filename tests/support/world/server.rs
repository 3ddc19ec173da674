//! What does the server do with its links? It answers, judges HELLO and binds, in one step each; and carries messages.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use revdial::{
    frame::{CloseCode, Frame, Hello, InstanceId, Welcome},
    proto::{Judgement, Known, SessionEnd, check_hello, judge_attach},
};

use super::{
    World,
    chaos::STRANGER,
    end::End,
    keys::{Place, Vacancy},
    ledger::{Cause, Serial, id_of, serial_of},
    link::{Item, LinkId, ServerEnd},
    seen::What,
    swarm::Fault,
    words::{alone, close_code, ends_session, first_frame},
};
use crate::pair::Side;

/// How long a link may take to say HELLO.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Server {
    /// How many links it has answered since it started.
    pub(crate) numbers: u64,
    pub(crate) sessions: BTreeMap<Serial, Held>,
    /// Keys in grace without a session, since theirs drains.
    pub(crate) vacancies: BTreeMap<u8, Vacancy>,
    /// It goes down at this time, and takes no new session.
    pub(crate) drains: Option<Instant>,
    /// It answers nothing until then.
    pub(crate) down: Instant,
    pub(crate) asleep: Instant,
    /// Which session expired last, and when.
    pub(crate) expired: Option<(Serial, Instant)>,
}

/// A session that the server has.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) end: End,
    pub(crate) key: u8,
    pub(crate) principal: u8,
    pub(crate) instance: InstanceId,
    pub(crate) attempt: u64,
    /// The number of its last link.
    pub(crate) last: u64,
    pub(crate) link: Option<LinkId>,
    pub(crate) place: Place,
}

impl Server {
    pub(crate) fn new(now: Instant) -> Self {
        let (sessions, vacancies) = (BTreeMap::new(), BTreeMap::new());
        Self { numbers: 0, sessions, vacancies, drains: None, down: now, asleep: now, expired: None }
    }
}

impl World {
    pub(crate) fn server_receives(&mut self, id: LinkId, item: Item) {
        let link = self.links.get_mut(&id).expect("a link on which something arrives");
        match (link.server, item) {
            (ServerEnd::Closed, _) => {} // I6: it has no effect
            (ServerEnd::Asked, Item::Upgrade) if self.now < self.server.down => {
                link.to_agent.put(self.now, Item::Unavailable);
                link.close(self.now, None);
            }
            (ServerEnd::Asked, Item::Upgrade) => {
                self.server.numbers += 1;
                link.number = Some(self.server.numbers);
                link.server = ServerEnd::Answered { hello_by: self.now + HELLO_WITHIN };
                link.to_agent.put(self.now, Item::Answer);
            }
            (ServerEnd::Answered { .. }, Item::Message(message)) => self.on_first_message(id, &message),
            (ServerEnd::Bound(serial), Item::Message(message)) => {
                let held = self.server.sessions.get_mut(&serial).expect("the session of a bound link");
                assert_eq!(held.link, Some(id));
                if !link.agent_open {
                    self.seen.see(What::LateMessage);
                }
                held.end.hear(self.now, &message, &self.records[&serial]);
            }
            (_, Item::Closed(code)) => self.on_server_lost(id, Some(code)),
            (_, Item::Eof) => self.on_server_lost(id, None),
            (end, item) => panic!("{item:?} on a link that is {end:?}"),
        }
    }

    fn on_first_message(&mut self, id: LinkId, message: &Bytes) {
        let (hello, has) = match first_frame(message) {
            (Frame::Hello(hello), has) => (hello, has),
            (Frame::Close { code, .. }, _) => return self.on_server_lost(id, Some(code)),
            (frame, _) => panic!("{frame:?} before HELLO"),
        };
        assert_eq!(check_hello(&hello), Ok(()));
        self.expire();
        if self.links[&id].server == ServerEnd::Closed {
            return; // by a restart whose time has come
        }
        self.tell(|_| format!("link {id}: HELLO of attempt {} for {}", hello.attempt, serial_of(hello.session)));
        let link = &self.links[&id];
        let (number, key, principal) = (link.number.expect("it was answered"), link.key, link.principal);
        let is_newest = self.newest_of(key).is_none_or(|newest| newest < number);
        let serial = serial_of(hello.session);
        let known = self.server.sessions.get(&serial);
        let facts = known
            .map(|held| Known { same_maker: held.key == key && held.principal == principal, attempt: held.attempt });
        let judgement = judge_attach(hello.attempt, is_newest, facts);
        self.see_expiry(serial, judgement);
        self.check_judgement(id, &hello, judgement);
        match judgement {
            Judgement::Refuse(code) => self.refuse(id, code),
            Judgement::Resume => self.resume(id, serial, &hello, has),
            Judgement::Fresh => self.begin_session(id, number, &hello),
        }
    }

    /// The grace of a session ends exactly, and not before.
    fn see_expiry(&mut self, serial: Serial, judgement: Judgement) {
        let millisecond = Duration::from_millis(1);
        let now = self.now;
        let near = |at: Instant| at.max(now) - at.min(now) <= millisecond;
        match self.server.sessions.get(&serial).map(|held| held.place) {
            Some(Place::Grace { until }) if near(until) && judgement == Judgement::Resume => {
                self.seen.see(What::InTime);
            }
            None if self.server.expired.is_some_and(|(gone, at)| gone == serial && near(at)) => {
                assert_ne!(judgement, Judgement::Resume);
                self.seen.see(What::TooLate);
            }
            _ => {}
        }
    }

    /// M-40, once more and in other words.
    fn check_judgement(&self, id: LinkId, hello: &Hello, judgement: Judgement) {
        let link = &self.links[&id];
        let newer = |held: &Held| held.key == link.key && Some(held.last) > link.number;
        let overtaken = self.server.sessions.values().any(newer)
            || self.server.vacancies.get(&link.key).is_some_and(|vacancy| Some(vacancy.last) > link.number);
        let held = self.server.sessions.get(&serial_of(hello.session));
        let expected = if overtaken {
            Judgement::Refuse(CloseCode::STALE)
        } else if let Some(held) = held {
            if (held.key, held.principal) != (link.key, link.principal) {
                Judgement::Refuse(CloseCode::FOREIGN)
            } else if hello.attempt > held.attempt {
                Judgement::Resume
            } else {
                Judgement::Refuse(CloseCode::STALE)
            }
        } else {
            Judgement::Fresh
        };
        assert_eq!(judgement, expected);
    }

    fn resume(&mut self, id: LinkId, serial: Serial, hello: &Hello, has: u64) {
        let link = &self.links[&id];
        let (agent, number) = (link.agent, link.number.expect("it was answered"));
        let record = self.records.entry(serial).or_default();
        record.bind(agent);
        let held = self.server.sessions.get_mut(&serial).expect("it is known");
        let heard = held.end.session.heard();
        let old = held.link.take();
        self.seen.see(if old.is_some() { What::Fenced } else { What::Resumed });
        if old.is_some() {
            held.end.down(self.now);
        }
        let bound = held.end.up(self.now, has, record);
        if bound.is_ok() {
            (held.last, held.attempt, held.link) = (number, hello.attempt, Some(id));
            held.place = held.place.resumed(heard);
        }
        if let Some(old) = old {
            self.close_link(old, Some(CloseCode::STALE));
        }
        match bound {
            Ok(()) => self.welcome(id, serial, hello, true),
            Err(violation) => {
                self.refuse(id, violation.code());
                self.on_server_ended(serial);
            }
        }
    }

    fn begin_session(&mut self, id: LinkId, number: u64, hello: &Hello) {
        let link = &self.links[&id];
        let (key, principal, agent) = (link.key, link.principal, link.agent);
        let owed = match self.make_way(key, principal, hello.instance) {
            Ok(owed) if agent != STRANGER => owed,
            Ok(_) => return self.refuse(id, CloseCode::FOREIGN),
            Err(code) => return self.refuse(id, code),
        };
        self.sessions_made += 1;
        let serial = self.sessions_made;
        let mut end = End::new(Side::Server, serial, &self.swarm.server, hello.bounds, false, self.now);
        let record = self.records.entry(serial).or_default();
        end.up(self.now, 0, record).expect("a new session");
        let place = Place::Current { owed };
        let (instance, link) = (hello.instance, Some(id));
        self.server
            .sessions
            .insert(serial, Held { end, key, principal, instance, attempt: 0, last: number, link, place });
        self.welcome(id, serial, hello, false);
    }

    fn welcome(&mut self, id: LinkId, serial: Serial, hello: &Hello, resumed: bool) {
        self.tell(|_| format!("link {id}: bound to session {serial}, resumed: {resumed}"));
        let max_hold = u32::try_from(self.swarm.max_hold.as_millis()).unwrap_or(u32::MAX);
        let mut welcome = Welcome::new(id_of(serial), hello.attempt, self.swarm.server.bounds(), max_hold);
        welcome.resumed = resumed;
        let has = self.server.sessions[&serial].end.session.received();
        let (lost, silent) = (self.strikes(Fault::LostWelcome), resumed && self.strikes(Fault::Silence));
        let link = self.links.get_mut(&id).expect("the link that is bound");
        link.server = ServerEnd::Bound(serial);
        link.to_agent.put(self.now, Item::Message(alone(&Frame::Welcome(welcome), has)));
        if lost {
            self.cut(id);
        } else if silent {
            link.to_agent.break_behind(1, None);
        } else if self.fruitless > 0 {
            self.fruitless -= 1;
            let soon = Some(self.now + Duration::from_millis(200));
            link.to_agent.break_behind(1, soon);
            link.to_server.break_behind(0, soon);
        }
    }

    /// Turns a link away on which nothing was agreed.
    fn refuse(&mut self, id: LinkId, code: CloseCode) {
        self.tell(|_| format!("link {id}: refused with {code}"));
        match code {
            CloseCode::STALE => self.seen.see(What::Stale),
            CloseCode::FOREIGN => self.seen.see(What::Foreign),
            CloseCode::IN_USE => self.seen.see(What::Rejected),
            _ => {}
        }
        let link = self.links.get_mut(&id).expect("the link of the HELLO");
        link.to_agent.put(self.now, Item::Message(alone(&Frame::Close { code, reason: String::new() }, 0)));
        link.close(self.now, Some(code));
    }

    pub(crate) fn close_link(&mut self, id: LinkId, code: Option<CloseCode>) {
        if let Some(link) = self.links.get_mut(&id) {
            link.close(self.now, code);
        }
    }

    /// A link ends, as the server sees it: it acts on the session only if it is the bound one.
    pub(crate) fn on_server_lost(&mut self, id: LinkId, code: Option<CloseCode>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let end = link.server;
        link.close(self.now, code);
        let ServerEnd::Bound(serial) = end else { return };
        self.tell(|_| format!("link {id}: the server has lost it, {code:?}, of session {serial}"));
        let held = self.server.sessions.get_mut(&serial).expect("the session of a bound link");
        held.link = None;
        held.end.down(self.now);
        match code.filter(|code| ends_session(*code)) {
            Some(code) => {
                let end = SessionEnd::ClosedByPeer { code, reason: "".into() };
                held.end.end(&end, Cause::Closed(code));
                self.on_server_ended(serial);
            }
            None => self.on_loss(serial),
        }
    }

    /// A session has ended: its last message is CLOSE, if it has any.
    pub(crate) fn on_server_ended(&mut self, serial: Serial) {
        let Some(mut held) = self.server.sessions.remove(&serial) else { return };
        self.tell(|_| {
            format!("session {serial}: the server's ended, {:?}, {:?}", held.end.session.ended(), held.end.cause)
        });
        let record = self.records.get_mut(&serial).expect("a record of each session");
        if let Some(id) = held.link {
            let last = held.end.last_word(self.now);
            let link = self.links.get_mut(&id).expect("the bound link");
            if let Some(last) = &last {
                link.to_agent.put(self.now, Item::Message(last.clone()));
            }
            link.close(self.now, Some(close_code(last, held.end.session.ended())));
        }
        held.end.bury(self.now, record);
    }
}

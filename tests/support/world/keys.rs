//! Which session does a key have? Its current one, perhaps in grace, beside those that drain.

use std::time::{Duration, Instant};

use revdial::{
    frame::{CloseCode, InstanceId},
    proto::SessionEnd,
};

use super::{
    World,
    ledger::{Cause, Serial},
    swarm::Fault,
};
use crate::pair::Side;

/// How many sessions of a key may drain at once.
const MAX_LEAVING: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It has a link. `owed`: the end of the grace that was broken off without a word of the agent's.
    Current {
        owed: Option<Instant>,
    },
    Grace {
        until: Instant,
    },
    /// It drains, with or without a link, and is cut off then.
    Leaving {
        until: Instant,
        code: CloseCode,
    },
}

/// A key in grace whose session drains.
#[derive(Debug)]
pub(crate) struct Vacancy {
    pub(crate) until: Instant,
    /// The number of the link that it had last.
    pub(crate) last: u64,
}

impl Place {
    /// A link is bound; `heard`: the agent had spoken on the one before.
    pub(crate) fn resumed(self, heard: bool) -> Self {
        match self {
            Self::Current { owed } => Self::Current { owed: owed.filter(|_| !heard) },
            Self::Grace { until } => Self::Current { owed: Some(until) },
            Self::Leaving { .. } => self,
        }
    }

    /// When the session is ended, if nothing happens.
    pub(crate) fn until(self) -> Option<Instant> {
        match self {
            Self::Current { .. } => None,
            Self::Grace { until } | Self::Leaving { until, .. } => Some(until),
        }
    }
}

impl World {
    /// The number of the newest link that was bound for a key, as far as it is remembered.
    pub(crate) fn newest_of(&self, key: u8) -> Option<u64> {
        let sessions = self.server.sessions.values().filter(|held| held.key == key).map(|held| held.last);
        sessions.chain(self.server.vacancies.get(&key).map(|vacancy| vacancy.last)).max()
    }

    /// The session of a key that does not drain.
    pub(crate) fn current_of(&self, key: u8) -> Option<Serial> {
        let mut all = self.server.sessions.iter().filter(|(_, held)| held.key == key);
        all.find(|(_, held)| !matches!(held.place, Place::Leaving { .. })).map(|(serial, _)| *serial)
    }

    /// When `expire` has something to do.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let sessions = self.server.sessions.values().filter_map(|held| held.place.until());
        let vacancies = self.server.vacancies.values().map(|vacancy| vacancy.until);
        sessions.chain(vacancies).chain(self.server.drains).min()
    }

    /// Ends what has its end now or before.
    pub(crate) fn expire(&mut self) {
        let now = self.now;
        self.server.vacancies.retain(|_, vacancy| vacancy.until > now);
        let over = self.server.sessions.iter().filter(|(_, held)| held.place.until().is_some_and(|until| until <= now));
        for serial in over.map(|(serial, _)| *serial).collect::<Vec<_>>() {
            self.cut_off(serial);
        }
        if self.server.drains.is_some_and(|until| until <= now) {
            self.restart_server();
        }
    }

    /// The time of a session without a link, or of one that drains, is over.
    fn cut_off(&mut self, serial: Serial) {
        let Some(held) = self.server.sessions.get_mut(&serial) else { return };
        match held.place {
            Place::Leaving { code: code @ (CloseCode::REPLACED | CloseCode::STALE), .. } => {
                held.end.close(code, &SessionEnd::Replaced, Cause::DrainOver);
            }
            Place::Leaving { code, .. } => held.end.close(code, &SessionEnd::Shutdown, Cause::DrainOver),
            Place::Current { .. } | Place::Grace { .. } => {
                self.server.expired = Some((serial, self.now));
                held.end.end(&SessionEnd::Lost, Cause::Expired);
            }
        }
        self.on_server_ended(serial);
    }

    /// The bound link of a session is lost.
    pub(crate) fn on_loss(&mut self, serial: Serial) {
        let hold = self.draw_hold();
        let Some(held) = self.server.sessions.get_mut(&serial) else { return };
        match held.place {
            Place::Current { owed } => {
                let until = owed.filter(|_| !held.end.session.heard()).unwrap_or(self.now + hold);
                held.place = Place::Grace { until };
            }
            Place::Leaving { code: CloseCode::REPLACED, .. } => self.cut_off(serial),
            Place::Grace { .. } | Place::Leaving { .. } => {}
        }
        self.expire();
    }

    /// What the policy gives: up to what was announced.
    fn draw_hold(&mut self) -> Duration {
        let max = self.swarm.max_hold;
        if self.calm { max } else { self.random.pick(&[max, max, max / 2, max / 50]).unwrap_or(max) }
    }

    /// A new session is to have the key: the one that has it gives way, or keeps it. Gives the end of the grace that is
    /// broken off by that.
    pub(crate) fn make_way(
        &mut self,
        key: u8,
        principal: u8,
        instance: InstanceId,
    ) -> Result<Option<Instant>, CloseCode> {
        let vacancy = self.server.vacancies.get(&key).map(|vacancy| vacancy.until);
        let Some(serial) = self.current_of(key) else {
            if self.server.drains.is_some() {
                return Err(CloseCode::DRAINED);
            }
            self.server.vacancies.remove(&key);
            return Ok(vacancy);
        };
        let held = self.server.sessions.get_mut(&serial).expect("the key's session");
        let same_instance = held.instance == instance;
        let connected = matches!(held.place, Place::Current { .. });
        if held.principal != principal {
            return Err(CloseCode::FOREIGN);
        }
        if connected && !same_instance && self.swarm.has(Fault::Reject) {
            return Err(CloseCode::IN_USE);
        }
        if self.server.drains.is_some() {
            return Err(CloseCode::DRAINED);
        }
        match held.place {
            Place::Current { owed } => {
                let owed = owed.filter(|_| !held.end.session.heard());
                let code = if same_instance { CloseCode::STALE } else { CloseCode::REPLACED };
                let drain = Duration::from_millis(self.random.pick(&[0, 50, 2_000, 30_000]).unwrap_or(0));
                self.leave(serial, code, drain, Duration::ZERO);
                Ok(owed)
            }
            Place::Grace { until } => {
                held.end.end(&SessionEnd::Replaced, Cause::Outlived);
                self.on_server_ended(serial);
                Ok(Some(until))
            }
            Place::Leaving { .. } => unreachable!("not the current one"),
        }
    }

    /// A session finishes what runs, and is nobody's current one any more.
    pub(crate) fn leave(&mut self, serial: Serial, code: CloseCode, drain: Duration, jitter: Duration) {
        self.tell(|_| format!("session {serial}: the server drains it, {code}, for {drain:?}"));
        let Some(held) = self.server.sessions.get_mut(&serial) else { return };
        let key = held.key;
        held.place = Place::Leaving { until: self.now + drain, code };
        self.records.entry(serial).or_default().drain(Side::Server);
        if drain.is_zero() {
            return self.cut_off(serial);
        }
        held.end.drain(code, drain, jitter);
        self.evict(key);
    }

    /// An agent drains its session, for so long.
    pub(crate) fn on_agent_drains(&mut self, serial: Serial, drain: Duration) {
        let hold = self.draw_hold();
        let Some(held) = self.server.sessions.get_mut(&serial) else { return };
        if matches!(held.place, Place::Current { .. }) {
            let (key, last) = (held.key, held.last);
            let until = self.now + drain + Duration::from_secs(5);
            held.place = Place::Leaving { until, code: CloseCode::DRAINED };
            self.server.vacancies.insert(key, Vacancy { until: self.now + hold, last });
            self.evict(key);
        }
    }

    fn evict(&mut self, key: u8) {
        let leaving = |serial: &Serial| matches!(self.server.sessions[serial].place, Place::Leaving { .. });
        let of_key = self.server.sessions.iter().filter(|(_, held)| held.key == key).map(|(serial, _)| *serial);
        let all: Vec<Serial> = of_key.filter(leaving).collect();
        for serial in all.iter().rev().skip(MAX_LEAVING) {
            self.cut_off(*serial);
        }
    }
}

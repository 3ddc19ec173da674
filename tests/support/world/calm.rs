//! What holds when nothing goes wrong any more? All go on, all that was written is read, and nothing is left in the end.

use std::time::Duration;

use bytes::Bytes;
use revdial::{
    frame::{CloseCode, Frame},
    proto::{SessionConfig, SessionEnd},
};

use super::{
    World,
    end::End,
    keys::Place,
    ledger::{Cause, Record, Serial},
    swarm::Fault,
    traffic::At,
};
use crate::pair::{Side, frames};

/// Beside dead-peer time, hold and backoff: what drains, waits for a dial's answer, and pauses of a minute.
const MARGIN: Duration = Duration::from_secs(45 + 20 + 60);

const TICK: Duration = Duration::from_secs(2);

impl World {
    /// I7: when the faults stop, everything comes to rest in a stated time, and goes on.
    pub(crate) fn calm_down(&mut self) {
        self.tell(|_| "calm".to_owned());
        self.calm = true;
        self.fruitless = 0;
        self.armed.clear();
        self.links.values_mut().for_each(super::Link::heal);
        self.server.asleep = self.now;
        self.agents.iter_mut().for_each(|agent| agent.asleep = self.now);
        let dead_after = self.swarm.server.dead_after.max(self.swarm.agent.dead_after);
        let within = dead_after + self.swarm.hold() + 2 * self.swarm.backoff + MARGIN;
        let end = self.now + within;
        while self.now < end {
            self.end_forked();
            self.run_until(self.now + TICK);
            self.read_all();
            self.check();
        }
        self.check_paired();
        self.check_progress();
    }

    /// What two machines have made of one session is of no use to anybody.
    fn end_forked(&mut self) {
        let forked = |serial: &&Serial| self.records[serial].copied;
        for serial in self.server.sessions.keys().filter(forked).copied().collect::<Vec<_>>() {
            let record = self.records.get_mut(&serial).expect("a record of each session");
            record.forked = true;
            let held = self.server.sessions.get_mut(&serial).expect("one of all");
            held.end.close(CloseCode::INTERNAL, &SessionEnd::Internal, Cause::Forked);
            self.on_server_ended(serial);
        }
    }

    /// I10: no session is one side's alone; and every agent that is to have one has one.
    fn check_paired(&self) {
        for (serial, held) in &self.server.sessions {
            let lives = self.agents.iter().flat_map(|agent| &agent.lives);
            assert_eq!(
                lives.filter(|life| life.end.serial == *serial).count(),
                1,
                "session {serial} is the server's alone"
            );
            assert!(held.link.is_some(), "session {serial} has no link");
        }
        for (ix, agent) in self.agents.iter().enumerate() {
            let rejected = self.swarm.has(Fault::Reject) && self.rivals.contains(&agent.key);
            if agent.stopped || (rejected && agent.lives.is_empty()) {
                continue;
            }
            assert!(agent.has_current(), "agent {ix} has no session");
            for life in &agent.lives {
                let held = self.server.sessions.get(&life.end.serial);
                let held = held.unwrap_or_else(|| panic!("session {} is agent {ix}'s alone", life.end.serial));
                let current = matches!(held.place, Place::Current { .. });
                assert!(life.link.is_some() && life.current == current, "agent {ix}: {:?} {:?}", life.link, held.place);
            }
        }
        for key in 0..self.swarm.agents as u8 {
            let mut of_key = self.agents.iter().filter(|agent| agent.key == key);
            assert!(of_key.all(|agent| agent.stopped) || self.current_of(key).is_some(), "key {key} has no session");
        }
    }

    /// Every stream goes on, nobody sleeps who could go on, and all that was written is read.
    fn check_progress(&mut self) {
        for at in self.everywhere() {
            let now = self.now;
            let (end, record) = self.end_mut(at).expect("a side of a session");
            end.check_sleepers(now, record);
        }
        for round in 0..8 {
            // More than a window in all: credit must come back for it.
            for at in self.everywhere() {
                let now = self.now;
                let (end, record) = self.end_mut(at).expect("a side of a session");
                for id in end.handles.keys().copied().collect::<Vec<_>>() {
                    let handle = &end.handles[&id];
                    let over = handle.finished || handle.failed;
                    let written = end.write(now, record, id, 16 * 1024);
                    let stuck = written == 0 && !over && !end.handles[&id].failed;
                    assert!(!stuck, "{id:?} of {:?} is stuck in round {round}", end.side);
                }
            }
            self.settle();
            self.run_until(self.now + TICK);
            self.read_all();
            self.run_until(self.now + TICK);
            while self.read_all() > 0 {
                self.run_until(self.now + TICK);
            }
        }
        let lives = self.agents.iter().flat_map(|agent| &agent.lives);
        for serial in lives.map(|life| life.end.serial).collect::<Vec<_>>() {
            self.check_streams(serial);
        }
    }

    fn check_streams(&mut self, serial: Serial) {
        let server = &self.server.sessions[&serial].end;
        let agent = self.agents.iter().flat_map(|agent| &agent.lives).find(|life| life.end.serial == serial);
        let agent = &agent.expect("its other side").end;
        let record = self.records.get_mut(&serial).expect("a record of each session");
        for (end, other) in [(server, agent), (agent, server)] {
            for (id, handle) in &end.handles {
                let peer = other.handles.get(id);
                let told = record.told(*id, end.side.other());
                if handle.failed {
                    // I10: what one side sees, the other sees too.
                    let seen = peer.is_none_or(|peer| peer.failed || (peer.ended && peer.finished));
                    assert!(seen, "{id:?} failed at {:?} only", end.side);
                } else {
                    assert!(!told.reset || handle.ended, "{id:?} of {:?} does not know of its reset", end.side);
                    assert_eq!(handle.read, told.written, "{id:?} of {:?} lost bytes", end.side);
                    assert!(!told.finished || handle.ended, "{id:?} of {:?} lost its end", end.side);
                }
            }
        }
    }

    /// I9: when all handles are gone, nothing is left, and all that was lent has come back.
    pub(crate) fn close_all(&mut self) {
        for at in self.everywhere() {
            let (end, record) = self.end_mut(at).expect("a side of a session");
            while end.side == Side::Agent && end.take().is_some() {}
            for id in end.handles.keys().copied().collect::<Vec<_>>() {
                end.detach(record, id);
            }
        }
        self.settle();
        self.run_until(self.now + TICK); // also the last acks leave
        self.records.values().for_each(|record| self.seen.add(&record.seen));
        for at in self.everywhere() {
            let (now, config) = (self.now, self.swarm.server.clone());
            let (end, record) = self.end_mut(at).expect("a side of a session");
            let stats = end.session.stats();
            let left = (stats.streams, stats.buffered_bytes, stats.unread_bytes);
            assert_eq!(left, (0, 0, 0), "{:#?}", end.session);
            if let At::Server(_) = at {
                let lent = lent_to_one(now, end, record);
                assert_eq!(lent, Some(most_lent(&config)), "a loan did not come back");
            }
        }
    }
}

/// The credit that a stream gets when nothing is lent.
fn lent_to_one(now: std::time::Instant, end: &mut End, record: &mut Record) -> Option<u64> {
    end.open(now, record, 0).expect("room for a stream");
    let messages: Vec<Bytes> = std::iter::from_fn(|| end.say(now, record)).collect();
    messages.into_iter().flat_map(frames).find_map(|frame| match frame {
        Frame::Open { credit, .. } => Some(credit),
        _ => None,
    })
}

fn most_lent(config: &SessionConfig) -> u64 {
    let free = config.recv_budget - (config.max_streams * config.base_credit) as usize;
    u64::from(config.base_credit) + (config.lent_credit as usize).min(free / 8) as u64
}

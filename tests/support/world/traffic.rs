//! What do programs do with their streams? They open, take, write, read and end them, each in its manner.

use revdial::{
    frame::{ResetCode, StreamId},
    proto::OpenError,
};

use super::{
    World,
    end::End,
    ledger::{Record, Serial},
    swarm::Fault,
};
use crate::pair::Side;

/// Where one side of a session is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At {
    Server(Serial),
    Agent(usize, Serial),
}

impl World {
    /// Every side of every session, of those that are awake.
    pub(crate) fn everywhere(&self) -> Vec<At> {
        let server = self.server.sessions.keys().map(|serial| At::Server(*serial));
        let server = server.filter(|_| self.server.asleep <= self.now);
        let agents = self.agents.iter().enumerate().filter(|(_, agent)| agent.asleep <= self.now);
        let lives = agents.flat_map(|(ix, agent)| agent.lives.iter().map(move |life| At::Agent(ix, life.end.serial)));
        server.chain(lives).collect()
    }

    pub(crate) fn end_mut(&mut self, at: At) -> Option<(&mut End, &mut Record)> {
        let (end, serial) = match at {
            At::Server(serial) => (&mut self.server.sessions.get_mut(&serial)?.end, serial),
            At::Agent(ix, serial) => (&mut self.agents[ix].life(serial)?.end, serial),
        };
        Some((end, self.records.get_mut(&serial)?))
    }

    /// Somebody does something with a stream.
    pub(crate) fn traffic(&mut self) {
        let everywhere = self.everywhere();
        let Some(at) = self.random.pick(&everywhere) else { return };
        let (op, size, which) = (self.random.below(100), self.random.below(256), self.random.below(1 << 16));
        let has = |fault| self.swarm.has(fault);
        let size = size * size;
        let written = if has(Fault::EmptyWrites) && which % 5 == 0 {
            0
        } else if has(Fault::TinyWrites) {
            size % 20
        } else {
            size
        };
        let read = if has(Fault::SlowReaders) { 1 } else { 1 + 2 * size };
        let (refuses, hesitates) = (has(Fault::Refusals) && which % 3 == 0, has(Fault::Hesitation) && which % 7 != 0);
        let (resets, detaches, finishes) = (has(Fault::Resets), has(Fault::Detaches), !has(Fault::NeverFinish));
        let now = self.now;
        let Some((end, record)) = self.end_mut(at) else { return };
        let Some(id) = some(end, which) else {
            return begin(end, record, now, which);
        };
        match op {
            0..14 => begin(end, record, now, which),
            14..24 if end.side == Side::Server || hesitates => end.look(now, record, id),
            14..24 if refuses && end.handles.get(&id).is_some_and(|handle| !handle.accepted) => {
                end.reset(record, id, ResetCode::TARGET_REFUSED);
            }
            14..24 => {
                begin(end, record, now, which);
                let all: Vec<_> =
                    end.handles.iter().filter(|(_, handle)| !handle.accepted).map(|(id, _)| *id).collect();
                all.into_iter().for_each(|id| end.accept(now, record, id));
            }
            24..58 => drop(end.write(now, record, id, written)),
            58..88 => drop(end.read(now, record, id, read)),
            88..94 if finishes => end.finish(now, record, id),
            94..95 if resets => end.reset(record, id, ResetCode::INTERNAL),
            95..97 if detaches => end.detach(record, id),
            _ => end.look(now, record, id),
        }
    }

    /// Everybody takes and reads what there is; gives how many bytes there were.
    pub(crate) fn read_all(&mut self) -> usize {
        let (now, mut all) = (self.now, 0);
        for at in self.everywhere() {
            let Some((end, record)) = self.end_mut(at) else { continue };
            while end.side == Side::Agent && end.take().is_some() {}
            for id in end.handles.keys().copied().collect::<Vec<_>>() {
                end.accept(now, record, id);
                loop {
                    let read = end.read(now, record, id, 1 << 20);
                    all += read;
                    if read == 0 {
                        break;
                    }
                }
            }
        }
        self.settle();
        all
    }
}

/// A stream of a side, newer ones rather than older ones.
fn some(end: &End, which: usize) -> Option<StreamId> {
    let back = which % end.handles.len().clamp(1, 4);
    end.handles.keys().rev().nth(back).copied()
}

/// The server opens; an agent takes what waits.
fn begin(end: &mut End, record: &mut Record, now: std::time::Instant, which: usize) {
    if end.side == Side::Agent {
        end.take();
    } else if let Err(error) = end.open(now, record, which) {
        let stated = match error {
            OpenError::TooManyOpens | OpenError::TooManyStreams => true,
            OpenError::Draining => end.session.is_draining(),
            _ => false,
        };
        assert!(stated, "{error:?}");
    }
}

//! What do the holders of streams do, and what may they see? Bytes in order, an end at the final size, stated failures.

use std::time::Instant;

use revdial::{
    frame::{Metadata, ResetCode, StreamId},
    proto::{OpenError, Opened, Read, StreamError},
};

use super::{
    end::{End, Handle, Wait},
    ledger::Record,
    seen::What,
};
use crate::pair::{PERIOD, Side, pattern};

impl End {
    pub(crate) fn open(&mut self, now: Instant, record: &mut Record, target: usize) -> Result<StreamId, OpenError> {
        let target = ["", "a", "b"][target % 3].parse().expect("a target name");
        let opened = self.call(|session| session.open(&target, Metadata::default()));
        self.opener_parked |= opened == Err(OpenError::TooManyOpens);
        let id = opened?;
        assert!(!record.is_draining(self.side), "M-56: opened in a session that drains");
        record.open(id, now + self.config.accept_timeout);
        self.handles.insert(id, Handle { accepted: true, ..Handle::default() });
        self.parked.insert((id, Wait::Answer));
        Ok(id)
    }

    /// Takes a stream that waits; it is to be answered.
    pub(crate) fn take(&mut self) -> Option<StreamId> {
        let id = self.call(|session| session.incoming())?.stream;
        self.handles.insert(id, Handle::default());
        Some(id)
    }

    pub(crate) fn accept(&mut self, now: Instant, record: &mut Record, id: StreamId) {
        let Some(handle) = self.handles.get_mut(&id).filter(|handle| !handle.accepted) else { return };
        handle.accepted = true;
        if let Err(error) = self.call(|session| session.accept(id)) {
            self.handles.remove(&id);
            self.fail(now, record, id, &error);
        }
    }

    /// Writes up to `n` bytes of the stream's pattern; gives how many were taken.
    pub(crate) fn write(&mut self, now: Instant, record: &mut Record, id: StreamId, n: usize) -> usize {
        let Some(handle) = self.handles.get(&id).filter(|handle| handle.accepted && !handle.finished) else { return 0 };
        let bytes = &pattern(id, self.side, handle.written + self.salt())[..n.min(PERIOD)];
        match self.call(|session| session.send(id).expect("it is held").write(bytes)) {
            Ok(Some(taken)) => {
                assert!(taken <= bytes.len() && (taken > 0 || bytes.is_empty()));
                let handle = self.handles.get_mut(&id).expect("it is held");
                handle.written += taken as u64;
                let told = record.told(id, self.side);
                told.written = told.written.max(handle.written);
                taken
            }
            Ok(None) => {
                self.parked.insert((id, Wait::Write));
                record.seen.see(What::Blocked);
                0
            }
            Err(error) => {
                self.fail(now, record, id, &error);
                0
            }
        }
    }

    /// Reads up to `n` bytes and holds them against what was written (I1, I2, I3); gives how many there were.
    pub(crate) fn read(&mut self, now: Instant, record: &mut Record, id: StreamId, n: usize) -> usize {
        let Some(at) = self.handles.get(&id).filter(|handle| handle.accepted).map(|handle| handle.read) else {
            return 0;
        };
        let (from, salt) = (self.side.other(), self.salt());
        let outcome = self.call(|session| session.recv(id).expect("it is held").read(n.max(1)));
        let handle = self.handles.get_mut(&id).expect("it is held");
        let sure = !(record.forked || (record.copied && self.side == Side::Server));
        let told = record.told(id, from);
        match outcome {
            Ok(Read::Bytes(bytes)) => {
                let mut at = at;
                for bytes in bytes.chunks(PERIOD) {
                    let same = pattern(id, from, at + salt).starts_with(bytes);
                    assert!(same || !sure, "{id:?} from {from:?} differs behind {at}");
                    at += bytes.len() as u64;
                }
                assert!(at <= told.written || !sure, "{id:?} from {from:?} read {at} of {told:?}");
                assert!(!handle.ended, "bytes behind the end");
                handle.read = at;
                bytes.len()
            }
            Ok(Read::Blocked) => {
                self.parked.insert((id, Wait::Read));
                0
            }
            Ok(Read::End) => {
                let whole = told.finished && told.written == at;
                assert!(whole || !sure, "an end of {id:?} from {from:?} at {at} of {told:?}");
                if !std::mem::replace(&mut handle.ended, true) {
                    record.seen.see(What::Ended);
                }
                0
            }
            Err(error) => {
                self.fail(now, record, id, &error);
                0
            }
        }
    }

    pub(crate) fn finish(&mut self, now: Instant, record: &mut Record, id: StreamId) {
        let Some(handle) = self.handles.get(&id).filter(|handle| handle.accepted && !handle.finished) else { return };
        let written = handle.written;
        match self.call(|session| session.send(id).expect("it is held").finish()) {
            Ok(()) => {
                self.handles.entry(id).or_default().finished = true;
                self.parked.remove(&(id, Wait::Write)); // who finishes waits for no room
                let told = record.told(id, self.side);
                (told.finished, told.written) = (true, told.written.max(written));
            }
            Err(error) => self.fail(now, record, id, &error),
        }
    }

    pub(crate) fn reset(&mut self, record: &mut Record, id: StreamId, code: ResetCode) {
        if self.give_up(id).is_some() {
            record.told(id, self.side).reset = true;
            self.call(|session| session.reset(id, code, "because"));
        }
    }

    pub(crate) fn detach(&mut self, record: &mut Record, id: StreamId) {
        let Some(handle) = self.give_up(id) else { return };
        let told = record.told(id, self.side);
        (told.detached, told.finished) = (true, true);
        told.reset |= !handle.accepted; // a refusal
        self.call(|session| session.detach(id));
    }

    fn give_up(&mut self, id: StreamId) -> Option<Handle> {
        self.parked.retain(|(stream, _)| *stream != id);
        self.handles.remove(&id)
    }

    /// What became of an open.
    pub(crate) fn look(&mut self, now: Instant, record: &mut Record, id: StreamId) {
        if self.side == Side::Server
            && self.handles.contains_key(&id)
            && let Opened::Failed(error) = self.call(|session| session.opened(id))
        {
            self.fail(now, record, id, &error);
        }
    }

    fn fail(&mut self, now: Instant, record: &mut Record, id: StreamId, error: &StreamError) {
        // An open has its whole time again with each link; the agent's may be another one than the server's.
        let overdue = (self.side == Side::Server).then(|| self.linked + self.config.accept_timeout);
        if let StreamError::Session(end) = error {
            assert_eq!(Some(end), self.session.ended());
        }
        if let Some(handle) = self.handles.get_mut(&id)
            && std::mem::replace(&mut handle.failed, true)
        {
            return; // judged when it was new
        }
        record.failed(id, self.side, error, now, overdue);
    }

    /// Another session has other bytes.
    fn salt(&self) -> u64 {
        self.serial * 104_729
    }

    /// Whoever sleeps and was not woken would still find nothing.
    pub(crate) fn check_sleepers(&mut self, now: Instant, record: &mut Record) {
        for (id, wait) in self.parked.clone() {
            self.parked.remove(&(id, wait));
            let found = match wait {
                Wait::Read => self.read(now, record, id, 1) > 0 || !self.parked.contains(&(id, wait)),
                Wait::Write => self.write(now, record, id, 1) > 0 || !self.parked.contains(&(id, wait)),
                Wait::Answer => self.call(|session| session.opened(id)) != Opened::Waiting,
            };
            assert!(!found, "{id:?} of {:?} sleeps through its {wait:?}", self.side);
        }
        if self.opener_parked {
            let opened = self.open(now, record, 0);
            assert_eq!(opened, Err(OpenError::TooManyOpens), "an opener sleeps");
        }
    }
}

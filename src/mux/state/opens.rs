//! Opens that wait until others are answered.

use std::{mem, task::Waker};

use super::State;
use crate::{
    frame::{Metadata, StreamId},
    key::TargetName,
    proto::OpenError,
};

/// Opens that wait for others to be answered; beyond, they fail at once. As many as streams by default: more could
/// not all be open in the end.
const MAX_QUEUED_OPENS: usize = 1024;

/// An open that waits its turn. It is opened for its task, in order, so that nobody can slip in between.
pub(super) struct QueuedOpen {
    target: TargetName,
    metadata: Metadata,
    waker: Waker,
    outcome: Option<Result<StreamId, OpenError>>,
}

impl State {
    /// Queues an open for when others are answered; its ticket, or the error if the queue is full.
    pub(in crate::mux) fn queue_open(
        &mut self,
        target: TargetName,
        metadata: Metadata,
        waker: &Waker,
    ) -> Result<u64, OpenError> {
        if self.opens.len() >= MAX_QUEUED_OPENS {
            return Err(OpenError::TooManyOpens);
        }
        let ticket = self.ticket();
        self.opens.insert(ticket, QueuedOpen { target, metadata, waker: waker.clone(), outcome: None });
        Ok(ticket)
    }

    /// What became of a queued open. `None`: nothing yet, and `waker` is woken when it does.
    pub(in crate::mux) fn queued_open(&mut self, ticket: u64, waker: &Waker) -> Option<Result<StreamId, OpenError>> {
        let open = self.opens.get_mut(&ticket)?;
        if open.outcome.is_none() {
            if !open.waker.will_wake(waker) {
                self.after.discard([mem::replace(&mut open.waker, waker.clone())]);
            }
            return None;
        }
        self.unqueue_open(ticket)
    }

    /// Takes a queued open out of the queue, with what became of it.
    pub(in crate::mux) fn unqueue_open(&mut self, ticket: u64) -> Option<Result<StreamId, OpenError>> {
        let open = self.opens.remove(&ticket)?;
        self.after.discard([open.waker]);
        open.outcome
    }

    /// Opens what is queued, oldest first. What finds too many unanswered, for its target or in all, stays.
    pub(super) fn open_queued(&mut self) {
        for open in self.opens.values_mut().filter(|open| open.outcome.is_none()) {
            match self.session.open(&open.target, open.metadata.clone()) {
                Err(OpenError::TooManyOpens) => {}
                outcome => {
                    open.outcome = Some(outcome);
                    self.after.wake([open.waker.clone()]);
                }
            }
        }
    }
}

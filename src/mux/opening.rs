//! An open under way: queued, asked, answered.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::{
    shared::Shared,
    state::{State, Wait},
    stream::MuxStream,
};
use crate::{
    error::{Error, ErrorKind},
    frame::{Metadata, ResetCode, StreamId},
    key::TargetName,
    proto::{OpenError, Opened},
};

/// An open under way.
///
/// # Cancel safety
/// Dropping it gives the open up: the agent is told by RESET, and nothing of the stream stays behind.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Opening {
    shared: Arc<Shared>,
    early_data: bool,
    step: Step,
}

enum Step {
    New {
        target: TargetName,
        metadata: Metadata,
    },
    /// Others have to be answered first.
    Queued(u64),
    /// OPEN is on its way.
    Asked(StreamId),
    Done,
}

impl Opening {
    pub(super) fn new(shared: Arc<Shared>, target: TargetName, metadata: Metadata, early_data: bool) -> Self {
        Self { shared, early_data, step: Step::New { target, metadata } }
    }
}

impl Future for Opening {
    type Output = Result<MuxStream, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { shared, early_data, step } = self.get_mut();
        let opened = shared.with(|state| step.advance(state, *early_data, cx.waker()));
        opened.map_ok(|id| MuxStream::new(Arc::clone(shared), id))
    }
}

impl Step {
    fn advance(&mut self, state: &mut State, early_data: bool, waker: &Waker) -> Poll<Result<StreamId, Error>> {
        loop {
            *self = match mem::replace(self, Self::Done) {
                Self::New { target, metadata } => match state.session.open(&target, metadata.clone()) {
                    Err(OpenError::TooManyOpens) => {
                        *self = Self::Queued(state.queue_open(target, metadata, waker)?);
                        return Poll::Pending;
                    }
                    asked => Self::Asked(asked?),
                },
                Self::Queued(ticket) => match state.queued_open(ticket, waker) {
                    Some(asked) => Self::Asked(asked?),
                    None => {
                        *self = Self::Queued(ticket);
                        return Poll::Pending;
                    }
                },
                Self::Asked(id) if early_data => return Poll::Ready(Ok(id)),
                Self::Asked(id) => match state.session.opened(id) {
                    Opened::Accepted => return Poll::Ready(Ok(id)),
                    Opened::Waiting => {
                        state.wait(id, Wait::Answer, waker);
                        *self = Self::Asked(id);
                        return Poll::Pending;
                    }
                    Opened::Failed(error) => {
                        state.give_up(id);
                        // Who waits for the answer has written nothing yet.
                        return Poll::Ready(Err(Error::from(error).unsent()));
                    }
                },
                Self::Done => return Poll::Ready(Err(Error::new(ErrorKind::Internal))),
            };
        }
    }
}

impl State {
    /// Tells the agent, unless the open has failed; what it has not taken yet is withdrawn there.
    fn give_up(&mut self, id: StreamId) {
        self.session.reset(id, ResetCode::CANCELLED, "");
        self.forget(id);
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        match self.step {
            Step::New { .. } | Step::Done => {}
            Step::Asked(id) => self.shared.with(|state| state.give_up(id)),
            Step::Queued(ticket) => self.shared.with(|state| {
                if let Some(Ok(id)) = state.unqueue_open(ticket) {
                    state.give_up(id);
                }
            }),
        }
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("early_data", &self.early_data).finish_non_exhaustive()
    }
}

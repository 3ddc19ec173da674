//! The tunnel that is a double.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use crate::{
    connman::handle::Handle,
    error::Error,
    frame::{CloseCode, Metadata},
    key::{Epoch, TargetName},
    mux::{BindError, Deferred},
    proto::{SessionEnd, SessionStats},
};

/// A tunnel that opens "streams" at once, or when told to.
#[derive(Debug, Clone)]
pub(super) struct Fake(pub(super) Arc<FakeState>);

#[derive(Debug)]
pub(super) struct FakeState {
    name: u32,
    answers_opens: bool,
    agent_spoke: bool,
    ended: Mutex<Option<SessionEnd>>,
    closed_with: Mutex<Option<CloseCode>>,
    unanswered: Mutex<Vec<oneshot::Sender<Result<u32, Error>>>>,
    pub(super) deadline_ms: Mutex<Option<u32>>,
    pub(super) given_up: AtomicUsize,
    pub(super) up_since: Mutex<Option<std::time::Instant>>,
    drained_with: Mutex<Option<(CloseCode, Duration)>>,
}

impl Fake {
    pub(super) fn new(name: u32) -> Self {
        Self::with(name, true, true)
    }

    pub(super) fn silent(name: u32) -> Self {
        Self::with(name, false, true)
    }

    /// One whose agent says nothing after WELCOME.
    pub(super) fn mute(name: u32) -> Self {
        Self::with(name, false, false)
    }

    fn with(name: u32, answers_opens: bool, agent_spoke: bool) -> Self {
        Self(Arc::new(FakeState {
            name,
            answers_opens,
            agent_spoke,
            ended: Mutex::default(),
            closed_with: Mutex::default(),
            unanswered: Mutex::default(),
            deadline_ms: Mutex::default(),
            given_up: AtomicUsize::new(0),
            up_since: Mutex::new(Some(Instant::now().into_std())),
            drained_with: Mutex::default(),
        }))
    }

    pub(super) fn answer(&self, answer: impl Fn() -> Result<u32, Error>) {
        for open in self.0.unanswered.lock().unwrap().drain(..) {
            let _ = open.send(answer());
        }
    }

    pub(super) fn closed_with(&self) -> Option<CloseCode> {
        *self.0.closed_with.lock().unwrap()
    }
}

pub(super) struct FakeOpening {
    answer: oneshot::Receiver<Result<u32, Error>>,
    of: Arc<FakeState>,
    answered: bool,
}

impl Future for FakeOpening {
    type Output = Result<u32, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(cx)).unwrap();
        self.answered = true;
        Poll::Ready(answer)
    }
}

impl Drop for FakeOpening {
    fn drop(&mut self) {
        if !self.answered {
            self.of.given_up.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Handle for Fake {
    type Stream = u32;
    type Opening = FakeOpening;
    type Link = ();

    fn bind(&self, _: Epoch, _: u64) -> Deferred<Result<(), BindError>> {
        Deferred::ready(match self.ended() {
            Some(_) => Err(BindError::Ended),
            None => Ok(()),
        })
    }

    fn heard_before((): &()) -> bool {
        true
    }

    fn heard(&self) -> bool {
        self.0.agent_spoke
    }

    fn up_since(&self) -> Option<std::time::Instant> {
        *self.0.up_since.lock().unwrap()
    }

    fn is_draining(&self) -> bool {
        self.ended().is_some() || self.0.drained_with.lock().unwrap().is_some()
    }

    fn drain(&self, code: CloseCode, deadline: Duration, _: Duration, _: &str) {
        *self.0.drained_with.lock().unwrap() = Some((code, deadline));
    }

    fn open(&self, _: TargetName, metadata: Metadata, _: bool) -> FakeOpening {
        let (sender, answer) = oneshot::channel();
        *self.0.deadline_ms.lock().unwrap() = metadata.deadline_ms;
        match self.ended() {
            Some(end) => drop(sender.send(Err(end.into()))),
            None if self.0.answers_opens => drop(sender.send(Ok(self.0.name))),
            None => self.0.unanswered.lock().unwrap().push(sender),
        }
        FakeOpening { answer, of: Arc::clone(&self.0), answered: false }
    }

    fn with_eof(stream: u32, _: bool) -> u32 {
        stream
    }

    fn close(&self, code: CloseCode, _: &str, end: SessionEnd) {
        self.0.closed_with.lock().unwrap().get_or_insert(code);
        self.end(end);
    }

    fn end(&self, end: SessionEnd) {
        self.0.ended.lock().unwrap().get_or_insert(end.clone());
        self.answer(|| Err(end.clone().into()));
    }

    fn ended(&self) -> Option<SessionEnd> {
        self.0.ended.lock().unwrap().clone()
    }

    fn stats(&self) -> SessionStats {
        SessionStats {
            streams: 2,
            sent_bytes: 10,
            received_bytes: if self.0.agent_spoke { 100 } else { 0 },
            ..SessionStats::default()
        }
    }
}

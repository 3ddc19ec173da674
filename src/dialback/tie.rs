//! What ties the streams of one agent to its tunnel: they are counted, and end when the tunnel is closed, whether or not
//! anybody polls them then.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{runtime::Handle, sync::Notify};

use crate::{error::ErrorKind, frame::CloseCode, link::ByteLink, metrics::Direction};

/// How long what was written before a stream was dropped may take to leave: what is buffered, 192 KiB at most, over the
/// slowest of ways.
const DELIVER: Duration = Duration::from_secs(30);

/// How long it may take to say that a stream was broken off.
const FAREWELL: Duration = Duration::from_secs(5);

/// All streams of a tunnel. They outlive the control link, whose loss is no loss of theirs.
#[derive(Debug, Default)]
pub(crate) struct Ties {
    sent: AtomicU64,
    received: AtomicU64,
    state: Mutex<State>,
    /// Told when the last stream has ended and left.
    idle: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Why all of them were ended.
    cut: Option<ErrorKind>,
    next: u64,
    streams: HashMap<u64, Arc<Mutex<Slot>>>,
    /// Connections whose streams have ended, and that are about to say so.
    leaving: usize,
}

/// What a task waits for that polls a stream. Of each kind there is one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// To read.
    Reader,
    /// To write, or for the end of what was written.
    Writer,
    /// For the peer to want no more.
    Stopped,
}

/// One stream's connection, while nobody polls it.
#[derive(Debug)]
struct Slot {
    link: Option<Box<ByteLink>>,
    /// The connection is not there yet, and may come.
    awaited: bool,
    cut: Option<ErrorKind>,
    /// By what they wait for.
    wakers: [Option<Waker>; 3],
    /// Where the end of the connection is waited for.
    runtime: Option<Handle>,
}

impl Ties {
    /// A new stream over `link`.
    pub(super) fn tie(self: &Arc<Self>, link: ByteLink) -> Tie {
        let (tie, arriving) = self.expect();
        arriving.arrive(link);
        tie
    }

    /// A new stream whose connection is about to come. It counts, and is ended, like any other.
    pub(super) fn expect(self: &Arc<Self>) -> (Tie, Arriving) {
        let mut state = lock(&self.state);
        let id = state.next;
        state.next = state.next.wrapping_add(1);
        let runtime = Handle::try_current().ok();
        let slot = Slot { link: None, awaited: true, cut: state.cut, wakers: Default::default(), runtime };
        let slot = Arc::new(Mutex::new(slot));
        if state.cut.is_none() {
            state.streams.insert(id, Arc::clone(&slot));
        }
        drop(state);
        (Tie { ties: Arc::clone(self), id, slot: Arc::clone(&slot) }, Arriving { ties: Arc::clone(self), slot })
    }

    /// Ends all streams, those to come included.
    pub(super) fn cut(self: &Arc<Self>, kind: ErrorKind) {
        let streams = {
            let mut state = lock(&self.state);
            state.cut.get_or_insert(kind);
            std::mem::take(&mut state.streams)
        };
        for slot in streams.into_values() {
            let (link, wakers, runtime) = {
                let mut slot = lock(&slot);
                slot.cut = Some(kind);
                (slot.link.take(), std::mem::take(&mut slot.wakers), slot.runtime.clone())
            };
            // One that is being polled is ended by who polls it.
            if let Some(link) = link {
                self.leave(link, Some(CloseCode::INTERNAL), runtime);
            }
            wakers.into_iter().flatten().for_each(Waker::wake);
        }
        self.idle.notify_waiters();
    }

    /// Lets a connection go: it delivers what was written and ends, or says by a code that this is no end. It counts
    /// until then: who waits for the last stream, to end the process say, waits for this.
    pub(super) fn leave(self: &Arc<Self>, link: Box<ByteLink>, code: Option<CloseCode>, runtime: Option<Handle>) {
        // Without a runtime nobody can wait for the peer, and the connection just ends.
        let Some(runtime) = runtime else { return };
        {
            let mut state = lock(&self.state);
            state.leaving = state.leaving.saturating_add(1);
        }
        let leaving = Leaving(Arc::clone(self));
        runtime.spawn(async move {
            match code {
                Some(code) => link.fail(code, FAREWELL).await,
                None => link.leave(DELIVER).await,
            }
            drop(leaving);
        });
    }

    /// How many streams there are.
    pub(super) fn len(&self) -> usize {
        lock(&self.state).streams.len()
    }

    /// Whether there is none, and the last one has left.
    pub(super) fn is_idle(&self) -> bool {
        lock(&self.state).is_idle()
    }

    /// How many bytes went this way.
    pub(super) fn bytes(&self, direction: Direction) -> u64 {
        self.counter(direction).load(Ordering::Relaxed)
    }

    fn counter(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::Sent => &self.sent,
            Direction::Received => &self.received,
        }
    }

    /// Resolves once there is no stream, and the last one has left.
    pub(super) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            let mut idle = std::pin::pin!(idle);
            // Before the look, so that no word is lost in between.
            idle.as_mut().enable();
            if self.is_idle() {
                return;
            }
            idle.await;
        }
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.streams.is_empty() && self.leaving == 0
    }
}

/// A connection that is about to leave.
struct Leaving(Arc<Ties>);

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.leaving = state.leaving.saturating_sub(1);
        let idle = state.is_idle();
        drop(state);
        if idle {
            self.0.idle.notify_waiters();
        }
    }
}

/// A connection that a stream waits for. Dropped without one, it has the stream wait in vain no longer.
#[derive(Debug)]
pub(super) struct Arriving {
    ties: Arc<Ties>,
    slot: Arc<Mutex<Slot>>,
}

/// Why the connection that a stream waited for does not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotArrived {
    /// The stream was ended before.
    Cut(ErrorKind),
    /// It broke off.
    BrokenOff,
}

impl Arriving {
    /// Here it is. If the stream was ended meanwhile, it is told so; if nobody wants the stream any more, it just ends.
    pub(super) fn arrive(self, link: ByteLink) {
        let mut slot = lock(&self.slot);
        if slot.cut.is_none() {
            slot.link = Some(Box::new(link));
            return;
        }
        let runtime = slot.runtime.clone();
        drop(slot);
        self.ties.leave(Box::new(link), Some(CloseCode::INTERNAL), runtime);
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let wakers = {
            let mut slot = lock(&self.slot);
            slot.awaited = false;
            std::mem::take(&mut slot.wakers)
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

/// One stream's tie, and its connection.
#[derive(Debug)]
pub(super) struct Tie {
    ties: Arc<Ties>,
    id: u64,
    slot: Arc<Mutex<Slot>>,
}

impl Tie {
    /// Its number among those of its tunnel.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Ready once the connection is there, or does not come.
    pub(super) fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<Result<(), NotArrived>> {
        let mut slot = lock(&self.slot);
        if let Some(kind) = slot.cut {
            return Poll::Ready(Err(NotArrived::Cut(kind)));
        }
        if slot.awaited {
            slot.register(Waits::Reader, cx.waker());
            return Poll::Pending;
        }
        Poll::Ready(if slot.link.is_some() { Ok(()) } else { Err(NotArrived::BrokenOff) })
    }

    /// Polls the connection, with no lock held. `Err`: the stream was ended.
    pub(super) fn poll<R>(
        &self,
        cx: &mut Context<'_>,
        waits: Waits,
        f: impl FnOnce(&mut ByteLink, &mut Context<'_>) -> R,
    ) -> Result<R, ErrorKind> {
        let mut link = {
            let mut slot = lock(&self.slot);
            if let Some(kind) = slot.cut {
                return Err(kind);
            }
            slot.register(waits, cx.waker());
            slot.link.take().ok_or(ErrorKind::Internal)?
        };
        let result = f(&mut link, cx);
        let mut slot = lock(&self.slot);
        let Some(kind) = slot.cut else {
            slot.link = Some(link);
            return Ok(result);
        };
        let runtime = slot.runtime.clone();
        drop(slot);
        self.ties.leave(link, Some(CloseCode::INTERNAL), runtime);
        Err(kind)
    }

    /// Why the stream was ended. `None`: it goes on, and this task is woken when it does not any more.
    pub(super) fn cut(&self, cx: &Context<'_>, waits: Waits) -> Option<ErrorKind> {
        let mut slot = lock(&self.slot);
        if slot.cut.is_none() {
            slot.register(waits, cx.waker());
        }
        slot.cut
    }

    /// Has the tasks of this stream look again.
    pub(super) fn wake(&self) {
        let wakers = std::mem::take(&mut lock(&self.slot).wakers);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Lets the connection go, if the stream was not ended before. `quietly`: there is nothing to say and nothing to
    /// wait for.
    pub(super) fn leave(&self, code: Option<CloseCode>, quietly: bool) {
        let (link, runtime) = {
            let mut slot = lock(&self.slot);
            (slot.link.take(), slot.runtime.clone())
        };
        if let Some(link) = link.filter(|_| !quietly) {
            self.ties.leave(link, code, runtime);
        }
    }

    pub(super) fn count(&self, direction: Direction, n: u64) {
        self.ties.counter(direction).fetch_add(n, Ordering::Relaxed);
    }
}

impl Drop for Tie {
    fn drop(&mut self) {
        let mut state = lock(&self.ties.state);
        let ended = state.streams.remove(&self.id);
        let last = ended.is_some() && state.is_idle();
        drop(state);
        drop(ended);
        if last {
            self.ties.idle.notify_waiters();
        }
    }
}

impl Slot {
    fn register(&mut self, waits: Waits, waker: &Waker) {
        let [reader, writer, stopped] = &mut self.wakers;
        let place = match waits {
            Waits::Reader => reader,
            Waits::Writer => writer,
            Waits::Stopped => stopped,
        };
        match place {
            Some(known) => known.clone_from(waker),
            None => *place = Some(waker.clone()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

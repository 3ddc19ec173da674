//! What ties the streams of one agent to its tunnel: they are counted, and end when the tunnel is closed, whether or not
//! anybody polls them then.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use tokio::{runtime::Handle, sync::Notify};

use crate::{error::ErrorKind, frame::CloseCode, link::ByteLink, metrics::Direction};

/// How long a stream that is left or ended may take to say so.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// How many tasks of one stream are woken: its reader and its writer.
const WAKERS: usize = 2;

/// All streams of a tunnel. They outlive the control link, whose loss is no loss of theirs.
#[derive(Debug, Default)]
pub(crate) struct Ties {
    sent: AtomicU64,
    received: AtomicU64,
    state: Mutex<State>,
    /// Told when the last stream has ended.
    idle: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Why all of them were ended.
    cut: Option<ErrorKind>,
    next: u64,
    streams: HashMap<u64, Arc<Mutex<Slot>>>,
}

/// One stream's connection, while nobody polls it.
#[derive(Debug)]
struct Slot {
    link: Option<Box<ByteLink>>,
    cut: Option<ErrorKind>,
    wakers: Vec<Waker>,
    /// Where the end of the connection is waited for.
    runtime: Option<Handle>,
}

impl Ties {
    /// A new stream over `link`.
    pub(super) fn tie(self: &Arc<Self>, link: ByteLink) -> Tie {
        let mut state = lock(&self.state);
        let id = state.next;
        state.next = state.next.wrapping_add(1);
        let runtime = Handle::try_current().ok();
        let slot = Slot { link: Some(Box::new(link)), cut: state.cut, wakers: Vec::new(), runtime };
        let slot = Arc::new(Mutex::new(slot));
        if state.cut.is_none() {
            state.streams.insert(id, Arc::clone(&slot));
        }
        drop(state);
        Tie { ties: Arc::clone(self), id, slot }
    }

    /// Ends all streams, those to come included.
    pub(super) fn cut(&self, kind: ErrorKind) {
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
                break_off(link, runtime);
            }
            wakers.into_iter().for_each(Waker::wake);
        }
        self.idle.notify_waiters();
    }

    /// How many streams there are.
    pub(super) fn len(&self) -> usize {
        lock(&self.state).streams.len()
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

    /// Resolves once there is no stream.
    pub(super) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            let mut idle = std::pin::pin!(idle);
            // Before the look, so that no word is lost in between.
            idle.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            idle.await;
        }
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
    /// Polls the connection, with no lock held. `Err`: the stream was ended.
    pub(super) fn poll<R>(
        &self,
        cx: &mut Context<'_>,
        f: impl FnOnce(&mut ByteLink, &mut Context<'_>) -> R,
    ) -> Result<R, ErrorKind> {
        let mut link = {
            let mut slot = lock(&self.slot);
            if let Some(kind) = slot.cut {
                return Err(kind);
            }
            register(&mut slot.wakers, cx.waker());
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
        break_off(link, runtime);
        Err(kind)
    }

    /// Why the stream was ended. `None`: it goes on, and this task is woken when it does not any more.
    pub(super) fn cut(&self, cx: &Context<'_>) -> Option<ErrorKind> {
        let mut slot = lock(&self.slot);
        if slot.cut.is_none() {
            register(&mut slot.wakers, cx.waker());
        }
        slot.cut
    }

    /// Has the tasks of this stream look again.
    pub(super) fn wake(&self) {
        let wakers = std::mem::take(&mut lock(&self.slot).wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Takes the connection out, for good.
    pub(super) fn take(&self) -> Option<Box<ByteLink>> {
        lock(&self.slot).link.take()
    }

    pub(super) fn count(&self, direction: Direction, n: u64) {
        self.ties.counter(direction).fetch_add(n, Ordering::Relaxed);
    }
}

impl Drop for Tie {
    fn drop(&mut self) {
        let mut state = lock(&self.ties.state);
        let ended = state.streams.remove(&self.id);
        let last = ended.is_some() && state.streams.is_empty();
        drop(state);
        drop(ended);
        if last {
            self.ties.idle.notify_waiters();
        }
    }
}

/// Ends a connection in a way that no peer takes for the end of its stream.
fn break_off(link: Box<ByteLink>, runtime: Option<Handle>) {
    // Without a runtime nobody can wait for the peer, and the connection just ends.
    if let Some(runtime) = runtime {
        runtime.spawn(link.fail(CloseCode::INTERNAL, LINGER));
    }
}

fn register(wakers: &mut Vec<Waker>, waker: &Waker) {
    if wakers.iter().any(|known| known.will_wake(waker)) {
        return;
    }
    if wakers.len() >= WAKERS {
        wakers.remove(0);
    }
    wakers.push(waker.clone());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

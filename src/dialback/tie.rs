//! What ties the streams of one agent to its tunnel: they are counted, and end when the tunnel is closed.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Waker},
};

use tokio::sync::Notify;

use crate::{error::ErrorKind, metrics::Direction};

/// All streams of a tunnel. They outlive the control link, whose loss is no loss of theirs.
#[derive(Debug, Default)]
pub(crate) struct Ties {
    bytes: [AtomicU64; 2],
    state: Mutex<State>,
    /// Told when the last stream has ended.
    idle: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Why all of them were ended.
    cut: Option<ErrorKind>,
    next: u64,
    /// The wakers of each: whoever polled it last, in whatever way, is polled again.
    streams: HashMap<u64, Vec<Waker>>,
}

/// How many tasks of one stream are woken: its reader and its writer.
const WAKERS: usize = 2;

impl Ties {
    /// A new stream.
    pub(super) fn tie(self: &Arc<Self>) -> Tie {
        let mut state = self.lock();
        let id = state.next;
        state.next = state.next.wrapping_add(1);
        state.streams.insert(id, Vec::new());
        drop(state);
        Tie { ties: Arc::clone(self), id }
    }

    /// Ends all streams, those to come included.
    pub(super) fn cut(&self, kind: ErrorKind) {
        let mut state = self.lock();
        state.cut.get_or_insert(kind);
        let wakers: Vec<Waker> = state.streams.values_mut().flat_map(std::mem::take).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How many streams there are.
    pub(super) fn len(&self) -> usize {
        self.lock().streams.len()
    }

    /// How many bytes went this way.
    pub(super) fn bytes(&self, direction: Direction) -> u64 {
        self.bytes[direction as usize].load(Ordering::Relaxed)
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream's tie.
#[derive(Debug)]
pub(super) struct Tie {
    ties: Arc<Ties>,
    id: u64,
}

impl Tie {
    /// Why the stream was ended. `None`: it goes on, and this task is woken when it does not any more.
    pub(super) fn cut(&self, cx: &Context<'_>) -> Option<ErrorKind> {
        let mut state = self.ties.lock();
        if state.cut.is_some() {
            return state.cut;
        }
        if let Some(wakers) = state.streams.get_mut(&self.id)
            && !wakers.iter().any(|waker| waker.will_wake(cx.waker()))
        {
            if wakers.len() >= WAKERS {
                wakers.remove(0);
            }
            wakers.push(cx.waker().clone());
        }
        None
    }

    /// Has the tasks of this stream look again.
    pub(super) fn wake(&self) {
        let wakers = self.ties.lock().streams.get_mut(&self.id).map(std::mem::take);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    pub(super) fn count(&self, direction: Direction, n: u64) {
        self.ties.bytes[direction as usize].fetch_add(n, Ordering::Relaxed);
    }
}

impl Drop for Tie {
    fn drop(&mut self) {
        let mut state = self.ties.lock();
        let wakers = state.streams.remove(&self.id);
        let last = state.streams.is_empty();
        drop(state);
        drop(wakers);
        if last {
            self.ties.idle.notify_waiters();
        }
    }
}

//! The control link at work: what the agent says, and what it is asked for.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::Shared;
use crate::{
    dialback::{
        control::Line,
        control_link::{ControlEnd, ControlLink, Received},
        path::{conn_path, request_of},
    },
    error::{Error, ErrorKind},
    link::LinkEnd,
    metrics,
};

/// How long after the last line a keep-alive leaves, as the deployed servers have it.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(18);

/// How many lines one poll takes.
const BATCH: usize = 32;

/// The control link at work: takes in lines, then gives out those that are due, in the order of the deployed servers.
pub(super) struct Driver<'a> {
    shared: &'a Arc<Shared>,
    link: &'a mut ControlLink,
    /// When the next keep-alive leaves.
    keep_alive: Instant,
    end: LinkEnd,
}

impl Drop for Driver<'_> {
    fn drop(&mut self) {
        self.shared.on_link_end(self.end);
    }
}

impl<'a> Driver<'a> {
    /// Has just begun.
    pub(super) fn new(shared: &'a Arc<Shared>, link: &'a mut ControlLink) -> Self {
        Self { shared, link, keep_alive: Instant::now(), end: LinkEnd::Aborted }
    }

    /// Ready with the end of the link.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ControlEnd> {
        match self.step(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => {
                self.end = end.end;
                Poll::Ready(end)
            }
        }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Result<(), ControlEnd> {
        self.take_in(cx)?;
        self.give_out(cx)
    }

    /// Takes the lines and pongs that have come, so many at a time.
    fn take_in(&mut self, cx: &mut Context<'_>) -> Result<(), ControlEnd> {
        let mut taken = 0;
        while let Poll::Ready(received) = self.link.poll_received(cx) {
            match received? {
                Received::Line(Line::PickupFailed { path, error }) => self.on_pickup_failed(&path, &error),
                // For later versions.
                Received::Line(Line::Unknown) => metrics::record_unknown_frames(1),
                // Servers are sent nothing else.
                Received::Line(_) => {}
                Received::Pong(rtt) => {
                    metrics::record_rtt(rtt);
                    self.shared.lock().rtt = Some(rtt);
                }
            }
            taken += 1;
            if taken == BATCH {
                cx.waker().wake_by_ref();
                break;
            }
        }
        Ok(())
    }

    /// Sends what is due, as far as there is room, and waits for more.
    fn give_out(&mut self, cx: &mut Context<'_>) -> Result<(), ControlEnd> {
        loop {
            let ready = self.link.poll_ready(cx)?.is_ready();
            let mut state = self.shared.lock();
            // Parked in the same critical section that finds nothing to do.
            state.driver = Some(cx.waker().clone());
            if let Some((code, _)) = state.closing {
                return Err(ControlEnd::local(code));
            }
            if !ready {
                drop(state);
                // What is due leaves when there is room, and there is nothing to wake up for before.
                return self.link.poll_idle(cx, None);
            }
            if Instant::now() >= self.keep_alive {
                drop(state);
                self.link.start_send(&Line::KeepAlive)?;
                self.keep_alive = Instant::now() + KEEP_ALIVE;
                continue;
            }
            let Some(request) = state.unasked.pop_front() else { break };
            drop(state);
            self.link.start_send(&Line::ConnReady { path: conn_path(self.shared.id, request) })?;
            self.keep_alive = Instant::now();
        }
        self.link.poll_idle(cx, Some(self.keep_alive))
    }

    fn on_pickup_failed(&self, path: &str, told: &str) {
        let Some(request) = request_of(path) else { return };
        let Some(sender) = self.shared.lock().pending.fail(&request) else { return };
        tracing::debug!(key = %self.shared.key, ?told, "the agent could not pick up a dial");
        let why = "revdial listener failed to pick up connection";
        let _ = sender.send(Err(Error::with_source(ErrorKind::TargetRefused, why)));
    }
}

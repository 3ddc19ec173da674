//! The future that owns one link: carries messages between it and the session, and ends when the link does.

use std::{
    future::{Future, poll_fn},
    mem,
    ops::{ControlFlow, Range},
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use bytes::Bytes;
use tokio::{
    task::unconstrained,
    time::{Instant as TokioInstant, Sleep},
};

use super::{
    bound::{Bound, now},
    closing::{self, Farewell, Outcome},
    shared::Superseded,
    state::{State, Verdict},
};
use crate::{
    frame::{CloseCode, MAX_MESSAGE, Message},
    link::{LinkEnd, LinkError, MessageLink},
    metrics::{self, StreamBytes},
    proto::SessionEnd,
};

/// How many messages one poll takes in: 1 MiB of full ones, before other tasks get a turn. While all that comes is for
/// one reader it gets a turn with each full one, which it then finds in the cache. (Measured on one core: one busy stream
/// is 7 % faster up, and none down; eight of them, each woken for less, would be a tenth slower.)
const RECEIVE_BATCH: usize = 16;

/// How many bytes of messages are handled under one lock: small ones share it, a full one has it for itself.
const LOCKED_BYTES: usize = MAX_MESSAGE;

/// How many batches are taken in once nothing can be written any more, 16 MiB where each is one full message; what a
/// peer sent before it went away is less.
const LAST_BATCHES: usize = 256;

/// How many turns those get whom messages woke, before anything is given out: the second and later ones only while
/// streams of the peer's begin, each of which goes through some hands before it has something to say. (Measured: a dial
/// takes two writes less.)
const TURNS: u8 = 4;

/// How many messages one poll gives out. What the link buffers is what lies below the scheduler, not this.
const TRANSMIT_BATCH: usize = 16;

/// Bytes given out that are about one full message: its writer, if it was woken for more, has a turn before they leave,
/// and the next message leaves right behind. (Measured on one stream: down a link of 60 ms whose ends are busy a tenth
/// faster, on loopback 1 %.) Without replay both buffers would be freed at once, and so large a piece given back to the
/// system and faulted in anew (measured: a quarter slower).
const GATHERED: Range<usize> = MAX_MESSAGE / 2..MAX_MESSAGE * 3 / 2;

/// The future that owns one link and ends with it.
///
/// Each poll does a bounded amount of work, in this order: is the link still the bound one? → take in up to 16
/// messages → deadlines → let those run whom these woke, a few times → give out up to 16 messages → wake whom each step
/// concerns, after its lock → let a writer in bulk run once more → flush, once → park, or wake itself again if a bound
/// was reached. The lock of the session is never held over a call to the link.
///
/// The loss of a link does not end the session; that is for whoever awaits the [`LinkEnd`] to decide.
///
/// # Cancel safety
/// Dropping it drops the link without a word and tells the session that the link is down.
#[derive(Debug)]
#[must_use = "a link makes no progress unless its driver is polled"]
pub(crate) struct Driver {
    driving: Option<Driving>,
    farewell: Option<Farewell>,
    end: LinkEnd,
}

#[derive(Debug)]
struct Driving {
    link: MessageLink,
    bound: Bound,
    sleep: Pin<Box<Sleep>>,
    /// For when `sleep` is set, if it is; never later than what the session waits for. And the waker that it has.
    armed: Option<(Instant, Waker)>,
    /// When this poll began: one reading of the clock for all of it.
    now: Instant,
    /// Messages on their way from the link to the session.
    received: Vec<Bytes>,
    /// How many turns those had whom the last messages woke.
    turns: u8,
    /// Writers have their turn now, before what was given out leaves.
    gathering: bool,
    bytes: StreamBytes,
}

/// What one poll gave out.
#[derive(Debug, Default)]
struct Given {
    /// It was all for now.
    all: bool,
    /// It woke somebody: those who wrote it, as a rule, who are about to add as much.
    refills: bool,
}

impl Driver {
    /// Drives `link`, which is the bound one.
    pub(crate) fn new(link: MessageLink, bound: Bound) -> Self {
        bound.begin_span();
        let driving = Driving {
            link,
            bound,
            sleep: Box::pin(tokio::time::sleep_until(TokioInstant::now())),
            armed: None,
            now: now(),
            received: Vec::new(),
            turns: 0,
            gathering: false,
            bytes: StreamBytes::default(),
        };
        Self { driving: Some(driving), farewell: None, end: LinkEnd::Aborted }
    }

    /// Ready with the link's end as soon as the session is free for another one. The link's farewell is left, for which
    /// the driver is to be awaited; dropped, it says no more.
    pub(crate) fn poll_unbound(&mut self, cx: &mut Context<'_>) -> Poll<LinkEnd> {
        if let Some(driving) = &mut self.driving {
            let ControlFlow::Break(outcome) = driving.poll(cx) else { return Poll::Pending };
            self.end = outcome.end;
            metrics::record_close(outcome.end.as_str());
            let link = self.driving.take().map(|driving| driving.link);
            self.farewell = link.zip(outcome.close).map(|(link, words)| Farewell::new(link, *words));
        }
        Poll::Ready(self.end)
    }
}

impl Future for Driver {
    type Output = LinkEnd;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LinkEnd> {
        let this = self.get_mut();
        ready!(this.poll_unbound(cx));
        if let Some(farewell) = &mut this.farewell {
            ready!(farewell.poll(cx));
            this.farewell = None;
        }
        Poll::Ready(this.end)
    }
}

impl Driving {
    fn poll(&mut self, cx: &mut Context<'_>) -> ControlFlow<Outcome> {
        self.now = now();
        let (all_received, any) = self.receive(cx, self.turns == 0)?;
        self.expire(cx)?;
        let waits = if self.turns == 0 { any } else { self.turns < TURNS && self.bound.take_begun() };
        if waits {
            // What they have to say then leaves in one write with what is due anyway.
            self.turns += 1;
            cx.waker().wake_by_ref();
            return ControlFlow::Continue(());
        }
        self.turns = 0;
        let given = self.transmit(cx)?;
        self.gathering = given.refills && !self.gathering;
        if self.gathering {
            cx.waker().wake_by_ref();
            return ControlFlow::Continue(());
        }
        if let Poll::Ready(Err(error)) = self.link.poll_flush(cx) {
            return self.write_failed(cx, error);
        }
        if !(all_received && given.all) {
            cx.waker().wake_by_ref();
        }
        ControlFlow::Continue(())
    }

    /// Whether that was all, and whether there was any. `again`: if there is any, this is polled again in any case, and
    /// may leave it to that to find that there is no more.
    fn receive(&mut self, cx: &mut Context<'_>, again: bool) -> ControlFlow<Outcome, (bool, bool)> {
        let (mut bytes, mut any, mut end) = (0, false, None);
        let woken = self.bound.readers_woken();
        for _ in 0..RECEIVE_BATCH {
            match self.link.poll_recv(cx) {
                Poll::Ready(Ok(message)) => {
                    any = true;
                    bytes += message.len();
                    self.received.push(message);
                    if bytes >= LOCKED_BYTES {
                        bytes = 0;
                        self.handle_received()?;
                        if self.bound.readers_woken().wrapping_sub(woken) == 1 {
                            break;
                        }
                    }
                    if again && self.link.is_drained() {
                        break;
                    }
                }
                Poll::Ready(Err(error)) => {
                    end = Some(Err(error));
                    break;
                }
                Poll::Pending => {
                    end = Some(Ok(()));
                    break;
                }
            }
        }
        if self.link.take_activity() || !self.received.is_empty() {
            self.handle_received()?;
        }
        match end {
            Some(Err(error)) => self.read_failed(error).map_continue(|()| (true, any)),
            end => ControlFlow::Continue((end.is_some(), any)),
        }
    }

    /// Gives the session what came in; bytes did, if perhaps no whole message.
    fn handle_received(&mut self) -> ControlFlow<Outcome> {
        let mut received = mem::take(&mut self.received);
        let handled = self.session(|state, now| {
            state.session.handle_activity(now);
            // A violation ends the session, which the next look at it finds; it takes no message after that.
            for message in received.drain(..) {
                let _ = state.session.handle_message(now, message);
            }
        });
        self.received = received;
        handled
    }

    fn expire(&mut self, cx: &mut Context<'_>) -> ControlFlow<Outcome> {
        let Some((armed, waker)) = &mut self.armed else { return ControlFlow::Continue(()) };
        if self.now < *armed && waker.will_wake(cx.waker()) {
            return ControlFlow::Continue(());
        }
        waker.clone_from(cx.waker());
        if self.sleep.as_mut().poll(cx).is_ready() {
            self.armed = None;
            self.session(|state, now| state.session.handle_timeout(now))?;
        }
        ControlFlow::Continue(())
    }

    /// A message is made only once the link has room for it, so that none waits between the two while others would be
    /// due before it.
    fn transmit(&mut self, cx: &mut Context<'_>) -> ControlFlow<Outcome, Given> {
        let (mut bytes, mut refills) = (0, false);
        for _ in 0..TRANSMIT_BATCH {
            let room = match self.link.poll_ready(cx) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(error)) => return self.write_failed(cx, error).map_continue(|()| Given::default()),
                Poll::Pending => false,
            };
            let (message, parked, wakes) = self.session(|state, now| {
                let wanted = room && state.session.wants_transmit();
                let message = if wanted { state.session.poll_transmit(now) } else { None };
                // What became possible by this message may be something to send.
                state.settle();
                let wakes = state.session.keeps() && state.wakes();
                let last = message.is_none() || !state.session.wants_transmit();
                // Parked in the same critical section that found nothing to send. What was counted is told beside what
                // is sent, which is soon where something comes: it is acked.
                let parked = last.then(|| {
                    let news = (message.is_some() || !room).then(|| state.unreported());
                    (state.park(cx.waker(), room), news)
                });
                (message, parked, wakes)
            })?;
            refills |= wakes;
            bytes += message.as_ref().map_or(0, Message::len);
            if let Some(message) = message
                && let Err(error) = self.link.start_send(message)
            {
                return self.write_failed(cx, error).map_continue(|()| Given::default());
            }
            if let Some((timeout, news)) = parked {
                if let Some(news) = news {
                    news.record(self.now, &mut self.bytes);
                }
                self.arm(cx, timeout);
                return ControlFlow::Continue(Given { all: true, refills: refills && GATHERED.contains(&bytes) });
            }
        }
        ControlFlow::Continue(Given::default())
    }

    /// Has this task woken at the timeout, or before: to move the timer for each message costs more than to find now
    /// and then that nothing is due.
    fn arm(&mut self, cx: &mut Context<'_>, timeout: Option<Instant>) {
        if let Some(timeout) = timeout
            && self.armed.as_ref().is_none_or(|(armed, _)| timeout < *armed)
        {
            self.armed = Some((timeout, cx.waker().clone()));
            self.sleep.as_mut().reset(timeout.into());
            if self.sleep.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
    }

    /// Runs `f` under the lock if the link is bound and goes on.
    fn session<R>(&mut self, f: impl FnOnce(&mut State, Instant) -> R) -> ControlFlow<Outcome, R> {
        let now = self.now;
        let result = self.bound.with(|state| match state.verdict() {
            Verdict::Live => Ok(f(state, now)),
            Verdict::Dead => Err(None),
            // Boxed, as room for it would be moved about at each turn of the lock.
            Verdict::Ended(end) => Err(Some(Box::new((end, state.closing.clone(), state.session.poll_transmit(now))))),
        });
        // Made after the lock: it logs and counts, which runs code of others.
        match result {
            Ok(Ok(value)) => ControlFlow::Continue(value),
            Ok(Err(Some(ended))) => {
                let (end, local, last) = *ended;
                ControlFlow::Break(Outcome::ended(&end, local, last))
            }
            Ok(Err(None)) => ControlFlow::Break(Outcome::dead()),
            Err(Superseded) => ControlFlow::Break(Outcome::superseded()),
        }
    }

    /// What could not be written is lost with the link; but what the peer said before may tell why.
    fn write_failed(&mut self, cx: &mut Context<'_>, error: LinkError) -> ControlFlow<Outcome> {
        // Without tokio's budget, at whose end a socket says that there is no more although there is. Ends by the
        // read's own error, as a rule.
        let read = poll_fn(|cx| {
            for _ in 0..LAST_BATCHES {
                match self.receive(cx, false) {
                    ControlFlow::Continue((false, _)) => {}
                    received => return Poll::Ready(received.map_continue(drop)),
                }
            }
            Poll::Ready(ControlFlow::Continue(()))
        });
        if let Poll::Ready(read) = pin!(unconstrained(read)).poll(cx) {
            read?;
        }
        self.read_failed(error)
    }

    fn read_failed(&mut self, error: LinkError) -> ControlFlow<Outcome> {
        if let Some(violation) = closing::violation(&error) {
            let end = SessionEnd::Violation(violation);
            self.session(|state, _| state.session.close(violation.code(), violation.rule(), end))?;
            // Finds the end, and CLOSE as what is to be sent last.
            return self.session(|_, _| ());
        }
        let LinkError::Closed { code, reason } = error else {
            // The last message may have been CLOSE, which tells more.
            self.session(|_, _| ())?;
            return ControlFlow::Break(Outcome::lost());
        };
        if let Some(code) = code.filter(|code| closing::ends_session(*code)) {
            let end = match code {
                CloseCode::REPLACED => SessionEnd::Replaced,
                code => SessionEnd::ClosedByPeer { code, reason: reason.into() },
            };
            self.session(|state, _| state.session.end(end))?;
        }
        ControlFlow::Break(Outcome::closed(code))
    }
}

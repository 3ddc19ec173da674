//! The server's side: dials ask the agent for connections, and pick-ups are matched to the one dial that asked.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::{
    control::Line,
    control_link::{ControlEnd, ControlLink, Received},
    path::{conn_path, request_of},
    pending::{Gone, Id, Pending},
    stream::{DialbackStream, Half},
    tie::{Arriving, NotArrived, Tie, Ties},
};
use crate::{
    error::{Error, ErrorKind},
    frame::CloseCode,
    key::{AgentKey, Epoch, TargetName},
    link::{ByteLink, LinkEnd},
    metrics::{self, Direction},
    proto::{SessionEnd, SessionStats},
    spans::SessionSpan,
};

/// Dials of one agent that may wait for their pick-ups: as many as opens of the native protocol.
const MAX_PENDING: usize = 256;

/// How long after the last line a keep-alive leaves, as the deployed servers have it.
const KEEP_ALIVE: Duration = Duration::from_secs(18);

/// So many owners of streams that outlived their tunnels are not worth a look at them.
const MIN_SWEEP: usize = 64;

/// How many lines one poll takes.
const BATCH: usize = 32;

/// The tunnels of all agents.
#[derive(Debug, Default)]
pub(crate) struct Dialers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By what names them in pick-ups.
    tunnels: HashMap<Id, Weak<Shared>>,
    /// Streams of tunnels that have ended without them, by the key and the principal that they were opened under.
    orphans: HashMap<(AgentKey, String), Vec<Weak<Ties>>>,
    /// How many owners of such streams there may be before those are looked for whose streams have ended.
    sweep_at: usize,
}

impl Known {
    /// Remembers the streams of a tunnel that is about to end, or has.
    fn adopt(&mut self, tunnel: &Shared) {
        let owner = tunnel.owner();
        let orphans = self.orphans.entry(owner.clone()).or_default();
        orphans.retain(|ties| ties.upgrade().is_some_and(|ties| ties.len() > 0 && !Arc::ptr_eq(&ties, &tunnel.ties)));
        if tunnel.ties.len() > 0 {
            orphans.push(Arc::downgrade(&tunnel.ties));
        } else if orphans.is_empty() {
            self.orphans.remove(&owner);
        }
    }

    /// Forgets streams that have ended, each time that there are twice as many owners as the last time.
    fn sweep(&mut self) {
        if self.orphans.len() < self.sweep_at {
            return;
        }
        self.orphans.retain(|_, orphans| {
            orphans.retain(|ties| ties.upgrade().is_some_and(|ties| ties.len() > 0));
            !orphans.is_empty()
        });
        self.sweep_at = (self.orphans.len() * 2).max(MIN_SWEEP);
    }
}

/// Streams that have outlived their tunnels.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Orphans<'a> {
    All,
    /// Of one key.
    Under(&'a AgentKey),
    /// Of one key and principal.
    Of(&'a (AgentKey, String)),
}

impl Orphans<'_> {
    fn are_of(self, owner: &(AgentKey, String)) -> bool {
        match self {
            Self::All => true,
            Self::Under(key) => owner.0 == *key,
            Self::Of(this) => owner == this,
        }
    }
}

/// The handle by which streams are asked of an agent. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct DialbackTunnel(Arc<Shared>);

/// What all handles of a tunnel share.
struct Shared {
    dialers: Arc<Dialers>,
    id: Id,
    key: AgentKey,
    principal: String,
    ties: Arc<Ties>,
    span: SessionSpan,
    state: Mutex<State>,
}

/// What a dial is told: its connection is about to come, or does not.
type Answer = Result<Tie, Error>;

struct State {
    pending: Pending<oneshot::Sender<Answer>>,
    /// Dials that the agent is not asked for yet.
    unasked: VecDeque<Id>,
    up_since: Option<Instant>,
    rtt: Option<Duration>,
    /// Nothing new is opened.
    draining: bool,
    ended: Option<SessionEnd>,
    /// The control link is to be closed so.
    closing: Option<(CloseCode, String)>,
    /// The control link's task.
    driver: Option<Waker>,
}

impl Dialers {
    /// The tunnel of this id.
    pub(crate) fn get(&self, id: Id) -> Option<DialbackTunnel> {
        self.lock().tunnels.get(&id).and_then(Weak::upgrade).map(DialbackTunnel)
    }

    /// Ends streams that have outlived their tunnels. False: there were none.
    pub(crate) fn end_orphans(&self, which: Orphans<'_>, kind: ErrorKind) -> bool {
        let ended: Vec<_> = {
            let mut known = self.lock();
            let orphans = known.orphans.extract_if(|owner, _| which.are_of(owner)).flat_map(|(_, orphans)| orphans);
            orphans.filter_map(|ties| ties.upgrade()).filter(|ties| ties.len() > 0).collect()
        };
        ended.iter().for_each(|ties| ties.cut(kind));
        !ended.is_empty()
    }

    /// Resolves when no stream is left that has outlived its tunnel.
    pub(crate) async fn orphans_left(&self) {
        loop {
            let orphans: Vec<_> = self.lock().orphans.values().flatten().filter_map(Weak::upgrade).collect();
            let Some(ties) = orphans.into_iter().find(|ties| !ties.is_idle()) else { return };
            ties.idle().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DialbackTunnel {
    /// The tunnel of an agent whose control link is about to be driven.
    pub(crate) fn new(dialers: &Arc<Dialers>, key: AgentKey, principal: String, epoch: Epoch) -> Self {
        let id = Id::new(rand::random());
        let state = State {
            pending: Pending::new(MAX_PENDING),
            unasked: VecDeque::new(),
            up_since: Some(Instant::now()),
            rtt: None,
            draining: false,
            ended: None,
            closing: None,
            driver: None,
        };
        let span = SessionSpan::new(key.clone(), epoch.number());
        let (dialers, ties, state) = (Arc::clone(dialers), Arc::default(), Mutex::new(state));
        let shared = Arc::new(Shared { dialers, id, key, principal, ties, span, state });
        shared.dialers.lock().tunnels.insert(id, Arc::downgrade(&shared));
        Self(shared)
    }

    /// Whose agent it is.
    pub(crate) fn key(&self) -> &AgentKey {
        &self.0.key
    }

    /// On whose behalf it came.
    pub(crate) fn principal(&self) -> &str {
        &self.0.principal
    }

    /// Asks for a stream. Only the default target can be named in this protocol, which is: not at all.
    pub(crate) fn open(&self, target: &TargetName) -> Opening {
        let opening = |request, answer| Opening { shared: Arc::clone(&self.0), request, answer, tie: None };
        if !target.is_default() {
            return opening(None, Err(Some(Error::new(ErrorKind::TargetUnknown))));
        }
        let (sender, receiver) = oneshot::channel();
        let request = Id::new(rand::random());
        let asked = self.0.with(|state| {
            if let Some(end) = &state.ended {
                return Err(Error::from(end.clone()));
            }
            if state.draining {
                return Err(Error::new(ErrorKind::Shutdown));
            }
            if state.pending.insert(request, sender).is_err() {
                return Err(Error::new(ErrorKind::Overloaded));
            }
            state.unasked.push_back(request);
            Ok(())
        });
        match asked {
            Ok(()) => opening(Some(request), Ok(receiver)),
            Err(error) => opening(None, Err(Some(error.unsent()))),
        }
    }

    /// Takes the dial that asked for this pick-up, before the connection is there. It is a stream from here on: whatever
    /// ends those of the tunnel ends it, too, and whoever waits for the last one waits for it.
    pub(crate) fn claim(&self, request: Id) -> Result<Claim, Gone> {
        let (sender, tie, arriving) = {
            let mut state = self.0.lock();
            let sender = state.pending.claim(&request)?;
            // Under the lock, so that the end of the control link finds it either waiting or among the streams.
            let (tie, arriving) = self.0.ties.expect();
            (sender, tie, arriving)
        };
        // Comes back when the dial was given up just now; the connection then ends when it is there.
        let _ = sender.send(Ok(tie));
        Ok(Claim(arriving))
    }

    /// Since when there is a control link.
    pub(crate) fn up_since(&self) -> Option<std::time::Instant> {
        self.0.lock().up_since.map(Instant::into_std)
    }

    /// Whether nothing new is opened here any more.
    pub(crate) fn is_draining(&self) -> bool {
        let state = self.0.lock();
        state.draining || state.ended.is_some()
    }

    /// Opens nothing new and closes the control link; what runs goes on.
    pub(crate) fn drain(&self, code: CloseCode, reason: &str) {
        self.0.stop(|state| {
            state.draining = true;
            state.closing.get_or_insert_with(|| (code, reason.to_owned()));
        });
    }

    /// Ends it, streams included; and if the agent's leave is over, those of its earlier tunnels, too.
    pub(crate) fn close(&self, code: CloseCode, reason: &str, end: SessionEnd) {
        let kind = Error::from(end.clone()).kind();
        if end == SessionEnd::Revoked {
            self.0.dialers.end_orphans(Orphans::Of(&self.0.owner()), kind);
        }
        // Whoever was replaced and left its streams alone, leaves them alone.
        let spares_streams = end == SessionEnd::Replaced && self.ended() == Some(SessionEnd::Replaced);
        self.0.stop(|state| {
            state.ended.get_or_insert(end);
            state.closing.get_or_insert_with(|| (code, reason.to_owned()));
        });
        if !spares_streams {
            self.0.ties.cut(kind);
        }
    }

    /// Ends it, and closes the control link; streams have connections of their own, and go on.
    pub(crate) fn end(&self, end: SessionEnd) {
        let code = if end == SessionEnd::Replaced { CloseCode::REPLACED } else { CloseCode::DRAINED };
        self.0.stop(|state| {
            state.ended.get_or_insert(end);
            state.closing.get_or_insert_with(|| (code, String::new()));
        });
        // Now, and not when its link has ended: nobody else knows of its streams from here on.
        self.0.dialers.lock().adopt(&self.0);
    }

    /// Why it ended, if it did.
    pub(crate) fn ended(&self) -> Option<SessionEnd> {
        self.0.lock().ended.clone()
    }

    /// Resolves when no stream is left.
    pub(crate) async fn idle(&self) {
        self.0.ties.idle().await;
    }

    /// Its counts.
    pub(crate) fn stats(&self) -> SessionStats {
        let (rtt, waiting) = {
            let state = self.0.lock();
            (state.rtt, state.pending.len())
        };
        SessionStats {
            streams: self.0.ties.len().saturating_add(waiting),
            sent_bytes: self.0.ties.bytes(Direction::Sent),
            received_bytes: self.0.ties.bytes(Direction::Received),
            rtt,
            ..SessionStats::default()
        }
    }

    /// Drives the control link until its end; dials that wait for a pick-up then fail as those of a lost session do.
    ///
    /// # Cancel safety
    /// Dropping it is the loss of the control link.
    pub(crate) async fn drive(&self, link: &mut ControlLink) -> ControlEnd {
        self.0.span.get();
        let mut driver = Driver { shared: &self.0, link, keep_alive: Instant::now(), end: LinkEnd::Aborted };
        poll_fn(|cx| driver.poll(cx)).await
    }

    /// What the control link is closed with, in words.
    pub(crate) fn closing_reason(&self) -> String {
        self.0.lock().closing.as_ref().map_or_else(String::new, |(_, reason)| reason.clone())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f` under the lock, then wakes the control link's task.
    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = f(&mut state);
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    /// Runs `f`, which stops the tunnel, under the lock; then dials that wait fail, in their order.
    fn stop(&self, f: impl FnOnce(&mut State)) {
        let (waiting, error) = self.with(|state| {
            f(state);
            state.unasked.clear();
            (state.pending.take_all(), state.ended.clone().unwrap_or(SessionEnd::Shutdown))
        });
        for sender in waiting {
            let _ = sender.send(Err(Error::from(error.clone()).unsent()));
        }
    }

    /// The control link has ended.
    fn on_link_end(&self, end: LinkEnd) {
        metrics::record_close(end.as_str());
        self.stop(|state| {
            state.up_since = None;
            if !state.draining {
                state.ended.get_or_insert(match end {
                    LinkEnd::Local(_) => SessionEnd::Shutdown,
                    _ => SessionEnd::Lost,
                });
            }
        });
        self.dialers.lock().adopt(self);
    }

    fn owner(&self) -> (AgentKey, String) {
        (self.key.clone(), self.principal.clone())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut known = self.dialers.lock();
        known.tunnels.remove(&self.id);
        known.adopt(self);
        known.sweep();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialbackTunnel").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The control link at work: takes in lines, then gives out those that are due, in the order of the deployed servers.
struct Driver<'a> {
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

impl Driver<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ControlEnd> {
        match self.step(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => {
                self.end = end.end;
                Poll::Ready(end)
            }
        }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Result<(), ControlEnd> {
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

/// A dial that waits for its pick-up.
///
/// # Cancel safety
/// Dropping it gives the dial up: a pick-up that comes for it is refused, a connection that is about to come ends.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Opening {
    shared: Arc<Shared>,
    request: Option<Id>,
    /// `Err`: failed at once, and told when polled.
    answer: Result<oneshot::Receiver<Answer>, Option<Error>>,
    /// The stream, once its connection is on the way.
    tie: Option<Tie>,
}

impl Future for Opening {
    type Output = Result<DialbackStream, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let tie = match self.tie.take() {
            Some(tie) => tie,
            None => ready!(self.poll_answer(cx))?,
        };
        match tie.poll_arrived(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(DialbackStream::new(tie, Half::Deferred, self.shared.span.get()))),
            Poll::Ready(Err(NotArrived::Cut(kind))) => Poll::Ready(Err(Error::new(kind).unsent())),
            Poll::Ready(Err(NotArrived::BrokenOff)) => Poll::Ready(Err(broken_off())),
            Poll::Pending => {
                self.tie = Some(tie);
                Poll::Pending
            }
        }
    }
}

impl Opening {
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        let answer = match &mut self.answer {
            Ok(answer) => ready!(Pin::new(answer).poll(cx)),
            Err(error) => return Poll::Ready(Err(error.take().unwrap_or_else(|| ErrorKind::InvalidInput.into()))),
        };
        self.request = None;
        Poll::Ready(answer.unwrap_or_else(|_| Err(broken_off())))
    }
}

fn broken_off() -> Error {
    Error::with_source(ErrorKind::TargetRefused, "the agent's connection broke off before it was there")
}

impl Drop for Opening {
    fn drop(&mut self) {
        let Some(request) = self.request else { return };
        self.shared.with(|state| {
            state.pending.give_up(&request);
            state.unasked.retain(|unasked| *unasked != request);
        });
    }
}

/// A dial whose pick-up is about to arrive. Dropping it fails the dial.
#[derive(Debug)]
pub(crate) struct Claim(Arriving);

impl Claim {
    /// Gives the dial its connection, unless it was given up or ended meanwhile.
    pub(crate) fn deliver(self, link: ByteLink) {
        self.0.arrive(link);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::{
        io::{DuplexStream, duplex},
        task::{JoinHandle, yield_now},
        time::{advance, timeout},
    };

    use super::*;
    use crate::link::{MessageLink, Side};

    fn tunnel(dialers: &Arc<Dialers>, key: &str) -> DialbackTunnel {
        DialbackTunnel::new(dialers, key.parse().unwrap(), "somebody".to_owned(), Epoch::new(1))
    }

    /// A tunnel at work whose agent does not read, what counts the polls of its link's task, and that task.
    async fn unread() -> (DialbackTunnel, DuplexStream, Arc<AtomicUsize>, JoinHandle<ControlEnd>) {
        let (near, far) = duplex(64);
        let tunnel = tunnel(&Arc::default(), "a");
        let mut link = ControlLink::new(MessageLink::new(near, Side::Server, 4096).await);
        let polls = Arc::new(AtomicUsize::new(0));
        let (counted, driven) = (Arc::clone(&polls), tunnel.clone());
        let task = tokio::spawn(async move {
            let mut drive = std::pin::pin!(driven.drive(&mut link));
            poll_fn(|cx| {
                counted.fetch_add(1, Ordering::Relaxed);
                drive.as_mut().poll(cx)
            })
            .await
        });
        // Far more than the write buffer takes.
        for _ in 0..8 {
            let opens: Vec<_> = (0..MAX_PENDING).map(|_| tunnel.open(&TargetName::default())).collect();
            yield_now().await;
            drop(opens);
            yield_now().await;
        }
        (tunnel, far, polls, task)
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_is_closed_though_its_agent_reads_nothing() {
        let (tunnel, _far, _, task) = unread().await;
        tunnel.close(CloseCode::RESTART, "", SessionEnd::Shutdown);
        let end = timeout(Duration::from_secs(1), task).await.expect("the link goes on").unwrap();
        assert_eq!(end, ControlEnd::local(CloseCode::RESTART));
    }

    #[tokio::test(start_paused = true)]
    async fn a_keep_alive_that_cannot_leave_does_not_spin() {
        let (_tunnel, _far, polls, task) = unread().await;
        advance(KEEP_ALIVE).await;
        let before = polls.load(Ordering::Relaxed);
        for _ in 0..100 {
            yield_now().await;
        }
        assert!(polls.load(Ordering::Relaxed) - before < 10, "{polls:?}");
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn streams_that_outlived_their_tunnels_are_forgotten_when_they_end() {
        let dialers = Arc::default();
        for n in 0..1000 {
            let tunnel = tunnel(&dialers, &format!("k{n}"));
            let link = MessageLink::new(duplex(64).0, Side::Server, 64).await;
            let tie = tunnel.0.ties.tie(ByteLink::new(link));
            drop(tunnel);
            drop(tie);
        }
        let known = dialers.lock();
        assert!(known.tunnels.is_empty());
        assert!(known.orphans.len() < 100, "{}", known.orphans.len());
    }
}

//! Leases, dials and the expiry task over tunnels that are doubles, on a paused clock.

use std::{
    pin::Pin,
    sync::{
        Mutex, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio::{
    sync::oneshot,
    time::{Instant, advance, timeout},
};

use super::*;
use crate::{
    connman::{
        dial::Dialing,
        event::TunnelEvent,
        policy::{Absent, Displace, FixedGrace, Grace, GracePolicy, LinkLoss, NoGrace},
        registry::{Absence, Ask, DialStep},
    },
    error::{Error, ErrorKind},
    frame::{InstanceId, Metadata},
    link::Protocol,
    mux::{BindError, Deferred},
    proto::{SessionEnd, SessionStats, Violation},
};

const MS: Duration = Duration::from_millis(1);
const GRACE: Duration = Duration::from_secs(30);

/// A tunnel that opens "streams" at once, or when told to.
#[derive(Debug, Clone)]
struct Fake(Arc<FakeState>);

#[derive(Debug)]
struct FakeState {
    name: u32,
    answers_opens: bool,
    agent_spoke: bool,
    ended: Mutex<Option<SessionEnd>>,
    closed_with: Mutex<Option<CloseCode>>,
    unanswered: Mutex<Vec<oneshot::Sender<Result<u32, Error>>>>,
    deadline_ms: Mutex<Option<u32>>,
    given_up: AtomicUsize,
    links: Mutex<Vec<Epoch>>,
    impossible: Mutex<Option<Violation>>,
    up_since: Mutex<Option<std::time::Instant>>,
    drained_with: Mutex<Option<(CloseCode, Duration)>>,
}

impl Fake {
    fn new(name: u32) -> Self {
        Self::with(name, true, true)
    }

    fn silent(name: u32) -> Self {
        Self::with(name, false, true)
    }

    /// One whose agent says nothing after WELCOME.
    fn mute(name: u32) -> Self {
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
            links: Mutex::default(),
            impossible: Mutex::default(),
            up_since: Mutex::new(Some(Instant::now().into_std())),
            drained_with: Mutex::default(),
        }))
    }

    fn answer(&self, answer: impl Fn() -> Result<u32, Error>) {
        for open in self.0.unanswered.lock().unwrap().drain(..) {
            let _ = open.send(answer());
        }
    }

    fn closed_with(&self) -> Option<CloseCode> {
        *self.0.closed_with.lock().unwrap()
    }
}

struct FakeOpening {
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

    fn bind(&self, epoch: Epoch, _: u64) -> Deferred<Result<(), BindError>> {
        let bound = match (self.ended(), *self.0.impossible.lock().unwrap()) {
            (Some(_), _) => Err(BindError::Ended),
            (None, Some(violation)) => Err(BindError::Violation(violation)),
            (None, None) => Ok(()),
        };
        self.0.links.lock().unwrap().push(epoch);
        Deferred::ready(bound)
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

type Seen = Arc<Mutex<Vec<TunnelEvent>>>;

/// A manager over doubles, and what its observer saw.
fn manager(configure: impl FnOnce(ConnectionManagerBuilder) -> ConnectionManagerBuilder) -> (Arc<Inner<Fake>>, Seen) {
    let seen = Seen::default();
    let events = Arc::clone(&seen);
    let observer = move |event: &TunnelEvent| events.lock().unwrap().push(event.clone());
    (
        Arc::new(Inner::new(
            configure(ConnectionManager::builder().replace_drain(Duration::ZERO).observer(observer)).settings(),
        )),
        seen,
    )
}

fn default_manager() -> (Arc<Inner<Fake>>, Seen) {
    manager(|builder| builder)
}

fn key() -> AgentKey {
    "desk".parse().unwrap()
}

fn registration(inner: &Arc<Inner<Fake>>, instance: u8) -> Registration {
    Registration::new(key(), "helix".into(), inner.next_epoch(), InstanceId::new([instance; 16]))
}

/// An agent connects with this tunnel and a session of its own.
fn register(
    inner: &Arc<Inner<Fake>>,
    registration: Registration,
    tunnel: Fake,
) -> Result<Lease<Fake>, RegisterRefusal> {
    let (key, epoch) = (registration.key.clone(), registration.epoch);
    let offer = Offer { session: SessionId::NEW, attempt: 1, has: 0 };
    inner.attach(registration, offer, || (session(epoch), tunnel, ()))?;
    Ok(Lease::new(inner, key, epoch))
}

/// The session that begins with this epoch.
fn session(epoch: Epoch) -> SessionId {
    SessionId::new(u128::from(epoch.number()).to_be_bytes())
}

/// The agent of run `instance` connects with this tunnel.
fn connect(inner: &Arc<Inner<Fake>>, instance: u8, tunnel: &Fake) -> Lease<Fake> {
    register(inner, registration(inner, instance), tunnel.clone()).unwrap()
}

fn dial(inner: &Arc<Inner<Fake>>) -> Dialing<Fake> {
    Dialing::new(inner, &key(), &TargetName::default())
}

fn spawn_dial(inner: &Arc<Inner<Fake>>) -> tokio::task::JoinHandle<Result<u32, ErrorKind>> {
    let dial = dial(inner);
    tokio::spawn(async move { dial.await.map_err(|error| error.kind()) })
}

/// Lets every task run that can.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

async fn kind_of(dial: Dialing<Fake>) -> Option<ErrorKind> {
    dial.await.err().map(|error| error.kind())
}

fn names(seen: &Seen) -> Vec<&'static str> {
    seen.lock().unwrap().iter().map(TunnelEvent::name).collect()
}

#[test]
fn a_dial_and_a_manager_go_where_clients_and_servers_need_them() {
    fn is<T: Unpin + Send + 'static>() {}
    fn shared<T: Clone + Send + Sync + 'static>() {}
    is::<Dial>();
    shared::<ConnectionManager>();
    // Outside a runtime.
    let connman = ConnectionManager::new();
    assert_eq!((connman.stats(), connman.epoch(&key())), (Stats::default(), None));
    assert!(!connman.disconnect(&key()));
    drop(connman.dial(&key(), &TargetName::default()).timeout(MS).early_data(true));
}

#[tokio::test(start_paused = true)]
async fn nobody_there_is_told_at_once() {
    let (inner, _) = default_manager();
    assert_eq!(kind_of(dial(&inner)).await, Some(ErrorKind::NoConnection));
    assert!(inner.lock().registry.next_deadline().is_none());
}

#[tokio::test(start_paused = true)]
async fn stale_loss_report_cannot_remove_new_tunnel() {
    let (inner, seen) = default_manager();
    let (first, second) = (Fake::new(1), Fake::new(2));
    let old = connect(&inner, 1, &first);
    let new = connect(&inner, 1, &second);
    old.lost(LinkEnd::Lost);
    assert_eq!(dial(&inner).await.unwrap(), 2);
    assert_eq!(second.ended(), None);
    assert_eq!(names(&seen), ["connected", "replaced", "connected"]);
    // The same while the policy thinks about a loss that was not stale when it was reported.
    let slot: Arc<OnceLock<Weak<Inner<Fake>>>> = Arc::default();
    let meanwhile = Arc::clone(&slot);
    let leases = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&leases);
    let policy = move |_: &LinkLoss<'_>| {
        let inner = meanwhile.get().and_then(Weak::upgrade).unwrap();
        kept.lock().unwrap().push(connect(&inner, 1, &Fake::new(4)));
        Grace::Drop
    };
    let (inner, _) = manager(|builder| builder.grace(policy));
    slot.set(Arc::downgrade(&inner)).unwrap();
    connect(&inner, 1, &Fake::new(3)).lost(LinkEnd::Lost);
    assert_eq!(dial(&inner).await.unwrap(), 4);
    leases.lock().unwrap().drain(..).for_each(std::mem::forget);
    drop(new);
}

#[tokio::test(start_paused = true)]
async fn dropped_lease_reports_aborted() {
    let (inner, seen) = default_manager();
    let tunnel = Fake::new(1);
    let task = {
        let lease = connect(&inner, 1, &tunnel);
        tokio::spawn(async move {
            let _lease = lease;
            panic!("the task that owns a link");
        })
    };
    assert!(task.await.is_err());
    assert_eq!(tunnel.ended(), None, "its session is held");
    let lost = seen.lock().unwrap().pop().unwrap();
    assert!(matches!(lost, TunnelEvent::Lost { cause: LossCause::Aborted, grace: Some(GRACE), .. }), "{lost:?}");
}

#[test]
fn a_lease_may_be_dropped_outside_a_runtime() {
    let (inner, seen) = default_manager();
    drop(connect(&inner, 1, &Fake::new(1)));
    assert_eq!(names(&seen), ["connected", "lost"]);
    assert_eq!(list::stats(&inner).grace_period_entries, 1);
}

#[tokio::test(start_paused = true)]
async fn waiter_learns_reconnected_or_expired_as_a_value() {
    let (inner, seen) = default_manager();
    connect(&inner, 1, &Fake::new(1)).lost(LinkEnd::Lost);
    let waiting = [spawn_dial(&inner), spawn_dial(&inner)];
    settle().await;
    assert_eq!(list::stats(&inner).pending_dials_total, 2);
    advance(GRACE - MS).await;
    let lease = connect(&inner, 2, &Fake::new(2));
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), Ok(2));
    }
    lease.lost(LinkEnd::Dead);
    let waiting = spawn_dial(&inner);
    assert_eq!(waiting.await.unwrap(), Err(ErrorKind::ReconnectTimeout));
    assert_eq!(kind_of(dial(&inner)).await, Some(ErrorKind::NoConnection));
    assert_eq!(names(&seen), ["connected", "lost", "replaced", "reconnected", "lost", "expired"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_waits_for_is_not_given_to_the_next_dial() {
    let (inner, _) = default_manager();
    connect(&inner, 1, &Fake::new(1)).lost(LinkEnd::Lost);
    let absent = Absence::Wait(Duration::ZERO);
    let lonely = Ask { not_before: Epoch::new(0), limit: 1, absent, unreported: MS, most: None };
    let waiting = spawn_dial(&inner);
    settle().await;
    let registration = Arc::new(registration(&inner, 1));
    inner.with(|state, now| {
        // A ticket without a dial, which is refused before the dial is released.
        let step = state.registry.dial(&"other".parse().unwrap(), lonely, now);
        assert!(matches!(step, DialStep::Wait(..)));
        let seen = state.registry.incumbent(&key(), now).map(|old| old.registration.epoch);
        state.registry.register(&registration, SessionId::NEW, Fake::new(2), seen, now).unwrap();
    });
    assert_eq!(waiting.await.unwrap(), Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_grace_is_exact_to_the_millisecond_and_no_dial_outlives_it() {
    let (inner, _) = default_manager();
    let start = Instant::now();
    connect(&inner, 1, &Fake::new(1)).lost(LinkEnd::Lost);
    advance(Duration::from_secs(7)).await;
    assert_eq!(spawn_dial(&inner).await.unwrap(), Err(ErrorKind::ReconnectTimeout));
    assert_eq!(start.elapsed(), GRACE);
}

#[tokio::test(start_paused = true)]
async fn links_on_which_no_agent_speaks_do_not_prolong_a_grace() {
    let (inner, seen) = default_manager();
    let start = Instant::now();
    connect(&inner, 1, &Fake::new(1)).lost(LinkEnd::Lost);
    advance(Duration::from_secs(10)).await;
    let waiting = spawn_dial(&inner);
    let displaced = connect(&inner, 1, &Fake::mute(2));
    settle().await;
    // Also not by displacing each other.
    advance(Duration::from_secs(10)).await;
    connect(&inner, 1, &Fake::mute(3)).lost(LinkEnd::Lost);
    drop(displaced);
    assert_eq!(waiting.await.unwrap(), Err(ErrorKind::ReconnectTimeout));
    assert_eq!(start.elapsed(), GRACE);
    assert_eq!(names(&seen).last(), Some(&"expired"));
    // One that speaks has a grace of its own, also when it was displaced by one that did not.
    connect(&inner, 1, &Fake::new(4)).lost(LinkEnd::Lost);
    let spoke = connect(&inner, 1, &Fake::new(5));
    advance(Duration::from_secs(10)).await;
    connect(&inner, 1, &Fake::mute(6)).lost(LinkEnd::Lost);
    drop(spoke);
    assert_eq!(list::list(&inner)[0].grace_left, Some(GRACE));
}

#[tokio::test(start_paused = true)]
async fn a_nearer_deadline_wakes_the_expiry_task() {
    let policy = |loss: &LinkLoss<'_>| match loss.key.as_str() {
        "desk" => Grace::Hold(Duration::from_secs(2)),
        _ => Grace::Hold(Duration::from_secs(20)),
    };
    let (inner, _) = manager(|builder| builder.grace(policy));
    let other = Registration { key: "other".parse().unwrap(), ..registration(&inner, 1) };
    register(&inner, other, Fake::new(1)).unwrap().lost(LinkEnd::Lost);
    settle().await;
    let start = Instant::now();
    connect(&inner, 1, &Fake::new(2)).lost(LinkEnd::Lost);
    assert_eq!(spawn_dial(&inner).await.unwrap(), Err(ErrorKind::ReconnectTimeout));
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    assert_eq!(list::stats(&inner).grace_period_entries, 1);
}

#[tokio::test(start_paused = true)]
async fn displaced_tunnel_is_closed_and_observed() {
    let (inner, seen) = default_manager();
    let (first, second) = (Fake::new(1), Fake::new(2));
    let old = connect(&inner, 1, &first);
    let _new = connect(&inner, 2, &second);
    assert_eq!((first.closed_with(), first.ended()), (Some(CloseCode::REPLACED), Some(SessionEnd::Replaced)));
    assert_eq!((second.closed_with(), second.ended()), (None, None));
    let replaced = seen.lock().unwrap()[1].clone();
    let (epoch, by) = (Epoch::new(1), Epoch::new(2));
    assert_eq!(replaced, TunnelEvent::Replaced { key: key(), epoch, by, same_instance: false });
    drop(old);
    assert_eq!(names(&seen), ["connected", "replaced", "connected"]);
}

#[tokio::test(start_paused = true)]
async fn the_same_run_of_an_agent_replaces_itself_whatever_the_policy_says() {
    struct Mine;
    impl GracePolicy for Mine {
        fn grace(&self, _: &LinkLoss<'_>) -> Grace {
            Grace::Hold(GRACE)
        }
        fn displace(&self, _: &Registration, _: &Registration) -> Displace {
            Displace::Reject
        }
    }
    let (inner, seen) = manager(|builder| builder.grace(Mine));
    let first = Fake::new(1);
    let _old = connect(&inner, 1, &first);
    let lease = connect(&inner, 1, &Fake::new(2));
    assert_eq!(first.closed_with(), Some(CloseCode::STALE));
    let refused = register(&inner, registration(&inner, 3), Fake::new(3));
    assert_eq!(refused.unwrap_err(), RegisterRefusal::InUse);
    assert_eq!(names(&seen), ["connected", "replaced", "connected", "refused"]);
    // In grace nobody is displaced, so nobody is asked.
    lease.lost(LinkEnd::Lost);
    let _other = connect(&inner, 3, &Fake::new(4));
    assert_eq!(dial(&inner).await.unwrap(), 4);
}

#[tokio::test(start_paused = true)]
async fn another_principal_gets_the_key_only_when_it_is_absent() {
    let (inner, seen) = default_manager();
    let thief = |inner: &Arc<Inner<Fake>>| Registration { principal: "thief".into(), ..registration(inner, 1) };
    let tunnel = Fake::new(1);
    let lease = connect(&inner, 1, &tunnel);
    let refused = register(&inner, thief(&inner), Fake::new(2));
    assert_eq!(refused.unwrap_err(), RegisterRefusal::Foreign);
    assert_eq!(tunnel.ended(), None);
    lease.lost(LinkEnd::Lost);
    let refused = register(&inner, thief(&inner), Fake::new(2));
    assert_eq!(refused.unwrap_err(), RegisterRefusal::Foreign);
    assert_eq!(names(&seen), ["connected", "refused", "lost", "refused"]);
    advance(GRACE).await;
    let _lease = register(&inner, thief(&inner), Fake::new(3)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_late_registration_of_an_older_link_is_stale() {
    let (inner, _) = default_manager();
    let late = registration(&inner, 1);
    let _lease = connect(&inner, 1, &Fake::new(1));
    assert_eq!(register(&inner, late, Fake::new(2)).unwrap_err(), RegisterRefusal::Stale);
    assert_eq!(dial(&inner).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_decision_to_displace_counts_only_for_what_it_saw() {
    struct Racing(Arc<OnceLock<Weak<Inner<Fake>>>>, Mutex<Option<Lease<Fake>>>);
    impl GracePolicy for Racing {
        fn grace(&self, _: &LinkLoss<'_>) -> Grace {
            Grace::Drop
        }
        fn displace(&self, old: &Registration, _: &Registration) -> Displace {
            // A newer link of the incumbent comes in between.
            let inner = self.0.get().and_then(Weak::upgrade).unwrap();
            let newer = Registration { epoch: inner.next_epoch(), ..old.clone() };
            *self.1.lock().unwrap() = Some(register(&inner, newer, Fake::new(9)).unwrap());
            Displace::Replace
        }
    }
    let slot: Arc<OnceLock<Weak<Inner<Fake>>>> = Arc::default();
    let (inner, _) = manager(|builder| builder.grace(Racing(Arc::clone(&slot), Mutex::default())));
    slot.set(Arc::downgrade(&inner)).unwrap();
    let _old = connect(&inner, 1, &Fake::new(1));
    let refused = register(&inner, registration(&inner, 2), Fake::new(2));
    assert_eq!(refused.unwrap_err(), RegisterRefusal::Stale);
    assert_eq!(dial(&inner).await.unwrap(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_meets_a_dead_session_waits_in_the_grace() {
    let (inner, _) = default_manager();
    let tunnel = Fake::silent(1);
    let lease = connect(&inner, 1, &tunnel);
    let opening = spawn_dial(&inner);
    settle().await;
    // The session ends under one open, and before another; the loss is reported only later.
    tunnel.end(SessionEnd::Lost);
    let late = spawn_dial(&inner);
    settle().await;
    assert_eq!(list::stats(&inner).pending_dials_total, 2);
    advance(Duration::from_secs(5)).await;
    lease.lost(LinkEnd::Lost);
    // Longer than the dial timeout, which does not count without a tunnel.
    advance(Duration::from_secs(25)).await;
    let _lease = connect(&inner, 1, &Fake::new(2));
    assert_eq!((opening.await.unwrap(), late.await.unwrap()), (Ok(2), Ok(2)));
}

#[tokio::test(start_paused = true)]
async fn a_dial_on_a_displaced_tunnel_goes_to_the_new_one() {
    let (inner, _) = default_manager();
    let _old = connect(&inner, 1, &Fake::silent(1));
    let opening = spawn_dial(&inner);
    settle().await;
    let _new = connect(&inner, 2, &Fake::new(2));
    assert_eq!(opening.await.unwrap(), Ok(2));
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_the_agent_is_the_dials_answer() {
    let (inner, _) = default_manager();
    let tunnel = Fake::silent(1);
    let _lease = connect(&inner, 1, &tunnel);
    let opening = spawn_dial(&inner);
    settle().await;
    tunnel.answer(|| Err(ErrorKind::TargetRefused.into()));
    assert_eq!(opening.await.unwrap(), Err(ErrorKind::TargetRefused));
}

#[tokio::test(start_paused = true)]
async fn the_dial_timeout_runs_from_the_tunnel_and_the_callers_over_all() {
    let (inner, _) = default_manager();
    connect(&inner, 1, &Fake::new(1)).lost(LinkEnd::Lost);
    let start = Instant::now();
    let mut short = dial(&inner);
    short.timeout = Some(Duration::from_secs(3));
    let (short, long) = (tokio::spawn(kind_of(short)), spawn_dial(&inner));
    assert_eq!(short.await.unwrap(), Some(ErrorKind::DialTimeout));
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    assert_eq!(list::stats(&inner).pending_dials_total, 1, "the ticket is given back");
    advance(Duration::from_secs(17)).await;
    let tunnel = Fake::silent(2);
    let _lease = connect(&inner, 1, &tunnel);
    assert_eq!(long.await.unwrap(), Err(ErrorKind::DialTimeout));
    assert_eq!(start.elapsed(), Duration::from_secs(30), "20 s of waiting, 10 s of opening");
    assert_eq!(tunnel.0.given_up.load(Ordering::Relaxed), 1);
    assert_eq!(*tunnel.0.deadline_ms.lock().unwrap(), Some(10_000));
    let mut short = dial(&inner);
    short.timeout = Some(Duration::from_secs(4));
    assert_eq!(kind_of(short).await, Some(ErrorKind::DialTimeout));
    assert_eq!(*tunnel.0.deadline_ms.lock().unwrap(), Some(4_000));
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_is_over_has_given_its_place_back_before_it_is_dropped() {
    let (inner, _) = default_manager();
    connect(&inner, 1, &Fake::new(1)).lost(LinkEnd::Lost);
    let mut dial = dial(&inner);
    dial.timeout = Some(MS);
    assert_eq!((&mut dial).await.unwrap_err().kind(), ErrorKind::DialTimeout);
    assert_eq!(list::stats(&inner).pending_dials_total, 0);
    drop(dial);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_may_not_wait_has_the_dial_timeout_for_its_open_and_no_grace_that_begins_meanwhile() {
    for waits in [0, 5] {
        let (inner, _) = default_manager();
        let start = Instant::now();
        let tunnel = Fake::silent(1);
        let lease = connect(&inner, 1, &tunnel);
        let mut dial = dial(&inner);
        dial.seeking.max_wait = Some(Duration::from_secs(waits));
        let opening = tokio::spawn(kind_of(dial));
        settle().await;
        *tunnel.0.up_since.lock().unwrap() = None;
        lease.lost(LinkEnd::Lost);
        assert_eq!(opening.await.unwrap(), Some(ErrorKind::ReconnectTimeout));
        assert_eq!(start.elapsed(), Duration::from_secs(waits + 10));
        // One whose session ends under it waits for as long as is left for the next one.
        let tunnel = Fake::silent(2);
        let _lease = connect(&inner, 1, &tunnel);
        let mut dial = self::dial(&inner);
        dial.seeking.max_wait = Some(Duration::from_secs(waits));
        let opening = tokio::spawn(kind_of(dial));
        settle().await;
        advance(Duration::from_secs(2)).await;
        settle().await;
        tunnel.end(SessionEnd::Lost);
        let ended = Instant::now();
        let kind = opening.await.unwrap();
        assert!(matches!(kind, Some(ErrorKind::ReconnectTimeout | ErrorKind::DialTimeout)), "{kind:?}");
        assert_eq!(ended.elapsed(), Duration::from_secs(if waits == 0 { 0 } else { waits - 2 }));
    }
}

#[tokio::test(start_paused = true)]
async fn b64_an_agent_that_comes_and_goes_buys_no_dial_more_than_its_grace_and_the_dial_timeout() {
    let (inner, _) = default_manager();
    let tunnel = Fake::silent(1);
    let lease = connect(&inner, 1, &tunnel);
    let start = Instant::now();
    let early = spawn_dial(&inner);
    settle().await;
    *tunnel.0.up_since.lock().unwrap() = None;
    lease.lost(LinkEnd::Lost);
    advance(Duration::from_secs(20)).await;
    let late = spawn_dial(&inner);
    settle().await;
    let flapping = async {
        loop {
            let tunnel = Fake::silent(2);
            let lease = connect(&inner, 1, &tunnel);
            tokio::time::sleep(Duration::from_secs(1)).await;
            *tunnel.0.up_since.lock().unwrap() = None;
            lease.lost(LinkEnd::Lost);
            tokio::time::sleep(Duration::from_secs(8)).await;
        }
    };
    let dials = async {
        for dial in [early, late] {
            assert_eq!(dial.await.unwrap(), Err(ErrorKind::ReconnectTimeout));
            assert_eq!(start.elapsed(), Duration::from_secs(40), "30 s of the first grace, 10 s of opening");
        }
    };
    tokio::select! {
        () = flapping => {}
        done = timeout(Duration::from_secs(3600), dials) => done.unwrap(),
    }
    assert_eq!(list::stats(&inner).pending_dials_total, 0);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_never_waits_but_meets_dead_tunnels_only_ends_too() {
    let (inner, _) = default_manager();
    let start = Instant::now();
    let mut lease = connect(&inner, 1, &Fake::silent(1));
    let dial = spawn_dial(&inner);
    while !dial.is_finished() && start.elapsed() < Duration::from_secs(3600) {
        settle().await;
        advance(Duration::from_secs(5)).await;
        lease = connect(&inner, 1, &Fake::silent(2));
    }
    assert_eq!(dial.await.unwrap(), Err(ErrorKind::DialTimeout));
    assert!(start.elapsed() <= Duration::from_secs(45), "the longest grace and one opening");
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_dial_leaves_nothing_behind() {
    let (inner, _) = default_manager();
    connect(&inner, 1, &Fake::new(1)).lost(LinkEnd::Lost);
    assert!(timeout(MS, dial(&inner)).await.is_err());
    assert_eq!(list::stats(&inner).pending_dials_total, 0);
    let tunnel = Fake::silent(2);
    let _lease = connect(&inner, 1, &tunnel);
    assert!(timeout(MS, dial(&inner)).await.is_err());
    assert_eq!(tunnel.0.given_up.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dial_polled_after_its_end_says_so() {
    let (inner, _) = default_manager();
    let mut dial = dial(&inner);
    assert_eq!((&mut dial).await.unwrap_err().kind(), ErrorKind::NoConnection);
    assert_eq!((&mut dial).await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test(start_paused = true)]
async fn waiting_has_a_limit_for_each_key_and_one_for_all() {
    struct Two;
    impl GracePolicy for Two {
        fn grace(&self, _: &LinkLoss<'_>) -> Grace {
            Grace::Hold(GRACE)
        }
        fn waiting_limit(&self, _: &AgentKey) -> usize {
            2
        }
    }
    for (inner, _) in [manager(|builder| builder.grace(Two)), manager(|builder| builder.max_pending_dials(2))] {
        connect(&inner, 1, &Fake::new(1)).lost(LinkEnd::Lost);
        let waiting = [spawn_dial(&inner), spawn_dial(&inner)];
        settle().await;
        assert_eq!(kind_of(dial(&inner)).await, Some(ErrorKind::TooManyPendingDials));
        let _lease = connect(&inner, 1, &Fake::new(2));
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap(), Ok(2));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn tunnels_have_a_limit() {
    let (inner, seen) = manager(|builder| builder.max_tunnels(1));
    let _lease = connect(&inner, 1, &Fake::new(1));
    let other = Registration { key: "other".parse().unwrap(), ..registration(&inner, 2) };
    assert_eq!(register(&inner, other, Fake::new(2)).unwrap_err(), RegisterRefusal::Overloaded);
    assert_eq!(names(&seen), ["connected", "refused"]);
    let _newer = connect(&inner, 1, &Fake::new(3));
}

#[tokio::test(start_paused = true)]
async fn s3_a_policy_may_hold_nothing_or_wait_for_the_absent() {
    let (inner, seen) = manager(|builder| builder.grace(NoGrace));
    let tunnel = Fake::silent(1);
    let lease = connect(&inner, 1, &tunnel);
    tunnel.end(SessionEnd::Lost);
    let waiting = spawn_dial(&inner);
    settle().await;
    lease.lost(LinkEnd::Lost);
    assert_eq!(waiting.await.unwrap(), Err(ErrorKind::NoConnection));
    assert!(matches!(seen.lock().unwrap()[1], TunnelEvent::Lost { grace: None, .. }));

    struct Boot;
    impl GracePolicy for Boot {
        fn grace(&self, _: &LinkLoss<'_>) -> Grace {
            Grace::Drop
        }
        fn absent(&self, _: &AgentKey) -> Absent {
            Absent::Wait(Duration::from_secs(60))
        }
    }
    let (inner, _) = manager(|builder| builder.grace(Boot));
    let start = Instant::now();
    assert_eq!(spawn_dial(&inner).await.unwrap(), Err(ErrorKind::NoConnection));
    assert_eq!(start.elapsed(), Duration::from_secs(60));
    let waiting = spawn_dial(&inner);
    settle().await;
    let _lease = connect(&inner, 1, &Fake::new(2));
    assert_eq!(waiting.await.unwrap(), Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_grace_is_capped_to_what_agents_are_told() {
    let (inner, seen) = manager(|builder| builder.grace(|_: &LinkLoss<'_>| Grace::Hold(Duration::MAX)));
    assert_eq!(inner.max_hold(), GRACE);
    connect(&inner, 1, &Fake::new(1)).lost(LinkEnd::Lost);
    assert!(matches!(seen.lock().unwrap()[1], TunnelEvent::Lost { grace: Some(GRACE), .. }));
}

#[tokio::test(start_paused = true)]
async fn a_policy_sees_how_often_and_how_long() {
    let losses: Arc<Mutex<Vec<(LossCause, Duration, u32)>>> = Arc::default();
    let seen = Arc::clone(&losses);
    let policy = move |loss: &LinkLoss<'_>| {
        seen.lock().unwrap().push((loss.cause, loss.up_for, loss.losses));
        Grace::Hold(GRACE)
    };
    let (inner, _) = manager(|builder| builder.grace(policy));
    let lease = connect(&inner, 1, &Fake::new(1));
    advance(Duration::from_secs(3)).await;
    lease.lost(LinkEnd::Dead);
    connect(&inner, 1, &Fake::new(2)).lost(LinkEnd::Closed(Some(CloseCode::DRAINED)));
    let first = (LossCause::Dead, Duration::from_secs(3), 0);
    let second = (LossCause::Closed(Some(CloseCode::DRAINED)), Duration::ZERO, 1);
    assert_eq!(*losses.lock().unwrap(), [first, second]);
}

#[tokio::test(start_paused = true)]
async fn b86_policies_and_observers_run_outside_the_lock_and_may_panic() {
    struct Bomb;
    impl GracePolicy for Bomb {
        fn grace(&self, _: &LinkLoss<'_>) -> Grace {
            panic!("grace")
        }
        fn max_hold(&self) -> Duration {
            panic!("max_hold")
        }
        fn waiting_limit(&self, _: &AgentKey) -> usize {
            panic!("waiting_limit")
        }
        fn absent(&self, _: &AgentKey) -> Absent {
            panic!("absent")
        }
        fn displace(&self, _: &Registration, _: &Registration) -> Displace {
            panic!("displace")
        }
    }
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _here = ::metrics::set_default_local_recorder(&recorder);

    let slot: Arc<OnceLock<Weak<Inner<Fake>>>> = Arc::default();
    let looks = Arc::new(AtomicUsize::new(0));
    let (from, looked) = (Arc::clone(&slot), Arc::clone(&looks));
    let looking = move |_: &TunnelEvent| {
        looked.fetch_add(list::list(&from.get().and_then(Weak::upgrade).unwrap()).len(), Ordering::Relaxed);
    };
    let (inner, _) =
        manager(|builder| builder.grace(Bomb).observer(|_: &TunnelEvent| panic!("observer")).observer(looking));
    slot.set(Arc::downgrade(&inner)).unwrap();

    let first = Fake::new(1);
    assert_eq!(kind_of(dial(&inner)).await, Some(ErrorKind::NoConnection));
    let lease = connect(&inner, 1, &first);
    let refused = register(&inner, registration(&inner, 2), Fake::new(2));
    assert_eq!(
        (refused.unwrap_err(), first.closed_with()),
        (RegisterRefusal::InUse, None),
        "the old one keeps the key"
    );
    lease.lost(LinkEnd::Lost);
    assert_eq!(spawn_dial(&inner).await.unwrap(), Err(ErrorKind::ReconnectTimeout));
    assert_eq!(looks.load(Ordering::Relaxed), 3, "it saw one key at each event but the last");

    let counted = snapshotter.snapshot().into_vec().into_iter().find_map(|(key, _, _, value)| match value {
        DebugValue::Counter(n) if key.key().name() == "revdial_callback_failures_total" => Some(n),
        _ => None,
    });
    // max_hold, absent and waiting_limit (twice), displace, grace; the observer at four events.
    assert_eq!(counted, Some(10));
}

#[tokio::test(start_paused = true)]
async fn c10_disconnect_takes_the_key_away_at_once() {
    let (inner, seen) = default_manager();
    let tunnel = Fake::new(1);
    let lease = connect(&inner, 1, &tunnel);
    let disconnect = |inner: &Arc<Inner<Fake>>| {
        inner.with(|state, now| state.registry.close(&key(), CloseCode::CREDENTIALS, &Refusal::NoConnection, now))
    };
    assert!(disconnect(&inner));
    assert_eq!((tunnel.closed_with(), tunnel.ended()), (Some(CloseCode::CREDENTIALS), Some(SessionEnd::Revoked)));
    lease.lost(LinkEnd::Local(CloseCode::CREDENTIALS));
    assert_eq!(names(&seen), ["connected", "lost"]);
    assert_eq!(list::stats(&inner), Stats::default());
    assert!(!disconnect(&inner));
    connect(&inner, 1, &Fake::new(2)).lost(LinkEnd::Lost);
    let waiting = spawn_dial(&inner);
    settle().await;
    assert!(disconnect(&inner));
    assert_eq!(waiting.await.unwrap(), Err(ErrorKind::NoConnection));
}

#[tokio::test(start_paused = true)]
async fn after_the_shutdown_nothing_is_taken() {
    let (inner, _) = default_manager();
    let tunnel = Fake::new(1);
    let _lease = connect(&inner, 1, &tunnel);
    inner.with(|state, now| state.registry.shut_down(CloseCode::RESTART, now));
    assert_eq!((tunnel.closed_with(), tunnel.ended()), (Some(CloseCode::RESTART), Some(SessionEnd::Shutdown)));
    let error = dial(&inner).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::Shutdown, true), "nothing was sent");
    let refused = register(&inner, registration(&inner, 1), Fake::new(2));
    assert_eq!(refused.unwrap_err(), RegisterRefusal::ShuttingDown);
}

#[tokio::test(start_paused = true)]
async fn lists_tell_what_is_there() {
    let (inner, _) = default_manager();
    let peer_addr = Some(([192, 0, 2, 1], 7).into());
    let labels = vec![("room".to_owned(), "3".to_owned())];
    let desk = Registration { peer_addr, labels: labels.clone(), ..registration(&inner, 1) };
    let _desk = register(&inner, desk, Fake::new(1)).unwrap();
    let away = Registration { key: "away".parse().unwrap(), ..registration(&inner, 2) };
    register(&inner, away, Fake::new(2)).unwrap().lost(LinkEnd::Dead);
    advance(Duration::from_secs(10)).await;
    let agents = list::list(&inner);
    let [away, desk] = &agents[..] else { panic!("{agents:?}") };
    assert_eq!((away.state, away.last_cause, away.streams), (KeyState::Grace, Some(LossCause::Dead), 2));
    assert_eq!((away.since, away.grace_left), (Duration::from_secs(10), Some(Duration::from_secs(20))));
    assert_eq!((desk.state, desk.grace_left, desk.last_cause), (KeyState::Connected, None, None));
    assert_eq!((desk.streams, desk.sent_bytes, desk.received_bytes, desk.peer_addr), (2, 10, 100, peer_addr));
    assert_eq!((&desk.labels, desk.reconnects, desk.protocol), (&labels, 0, Protocol::Native));
    let stats = list::stats(&inner);
    assert_eq!((stats.active_connections, stats.grace_period_entries, stats.sent_bytes), (1, 1, 20));
}

#[tokio::test(start_paused = true)]
async fn the_expiry_task_keeps_nothing_alive() {
    let (inner, _) = default_manager();
    connect(&inner, 1, &Fake::new(1)).lost(LinkEnd::Lost);
    settle().await;
    let weak = Arc::downgrade(&inner);
    drop(inner);
    assert!(weak.upgrade().is_none());
    settle().await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}

#[test]
fn an_expiry_task_that_went_with_its_runtime_is_started_anew() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (inner, _) = manager(|builder| builder.grace(FixedGrace::secs(1)));
    runtime().block_on(async {
        connect(&inner, 1, &Fake::new(1)).lost(LinkEnd::Lost);
        settle().await;
    });
    runtime().block_on(async {
        let _lease = connect(&inner, 1, &Fake::new(1));
        drop(_lease);
        assert_eq!(spawn_dial(&inner).await.unwrap(), Err(ErrorKind::ReconnectTimeout));
    });
}

#[tokio::test(start_paused = true)]
async fn gauges_go_back_to_where_they_were() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _here = ::metrics::set_default_local_recorder(&recorder);
    // A snapshot sets the values back to zero: this tells by how much each gauge moved.
    let moved = || {
        let mut moved = [0.0; 3];
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            let gauge = match key.key().name() {
                "revdial_active_connections" => 0,
                "revdial_reconnection_grace_period_entries" => 1,
                "revdial_pending_dials_current" => 2,
                _ => continue,
            };
            if let DebugValue::Gauge(change) = value {
                moved[gauge] = change.into_inner();
            }
        }
        moved
    };
    let (inner, _) = default_manager();
    connect(&inner, 1, &Fake::new(1)).lost(LinkEnd::Lost);
    let waiting = spawn_dial(&inner);
    settle().await;
    assert_eq!(moved(), [0.0, 1.0, 1.0]);
    let lease = connect(&inner, 1, &Fake::new(2));
    assert_eq!(waiting.await.unwrap(), Ok(2));
    assert_eq!(moved(), [1.0, -1.0, -1.0]);
    lease.lost(LinkEnd::Lost);
    assert_eq!(moved(), [-1.0, 1.0, 0.0]);
    drop(inner);
    assert_eq!(moved(), [0.0, -1.0, 0.0]);
}

#[tokio::test(start_paused = true)]
async fn b84_a_drain_is_not_over_by_a_late_word_about_sessions_that_left_before_it() {
    let (inner, _) = default_manager();
    let lease = connect(&inner, 1, &Fake::new(1));
    inner.with(|state, now| state.registry.drain(CloseCode::RESTART, now + Duration::from_secs(60), now));
    let waits = Arc::clone(&inner);
    let drained = tokio::spawn(async move { waits.all_left().await });
    settle().await;
    // As by a task that was held up between the lock and the word, with an older session's end.
    inner.left.notify_waiters();
    settle().await;
    assert!(!drained.is_finished(), "its own session has not left");
    inner.with(|state, now| state.registry.close(&key(), CloseCode::RESTART, &Refusal::ShuttingDown, now));
    timeout(MS, drained).await.unwrap().unwrap();
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_agent_drains_says_so_while_it_is_in_grace_and_after() {
    let (inner, _) = default_manager();
    let lease = connect(&inner, 1, &Fake::new(1));
    let drain = PeerDrain { code: CloseCode::DRAINED, deadline: Duration::from_secs(5), jitter: Duration::ZERO };
    lease.drained(drain);
    let cause = || list::list(&inner).into_iter().map(|agent| (agent.state, agent.last_cause)).collect::<Vec<_>>();
    assert_eq!(cause(), [(KeyState::Grace, Some(LossCause::Drained))]);
    lease.lost(LinkEnd::Closed(Some(CloseCode::DRAINED)));
    assert_eq!(cause(), [(KeyState::Grace, Some(LossCause::Drained))]);
    let _next = connect(&inner, 2, &Fake::new(2));
    assert_eq!(cause(), [(KeyState::Connected, Some(LossCause::Drained))]);
    inner.with(|state, now| state.registry.drain(CloseCode::RESTART, now + Duration::from_secs(60), now));
    assert_eq!(cause(), [(KeyState::Grace, Some(LossCause::Local(CloseCode::RESTART)))]);
}

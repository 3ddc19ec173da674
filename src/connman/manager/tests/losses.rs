//! Links that are lost: who is told what, and how long the grace is.

use super::*;

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

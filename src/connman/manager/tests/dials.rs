//! How dials wait, and when they end.

use super::*;

#[tokio::test(start_paused = true)]
async fn nobody_there_is_told_at_once() {
    let (inner, _) = default_manager();
    assert_eq!(kind_of(dial(&inner)).await, Some(ErrorKind::NoConnection));
    assert!(inner.lock().registry.next_deadline().is_none());
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

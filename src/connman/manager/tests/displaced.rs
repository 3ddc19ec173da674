//! Agents that come while another one has the key.

use super::*;

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

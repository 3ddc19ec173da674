//! What dials are told of keys that are not there: of one that never came, and of those that are gone.

use std::{error::Error as _, time::Duration};

use revdial::{
    ErrorKind,
    connman::{ConnectionManager, Gone, LossCause, TunnelEvent},
    frame::CloseCode,
};
use tokio::time::sleep;

use crate::{Dialled, Running, counted::Counted, dial, in_grace, key, net::Net, prompt, waiting};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const NEVER: &str = "never connected, as far as is remembered";

/// Why a dial to an absent key failed, in words, and what is known of the key if it is gone.
async fn refused(dialled: Dialled) -> (String, Option<Gone>) {
    let error = dialled.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::NoConnection, "no connection".to_owned()));
    assert!(error.is_retry_safe());
    (error.source().expect("a cause").to_string(), Gone::find(&error).copied())
}

#[tokio::test(start_paused = true)]
async fn s1_e13_a_key_that_is_gone_tells_since_when_and_why_until_it_is_back_and_one_that_never_came_does_not() {
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    assert_eq!(refused(dial(&connman)).await, (NEVER.to_owned(), None));
    assert_eq!(connman.gone(&key()), None);

    let agent = Running::on(&net).await;
    assert_eq!(connman.gone(&key()), None, "it is there");
    agent.run.abort();
    in_grace(&connman).await;
    assert_eq!(connman.gone(&key()), None, "it is waited for");
    let cause = connman.list_grace()[0].last_cause.unwrap();
    sleep(40 * SECOND).await;
    let (text, gone) = refused(dial(&connman)).await;
    assert_eq!(text, format!("not connected for 40 s: {cause}"));
    assert_eq!(gone.map(|gone| (gone.since, gone.cause)), Some((40 * SECOND, cause)));
    assert_eq!(connman.gone(&key()), gone);

    let agent = Running::on(&net).await;
    assert_eq!(connman.gone(&key()), None, "it is back");
    agent.run.abort();
    in_grace(&connman).await;
    sleep(31 * SECOND).await;
    assert!(connman.gone(&key()).is_some());
    sleep(HOUR).await;
    assert_eq!(connman.gone(&key()), None, "it was too long ago");
    assert_eq!(refused(dial(&connman)).await, (NEVER.to_owned(), None));
}

#[tokio::test(start_paused = true)]
async fn e13_a_revoked_key_is_gone_at_once_for_who_dials_and_who_waited() {
    let revoked = LossCause::Local(CloseCode::CREDENTIALS);
    for lost in [false, true] {
        let connman = ConnectionManager::new();
        let net = Net::to(&connman);
        let agent = Running::on(&net).await;
        let mut dials = Vec::new();
        if lost {
            agent.run.abort();
            in_grace(&connman).await;
            dials.push(dial(&connman));
            waiting(&connman, 1).await;
            sleep(5 * SECOND).await;
        }
        assert!(connman.disconnect(&key()));
        dials.push(dial(&connman));
        for dialled in dials {
            let since = if lost { 5 * SECOND } else { Duration::ZERO };
            let (text, gone) = refused(dialled).await;
            assert_eq!(gone.map(|gone| (gone.since, gone.cause)), Some((since, revoked)));
            assert_eq!(text, format!("not connected for {} s: {revoked}", since.as_secs()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn e13_a_key_that_another_agent_took_and_left_is_gone_by_that_one() {
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let _first = Running::on(&net).await;
    let second = net.build(prompt("a"));
    let shutdown = second.shutdown_handle();
    let second = Running::of(second).await;
    shutdown.shutdown(SECOND);
    second.run.await.unwrap().unwrap();
    sleep(31 * SECOND).await;
    let (_, gone) = refused(dial(&connman)).await;
    assert_eq!(gone.map(|gone| gone.cause), Some(LossCause::Drained));
}

#[tokio::test(start_paused = true)]
async fn e13_a_failed_start_is_told_in_its_words_above_since_when_the_key_is_gone() {
    let connman = ConnectionManager::builder().wake(|_| async { Err::<(), _>("no machine") }).build();
    let net = Net::to(&connman);
    assert_eq!(refused(dial(&connman)).await, ("no machine".to_owned(), None));
    let agent = Running::on(&net).await;
    agent.run.abort();
    in_grace(&connman).await;
    assert!(connman.disconnect(&key()));
    let (text, gone) = refused(dial(&connman)).await;
    assert_eq!((text.as_str(), gone), ("no machine", connman.gone(&key())));
    assert!(gone.is_some());
}

/// How a grace ends, as all are told it: its event, its reason, and what was counted of `timeout` and `drained`.
async fn expiry(end: impl AsyncFnOnce(&ConnectionManager, &Net)) -> (TunnelEvent, String, [u64; 2]) {
    let counted = Counted::new();
    let connman = ConnectionManager::new();
    let (net, mut events) = (Net::to(&connman), connman.subscribe());
    end(&connman, &net).await;
    sleep(31 * SECOND).await;
    loop {
        let event = events.next().await.unwrap().unwrap();
        if event.name() == "expired" {
            let counts = ["timeout", "drained"].map(|end| counted.sum(&format!("revdial_reconnection_{end}_total")));
            let reason = event.reason().unwrap();
            return (event, reason, counts);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_grace_that_ends_tells_and_counts_whether_the_agent_was_lost_or_went_in_order_or_was_sent() {
    let (event, reason, counts) = expiry(async |connman, net| {
        Running::on(net).await.run.abort();
        in_grace(connman).await;
    })
    .await;
    assert!(matches!(event, TunnelEvent::Expired { ended: None, drained: false, .. }), "{event:?}");
    assert_eq!((reason.as_str(), counts), ("the agent did not return in its grace", [1, 0]));

    let (event, reason, counts) = expiry(async |_, net| {
        let agent = net.build(prompt("a"));
        let shutdown = agent.shutdown_handle();
        let agent = Running::of(agent).await;
        shutdown.shutdown(SECOND);
        agent.run.await.unwrap().unwrap();
    })
    .await;
    assert!(matches!(event, TunnelEvent::Expired { ended: None, drained: true, .. }), "{event:?}");
    assert_eq!((reason.as_str(), counts), ("the agent had drained", [0, 1]));

    // What runs does so beyond the deadline.
    let (event, reason, counts) = expiry(async |connman, net| {
        let agent = Running::on(net).await;
        let stream = dial(connman).await.unwrap().unwrap();
        connman.drain(5 * SECOND).await;
        drop((agent, stream));
    })
    .await;
    let ended = match event {
        TunnelEvent::Expired { ended, .. } => ended.expect("this side has ended it"),
        other => panic!("{other:?}"),
    };
    assert_eq!((reason, counts), (format!("ended here with {ended}"), [0, 0]));
}

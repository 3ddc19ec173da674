//! What a host decides by closures: grace for each key and cause, and whose a key is.

use std::time::Duration;

use revdial::{
    ErrorKind,
    agent::{Agent, AgentStatus},
    connman::{ConnectionManager, Displace, Grace, LinkLoss, LossCause, Registration},
    frame::CloseCode,
};

use crate::{
    Running, in_grace, key,
    net::{Net, TOKEN, relay::Fault},
    until,
};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn c7_a_grace_is_for_a_key_and_a_cause() {
    let policy = |loss: &LinkLoss<'_>| match (loss.key.as_str(), loss.cause) {
        ("build-7", _) => Grace::Hold(600 * SECOND),
        (_, LossCause::Closed(Some(CloseCode::RESTART))) => Grace::Hold(90 * SECOND),
        (_, LossCause::Closed(_)) => Grace::Drop,
        _ => Grace::Hold(10 * SECOND),
    };
    for (name, fault, hold) in [
        ("build-7", Fault::ServerGone, Some(600)),
        ("desk", Fault::Close(1012), Some(90)),
        ("desk", Fault::Close(1001), None),
        ("desk", Fault::ServerGone, Some(10)),
    ] {
        let connman = ConnectionManager::builder().grace(policy).max_hold(600 * SECOND).build();
        let net = Net::to(&connman);
        let _agent = Running::of(net.build(Agent::builder("http://gateway", name).token(TOKEN))).await;
        net.down(true);
        net.fault(fault);
        until("lost", || connman.stats().active_connections == 0).await;
        let left = connman.list_grace().first().and_then(|agent| agent.grace_left);
        assert_eq!(left, hold.map(|hold| hold * SECOND), "{name}, {fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_closures_grace_is_cut_to_the_longest_which_is_a_setting() {
    for (longest, held) in [(None, 30), (Some(50), 50), (Some(500), 100)] {
        let builder = ConnectionManager::builder().grace(|_: &LinkLoss<'_>| Grace::Hold(100 * SECOND));
        let connman = match longest {
            Some(longest) => builder.max_hold(longest * SECOND).build(),
            None => builder.build(),
        };
        let net = Net::to(&connman);
        Running::on(&net).await.run.abort();
        in_grace(&connman).await;
        assert_eq!(connman.list()[0].grace_left, Some(held * SECOND));
    }
}

#[tokio::test(start_paused = true)]
async fn b9_a_closure_decides_whether_a_second_agent_has_the_key() {
    let by_version = |old: &Registration, new: &Registration| match new.agent_version > old.agent_version {
        true => Displace::Replace,
        false => Displace::Reject,
    };
    let connman = ConnectionManager::builder().displace(by_version).build();
    let nets = [Net::to(&connman), Net::to(&connman), Net::to(&connman)];
    let agent =
        |net: &Net, version: &str| net.build(Agent::builder("http://gateway", "a").token(TOKEN).agent_version(version));
    let first = Running::of(agent(&nets[0], "2")).await;
    let older = agent(&nets[1], "1");
    let mut status = older.status();
    let (_listener, run) = older.listen();
    let run = tokio::spawn(run);
    let refused = status.wait_for(|status| matches!(status, AgentStatus::Refused { .. })).await.unwrap().clone();
    assert!(matches!(refused, AgentStatus::Refused { cause: ErrorKind::KeyInUse, .. }), "{refused:?}");
    run.abort();
    let _newer = Running::of(agent(&nets[2], "3")).await;
    assert_eq!(first.run.await.unwrap().unwrap_err().kind(), ErrorKind::Replaced);
    assert_eq!((connman.list().len(), &*connman.list()[0].agent_version), (1, "3"));
    assert_eq!(connman.list()[0].key, key());
}

//! After how long a middlebox cuts idle connections.

use std::time::Duration;

use super::{
    assert_fault, assert_unseen, assert_well, at, probe,
    servers::{Ends, impatient},
    step,
};
use crate::{Gateway, TOKEN};

#[tokio::test]
async fn a_middlebox_that_cuts_idle_connections_is_found_out() {
    const IDLE: Duration = Duration::from_millis(700);
    let gateway = Gateway::new().await;
    for (ends, how) in [(Ends::Cut, "is cut after "), (Ends::Silent, "is dead without a word after ")] {
        let server = format!("http://{}", impatient(gateway.addr, IDLE, ends).await);
        let command = format!("doctor --token {TOKEN} --idle-up-to 2s --timeout 4s");
        let ended = at(&server, &command).await;
        let next = ["proxy_read_timeout", "timeout tunnel", "--ping-interval"];
        assert_fault(&ended, 19, "idle", &[&["an idle connection", how, "alive after "][..], &next].concat());
    }
}

#[tokio::test]
async fn where_nothing_cuts_idle_connections_live_and_no_key_is_left_behind() {
    let gateway = Gateway::with("--grace 200ms").await;
    let ended = probe(&gateway, &format!("doctor --token {TOKEN} --idle-up-to 1s")).await;
    assert_well(&ended);
    assert!(ended.stdout.contains("ok    idle        idle connections live for 1.0 s and longer\n"), "{ended:?}");
    gateway.until(|stats| stats["agents"].as_array().is_some_and(Vec::is_empty)).await;
}

#[tokio::test]
async fn without_a_token_for_a_key_of_its_own_the_probe_says_that_it_did_not_look() {
    let gateway = Gateway::new().await;
    let ended = probe(&gateway, "doctor --idle-up-to 1s").await;
    assert_unseen(&ended, "idle");
    assert!(ended.stdout.contains("skip  idle        no RUNNER_TOKEN here"), "{ended:?}");
    let ended = probe(&gateway, "doctor --idle-up-to 1s --token wrong --json").await;
    assert_eq!(ended.status.code(), Some(15), "the fault goes before: {ended:?}");
    let idle = step(&ended, "idle");
    assert_eq!(idle["verdict"], "skip", "{ended:?}");
    assert!(idle["what"].as_str().is_some_and(|what| what.contains("401")), "{idle}");
}

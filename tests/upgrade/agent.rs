//! What an agent makes of a server that does not open its tunnel.

use std::time::Duration;

use revdial::{
    ErrorKind,
    agent::{Agent, AgentStatus},
    connman::ConnectionManager,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::Instant,
};

use crate::{Counted, block_on, net::Net};

/// What went wrong, whether it is a refusal, after how long the agent tries again, and in which words it says so.
type Setback = (ErrorKind, bool, Duration, String);

async fn setback(agent: Agent) -> Setback {
    let mut status = agent.status();
    let (_listener, run) = agent.listen();
    let run = tokio::spawn(run);
    let waits = |status: &AgentStatus| matches!(status, AgentStatus::Waiting { .. } | AgentStatus::Refused { .. });
    let status = status.wait_for(waits).await.unwrap().clone();
    run.abort();
    match status {
        AgentStatus::Waiting { until, cause, text } => (cause, false, until - Instant::now(), text.to_string()),
        AgentStatus::Refused { until, cause, text } => (cause, true, until - Instant::now(), text.to_string()),
        other => panic!("{other:?}"),
    }
}

/// The setback of an agent on this net, which has to be counted so.
fn on(net: impl FnOnce() -> Net, token: &str, counter: &str) -> Setback {
    Counted::within(|counted| {
        let setback =
            block_on(async { setback(net().build(Agent::builder("http://gateway", "a").token(token))).await });
        let counted = counted.take();
        assert!(counted.contains(&format!("revdial_agent_connect_failures_total{{{counter}}}")), "{counted:?}");
        setback
    })
}

/// Slow, and loud: as a refusal.
fn is_slow((kind, refused, wait, text): Setback, expected: ErrorKind) {
    assert_eq!((kind, refused), (expected, true), "{text}");
    assert!((Duration::from_secs(30)..=Duration::from_secs(60)).contains(&wait), "{wait:?}");
}

#[test]
fn b5_an_agent_that_finds_no_common_protocol_tries_again_slowly() {
    is_slow(on(|| Net::answering(426, &[]), "token", "version"), ErrorKind::Version);
}

#[test]
fn b7_an_agent_with_wrong_credentials_tries_again_slowly() {
    is_slow(on(|| Net::to(&ConnectionManager::new()), "wrong", "auth"), ErrorKind::Auth);
}

#[test]
fn b20_an_agent_follows_nobody_elsewhere_and_names_the_status() {
    for status in [200, 301, 302] {
        let net = std::cell::RefCell::new(None);
        let make = || {
            let made = Net::answering(status, &[("location", "http://elsewhere/")]);
            net.replace(Some(made.clone()));
            made
        };
        let (kind, refused, _, text) = on(make, "token", "handshake");
        assert_eq!((kind, refused), (ErrorKind::Handshake, false), "{text}");
        assert!(text.contains(&status.to_string()) && !text.contains("html"), "{text}");
        let uris = net.take().unwrap().uris();
        assert!(!uris.is_empty() && uris.iter().all(|uri| uri.host() == Some("gateway")), "{uris:?}");
    }
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn b21_an_agent_that_finds_tls_invalid_tries_again_slowly_and_never_without_tls() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", server.local_addr().unwrap());
    let hears = tokio::spawn(async move {
        let (mut socket, _) = server.accept().await.unwrap();
        let mut first = [0];
        socket.read_exact(&mut first).await.unwrap();
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        first[0]
    });
    let (kind, refused, wait, text) = setback(Agent::builder(url, "a").token("token").build().unwrap()).await;
    assert_eq!((kind, refused), (ErrorKind::Tls, true), "{text}");
    assert!(wait >= Duration::from_secs(29), "{wait:?}");
    assert_eq!(hears.await.unwrap(), 22, "a TLS handshake, and nothing in the clear");
}

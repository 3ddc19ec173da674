//! Does any log show a secret, at any level, while an agent is refused, comes, is cut off and comes back? By itself,
//! since a subscriber is for a whole process.
#![cfg(all(feature = "server", feature = "agent"))]

#[path = "support/net.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod net;

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use net::Net;
use revdial::{
    agent::{Agent, AgentStatus},
    connman::ConnectionManager,
    server::{RevDialLayer, SharedBearer},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SECRET: &str = "marked-9f27c1-secret";
const WRONG: &str = "marked-77ab03-wrong";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(&mut *self.0.lock().unwrap(), bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn no_log_shows_a_token_while_an_agent_is_refused_cut_off_and_resumed() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .init();
    let connman = ConnectionManager::new();
    let service = RevDialLayer::new(connman.clone(), SharedBearer::new(SECRET).unwrap()).into_service();
    let net = Net::new(move |io| {
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(io), service).with_upgrades());
    });
    let agent = |token: &str| net.build(Agent::builder("http://gateway", "a").token(token));

    let refused = agent(WRONG);
    let mut status = refused.status();
    let refused = tokio::spawn(refused.listen().1);
    let told = status.wait_for(|status| matches!(status, AgentStatus::Refused { .. })).await.unwrap().clone();
    refused.abort();

    let agent = agent(SECRET);
    let shown = format!("{agent:?} {told:?} {connman:?}");
    let mut status = agent.status();
    let (mut listener, run) = agent.listen();
    let run = tokio::spawn(run);
    status.wait_for(AgentStatus::is_connected).await.unwrap();
    let (key, target) = ("a".parse().unwrap(), "".parse().unwrap());
    let (here, there) = tokio::join!(connman.dial(&key, &target), listener.accept());
    let (mut here, mut there) = (here.unwrap(), there.unwrap());
    AsyncWriteExt::write_all(&mut here, b"x").await.unwrap();
    assert_eq!(there.read_u8().await.unwrap(), b'x');
    net.cut();
    AsyncWriteExt::write_all(&mut here, b"y").await.unwrap();
    assert_eq!(there.read_u8().await.unwrap(), b'y');
    run.abort();
    let _ = run.await;

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for said in ["resumed=true", "tunnel resumed", "DEBUG"] {
        assert!(log.contains(said), "the log is of a resume, down to the details: no {said:?} in\n{log}");
    }
    for secret in [SECRET, WRONG, "9f27c1", "77ab03"] {
        assert!(!log.contains(secret) && !shown.contains(secret), "{secret} is shown");
    }
}

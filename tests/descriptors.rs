//! What happens in a process that has no file descriptor left. By itself, since the limit is that of a whole process.
#![cfg(all(unix, feature = "proxy", feature = "agent"))]

#[path = "support/counted.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod counted;
#[path = "support/net.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod net;
#[path = "support/told.rs"]
#[expect(dead_code, reason = "another test uses the rest")]
mod told;

use counted::Counted;
use net::{Net, TOKEN};
use revdial::{
    AgentKey, ErrorKind, TargetName,
    agent::{Agent, AgentStatus, ProxyChoice, Targets},
    connman::ConnectionManager,
    proxy::status_of,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use told::Told;
use tracing_subscriber::filter::LevelFilter;

#[tokio::test]
async fn b87_without_a_descriptor_a_dial_is_overloaded_and_the_next_one_with_one_is_not() {
    let (told, counted) = (Told::down_to(LevelFilter::INFO), Counted::new());
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let targets = Targets::parse([service.local_addr().unwrap().to_string()]).unwrap();
    let connman = ConnectionManager::new();
    let agent = Net::to(&connman).agent();
    let mut status = agent.status();
    let run = tokio::spawn(agent.forward(targets));
    status.wait_for(AgentStatus::is_connected).await.unwrap();
    let (key, target): (AgentKey, _) = ("a".parse().unwrap(), TargetName::default());
    told.lines();

    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..before }).unwrap();
    let mut errors = Vec::new();
    for _ in 0..20 {
        errors.push(connman.dial(&key, &target).await.unwrap_err());
    }
    // Nor has an agent one for its own link.
    let server = service.local_addr().unwrap();
    let agent = Agent::builder(format!("http://{server}"), "b").token(TOKEN).proxy(ProxyChoice::Direct);
    let agent = agent.build().unwrap();
    let mut stranded = agent.status();
    let (_listener, stranded_run) = agent.listen();
    let stranded_run = tokio::spawn(stranded_run);
    stranded.wait_for(|status| matches!(status, AgentStatus::Waiting { .. })).await.unwrap();
    stranded_run.abort();
    setrlimit(Resource::Nofile, before).unwrap();
    for error in errors {
        assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::Overloaded, true));
        assert_eq!(status_of(error.kind()), 503);
    }
    assert_eq!(counted.sum("revdial_fd_exhausted_total"), 21);
    assert_eq!(counted.sum("revdial_agent_connect_failures_total{handshake}"), 1);
    assert_eq!(counted.sum("revdial_dial_failures_total{overloaded}"), 20);
    let mut texts = told.texts();
    texts.retain(|text| text.contains("descriptor"));
    assert_eq!(texts, ["a connect failed, since there is no file descriptor left"], "once in ten seconds");

    connman.dial(&key, &target).await.unwrap();
    run.abort();
}

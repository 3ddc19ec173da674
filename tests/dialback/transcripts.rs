//! What the deployed peers said to each other is what ours say to them, and hear from them.

use std::time::Duration;

use revdial::{
    ErrorKind,
    agent::{Agent, AgentStatus},
};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};

use crate::{
    classic::{Peer, soon, wire::accept},
    net::Net,
    replay::{
        TOKEN, Timing,
        tape::{Tape, Way, What},
        to_agent::{self, Pieces, local_service},
        to_server,
    },
};

const ALL: [&str; 11] = [
    "agent_killed",
    "dials",
    "http",
    "http_rejects",
    "keepalive_40s",
    "local_refused",
    "pickup_failed",
    "plain_control_hijack",
    "reconnect",
    "server_killed",
    "server_tolerance",
];

#[test]
fn the_scripted_peer_reads_and_writes_what_was_recorded() {
    let mut grants = 0;
    for tape in ALL.map(Tape::load) {
        for conn in 1..10 {
            let mut key = None;
            for what in tape.of(conn) {
                match what {
                    What::Head(Way::ToServer, head) => key = head.get("Sec-WebSocket-Key"),
                    What::Head(Way::ToAgent, head) if head.status() == 101 => {
                        assert_eq!(head.get("Sec-WebSocket-Accept"), Some(accept(key.unwrap()).as_str()));
                        grants += 1;
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(grants > 15, "{grants}");
}

async fn to_server(name: &'static str, statuses: &[(usize, u16)]) {
    to_server::play(&Tape::load(name), statuses, Timing::Any).await;
}

#[tokio::test(start_paused = true)]
async fn our_server_asks_the_deployed_agent_for_connections() {
    to_server("dials", &[]).await;
}

#[tokio::test(start_paused = true)]
async fn our_server_sends_http_through_the_deployed_agent() {
    to_server("http", &[]).await;
}

/// 404 for a dialer that is not known, where the deployed server says 500.
#[tokio::test(start_paused = true)]
async fn our_server_hears_that_the_deployed_agent_failed() {
    to_server("pickup_failed", &[(3, 404)]).await;
}

#[tokio::test(start_paused = true)]
async fn our_server_takes_a_connection_that_ends_at_once_for_what_it_is() {
    to_server("local_refused", &[]).await;
}

#[tokio::test(start_paused = true)]
async fn our_server_keeps_dials_while_the_deployed_agent_is_away() {
    to_server("reconnect", &[]).await;
}

#[tokio::test(start_paused = true)]
async fn our_server_holds_the_key_of_a_deployed_agent_that_was_killed() {
    to_server("agent_killed", &[]).await;
}

#[tokio::test(start_paused = true)]
async fn our_server_when_killed_says_no_more_than_the_deployed_one() {
    to_server("server_killed", &[]).await;
}

#[tokio::test(start_paused = true)]
async fn our_server_keeps_alive_and_pings_when_the_deployed_one_does() {
    to_server::play(&Tape::load("keepalive_40s"), &[], Timing::Recorded).await;
}

#[tokio::test(start_paused = true)]
async fn our_server_refuses_what_the_deployed_one_does_by_statuses_of_its_own() {
    to_server("http_rejects", &[(1, 401), (2, 400), (3, 404), (4, 426), (5, 400)]).await;
}

#[tokio::test(start_paused = true)]
async fn our_server_takes_lines_made_by_hand_but_over_a_websocket_only() {
    for name in ["plain_control_hijack", "server_tolerance"] {
        let tape = Tape::load(name);
        let mut plain = tape.clone();
        let heads = tape.records.iter().filter(|record| matches!(record.what, What::Head(..)));
        plain.records = heads.cloned().collect();
        to_server::play(&plain, &[(1, 426)], Timing::Any).await;
        to_server::play(&tape.upgraded(), &[], Timing::Any).await;
    }
}

async fn to_agent(tape: &Tape) {
    to_agent_with(tape, &local_service(tape).await).await;
}

/// In less time than a stuck read has elsewhere, since not all of it is in paused time.
async fn to_agent_with(tape: &Tape, local: &str) {
    for pieces in [Pieces::Joined, Pieces::Apart] {
        let played = to_agent::play(tape, local, pieces, Timing::Any);
        timeout(Duration::from_secs(20), played).await.expect("it is stuck at the record that is printed last");
    }
}

#[tokio::test]
async fn our_agent_brings_connections_to_the_deployed_server() {
    to_agent(&Tape::load("dials")).await;
}

#[tokio::test]
async fn our_agent_serves_http_to_the_deployed_server() {
    to_agent(&Tape::load("http")).await;
}

#[tokio::test]
async fn our_agent_tells_the_deployed_server_that_it_failed() {
    to_agent(&Tape::load("pickup_failed")).await;
}

/// The deployed agent brings a connection that ends at once, so that its server learns nothing of why.
#[tokio::test]
async fn our_agent_tells_the_deployed_server_that_the_local_service_refused() {
    let tape = Tape::load("local_refused").refusing();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    to_agent_with(&tape, &nobody).await;
}

#[tokio::test]
async fn our_agent_comes_back_to_the_deployed_server() {
    to_agent(&Tape::load("reconnect")).await;
}

#[tokio::test(start_paused = true)]
async fn our_agent_tries_again_when_the_deployed_server_was_killed() {
    to_agent(&Tape::load("server_killed")).await;
}

#[tokio::test(start_paused = true)]
async fn our_agent_when_killed_says_no_more_than_the_deployed_one() {
    to_agent(&Tape::load("agent_killed")).await;
}

#[tokio::test(start_paused = true)]
async fn our_agent_pings_when_the_deployed_one_does_and_answers() {
    let tape = Tape::load("keepalive_40s");
    for pieces in [Pieces::Joined, Pieces::Apart] {
        to_agent::play(&tape, "127.0.0.1:1", pieces, Timing::Recorded).await;
    }
}

#[tokio::test(start_paused = true)]
async fn our_agent_understands_refusals_of_the_deployed_server() {
    let tape = Tape::load("http_rejects");
    for (conn, kind) in [(1, ErrorKind::Auth), (2, ErrorKind::Handshake), (3, ErrorKind::Handshake)] {
        let (there, mut incoming) = mpsc::unbounded_channel();
        let net = Net::new(move |io| drop(there.send(io)));
        let agent = net.build(Agent::builder("http://gateway", "r1").token(TOKEN));
        let mut status = agent.status();
        let (_listener, run) = agent.listen();
        let run = tokio::spawn(run);
        let (mut peer, _) = Peer::asked(soon(incoming.recv()).await.unwrap()).await;
        for what in tape.of(conn) {
            match what {
                What::Head(Way::ToAgent, head) => peer.write(&head.encode()).await,
                What::Body(Way::ToAgent, body) => peer.write(body).await,
                _ => {}
            }
        }
        let is_setback =
            |status: &AgentStatus| matches!(status, AgentStatus::Refused { .. } | AgentStatus::Waiting { .. });
        match &*soon(status.wait_for(is_setback)).await.unwrap() {
            AgentStatus::Refused { cause, .. } | AgentStatus::Waiting { cause, .. } => assert_eq!(*cause, kind),
            other => panic!("{other:?}"),
        }
        run.abort();
    }
}

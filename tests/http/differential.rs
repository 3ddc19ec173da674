//! The same talk direct to an origin, and through a host, a tunnel and an agent to the same: both sides see the same.

use std::{future::ready, net::SocketAddr, time::Duration};

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestCaseError, TestRng, TestRunner},
};
use revdial::agent::Targets;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
    time::timeout,
};

use super::{
    caller::{self, Answered},
    generated::Talk,
    origin::{Origin, Seen},
    support::{agent, forwarding_agent, host, manager, serve_streams},
};

/// Talks in one run.
const CASES: u32 = 300;

/// What is only between two neighbours, or is the host's own.
const HOP_BY_HOP: [&str; 5] =
    ["connection", "keep-alive", "transfer-encoding", "x-forwarded-host", "x-forwarded-proto"];

/// What each side saw.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Talked {
    answers: Vec<Answered>,
    seen: Vec<Seen>,
}

#[test]
fn b80_generated_talks_through_a_tunnel_are_as_direct() {
    prop(CASES, |talk| {
        let (direct, tunnelled) = on_virtual_time(async { (direct(&talk).await, tunnelled(&talk).await) });
        compare(direct, tunnelled)
    });
}

/// With a local port as the service, where each kind of end is TCP's.
#[test]
fn b80_generated_talks_to_a_forwarded_port_are_as_direct() {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    prop(CASES / 6, |talk| {
        let both = async { (direct_to_port(&talk).await, forwarded(&talk).await) };
        let limited = async { timeout(Duration::from_secs(60), both).await.expect("a talk that hangs") };
        let (direct, forwarded) = runtime.block_on(limited);
        compare(direct, forwarded)
    });
}

/// Draws talks from a seed, another one in each run; a failure tells it, and `REVDIAL_HTTP_SEED` plays it again.
pub(crate) fn prop(cases: u32, test: impl Fn(Talk) -> Result<(), TestCaseError>) {
    let seed =
        std::env::var("REVDIAL_HTTP_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().expect("a number"));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&u64::to_le_bytes(seed));
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    if let Err(failure) = runner.run(&Talk::any(), test) {
        panic!("REVDIAL_HTTP_SEED={seed}: {failure}");
    }
}

pub(crate) fn on_virtual_time<F: Future>(test: F) -> F::Output {
    let runtime = runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let limited = async { timeout(Duration::from_secs(600), test).await.expect("a talk that hangs") };
    runtime.block_on(limited)
}

async fn direct(talk: &Talk) -> Talked {
    let origin = Origin::new(talk);
    let talked = caller::talk(talk, || {
        let (near, far) = tokio::io::duplex(256 * 1024);
        tokio::spawn(origin.clone().serve(far));
        ready(near)
    });
    let (answers, _open) = talked.await;
    Talked { answers, seen: origin.seen().await }
}

async fn tunnelled(talk: &Talk) -> Talked {
    let origin = Origin::new(talk);
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    let served = origin.clone();
    serve_streams(listener, move |stream| {
        let served = served.clone();
        async move { drop(served.serve(stream).await) }
    });
    let proxy = builder.build();
    let talked = caller::talk(talk, || ready(host(&proxy)));
    let (answers, _open) = talked.await;
    Talked { answers, seen: origin.seen().await }
}

/// Has an origin listen on a port.
async fn listen(origin: &Origin) -> SocketAddr {
    let (port, origin) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), origin.clone());
    let addr = port.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = port.accept().await {
            socket.set_nodelay(true).unwrap();
            tokio::spawn(origin.clone().serve(socket));
        }
    });
    addr
}

async fn direct_to_port(talk: &Talk) -> Talked {
    let origin = Origin::new(talk);
    let addr = listen(&origin).await;
    let talked = caller::talk(talk, || async { TcpStream::connect(addr).await.unwrap() });
    let (answers, _open) = talked.await;
    Talked { answers, seen: origin.seen().await }
}

async fn forwarded(talk: &Talk) -> Talked {
    let origin = Origin::new(talk);
    let (connman, builder) = manager();
    let targets = Targets::parse([listen(&origin).await.to_string()]).unwrap();
    let _agent = forwarding_agent(&connman, targets).await;
    let proxy = builder.build();
    let talked = caller::talk(talk, || ready(host(&proxy)));
    let (answers, _open) = talked.await;
    Talked { answers, seen: origin.seen().await }
}

fn compare(mut direct: Talked, mut tunnelled: Talked) -> Result<(), TestCaseError> {
    for (direct, tunnelled) in direct.answers.iter_mut().zip(&mut tunnelled.answers) {
        // A host of hyper's has no way to pass on what is not a 100.
        direct.informational.retain(|head| head.status() == 100);
        if let (Some(direct), Some(tunnelled)) = (&direct.head, &mut tunnelled.head)
            && direct.field("date").is_none()
        {
            tunnelled.fields.retain(|field| field.0 != "date");
        }
    }
    for talked in [&mut direct, &mut tunnelled] {
        for answer in &mut talked.answers {
            if let Some(head) = &mut answer.head {
                end_to_end(&mut head.fields);
                // After a HEAD hyper's server announces none.
                head.fields.retain(|field| field.0 != "trailer" || !answer.content.trailers.is_empty());
            }
            end_to_end(&mut answer.content.trailers);
        }
        for seen in &mut talked.seen {
            end_to_end(&mut seen.head.fields);
            end_to_end(&mut seen.content.trailers);
        }
    }
    prop_assert_eq!(direct.seen.len(), tunnelled.seen.len());
    for (direct, tunnelled) in direct.answers.iter().zip(&tunnelled.answers) {
        prop_assert_eq!(direct, tunnelled);
    }
    for (direct, tunnelled) in direct.seen.iter().zip(&tunnelled.seen) {
        prop_assert_eq!(direct, tunnelled);
    }
    Ok(())
}

/// Leaves what goes from end to end, sorted, since only the order of fields of one name means something.
fn end_to_end(fields: &mut Vec<(String, String)>) {
    fields.retain(|field| !HOP_BY_HOP.contains(&&*field.0));
    fields.sort_by(|one, other| one.0.cmp(&other.0));
}

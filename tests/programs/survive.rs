//! Streams between processes survive what happens between them: resets, closes, and lines that fall silent.

use futures_util::{SinkExt, StreamExt};
use http::{Method, StatusCode, header};
use http_body_util::BodyExt;
use tokio::time::{Duration, Instant, timeout};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use crate::{
    Gateway, TOKEN,
    chaos::Chaos,
    load::{check, load},
    plan::{Cut, How, Plan, Way},
    process::{DEADLINE, Program},
    service::Service,
    state, text,
};

/// How much goes each way, and how often the link breaks meanwhile: with `REVDIAL_KILL=full` in the environment, 1 GiB
/// and 1,000 times.
fn scale() -> (usize, u64) {
    match std::env::var("REVDIAL_KILL").as_deref() {
        Ok("full") => (1 << 30, 1_000),
        Ok(other) => panic!("REVDIAL_KILL={other}: it may be full"),
        Err(_) if cfg!(debug_assertions) => (8 << 20, 20),
        Err(_) => (128 << 20, 100),
    }
}

/// No transfer takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The cuts are always the same; what they hit is not. Not many of these in a row let nothing through: the agent backs
/// off as it does for everybody.
const SEED: u64 = 20;

/// For lines that fall silent, and the longest pause that they may make: the dead-peer time, and a second for a new link.
const SHORT: &str = "--ping-interval 500ms --dead-after 2s";
const PAUSE: Duration = Duration::from_secs(3);

/// A gateway and an agent `a` of a service, each a process, and what breaks their links.
struct Apart {
    gateway: Gateway,
    _agent: Program,
    chaos: Chaos,
}

impl Apart {
    async fn new<P>(plan: P, flags: &str) -> Self
    where
        P: IntoIterator<Item = Cut, IntoIter: Send + 'static>,
    {
        let (gateway, service) = (Gateway::with(flags).await, Service::new().await);
        let chaos = Chaos::start(gateway.addr, plan).await;
        let (server, forward) = (chaos.addr, service.addr);
        let agent = format!("agent --server http://{server} --key a --token {TOKEN} --forward {forward} {flags}");
        let agent = Program::start(&agent);
        gateway.until(|stats| state(stats, "a") == Some("connected")).await;
        Self { gateway, _agent: agent, chaos }
    }

    /// Asserts that so many links broke and that the agent is back, its session the first one.
    async fn assert_survived(&self, cuts: u64) {
        assert_eq!(self.chaos.counts().cuts, cuts);
        let stats = self.gateway.until(|stats| state(stats, "a") == Some("connected")).await;
        assert_eq!(stats["agents"].as_array().map(Vec::len), Some(1), "{stats}");
        let (_, metrics) = self.gateway.text("/metrics").await;
        for line in metrics.lines().filter(|line| line.starts_with("revdial_duplicate_messages_total")) {
            assert!(line.ends_with(" 0"), "{line}");
        }
        assert!(!metrics.contains("revdial_protocol_errors_total{"), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_survives_resets_and_closes_between_the_programs() {
    let (bytes, cuts) = scale();
    let apart = Apart::new(Plan::new(SEED, cuts, Way::ToServer, bytes as u64), "").await;
    let body = apart.gateway.get(&format!("/proxy/a/down/{bytes}")).await.into_body();
    assert_eq!(timeout(PATIENCE, check(body)).await, Ok(Ok(bytes)));
    apart.assert_survived(cuts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_survives_resets_and_closes_between_the_programs() {
    let (bytes, cuts) = scale();
    let apart = Apart::new(Plan::new(SEED, cuts, Way::ToAgent, bytes as u64), "").await;
    let request = apart.gateway.build(Method::POST, "/proxy/a/up").header(header::CONTENT_LENGTH, bytes);
    let answer = timeout(PATIENCE, apart.gateway.client.request(request.body(load(bytes)).unwrap())).await;
    let answer = text(answer.expect("in time").expect("an answer")).await;
    assert_eq!(answer, (StatusCode::OK, bytes.to_string()));
    apart.assert_survived(cuts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_survives_lines_that_fall_silent_with_short_pauses() {
    const BYTES: usize = 8 << 20;
    let ways = [Way::ToServer, Way::ToAgent, Way::Both];
    let silences = ways.map(|way| Cut { after_bytes: 1 << 20, way: Way::ToServer, how: How::Silence(way) });
    let apart = Apart::new(silences, SHORT).await;
    let body = apart.gateway.get(&format!("/proxy/a/down/{BYTES}")).await.into_body();
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    let body = body.map_frame(|frame| {
        longest = longest.max(last.elapsed());
        last = Instant::now();
        frame
    });
    assert_eq!(timeout(PATIENCE, check(body)).await, Ok(Ok(BYTES)));
    assert!(longest < PAUSE, "{longest:?}");
    apart.assert_survived(3).await;
}

#[tokio::test]
async fn a_viewer_of_a_sandbox_misses_no_frame_across_cuts() {
    let gateway = Gateway::new().await;
    let chaos = Chaos::start(gateway.addr, None).await;
    let _sandbox = Program::start(&format!("sandbox --server http://{} --key a --token {TOKEN}", chaos.addr));
    gateway.until(|stats| state(stats, "a") == Some("connected")).await;
    let (mut viewer, _) = connect_async(format!("ws://{}/proxy/a/ws/stream", gateway.addr)).await.unwrap();
    let mut frames = 0;
    for (cut, how) in (1..).zip([How::Reset, How::Close, How::Reset]) {
        let word = format!("word {cut}");
        viewer.send(Message::text(word.clone())).await.unwrap();
        chaos.cut_now(how);
        chaos.until(|counts| counts.cuts == cut).await;
        loop {
            let heard = timeout(DEADLINE, viewer.next()).await.expect("a frame").expect("no end").expect("no error");
            let heard = heard.to_text().unwrap();
            if heard == word {
                break;
            }
            assert_eq!(heard, format!("frame {frames}"));
            frames += 1;
        }
    }
}

#[tokio::test]
async fn the_example_says_what_it_cut_and_that_nothing_was_lost() {
    let ended = Program::run("survive", &[]).await;
    assert!(ended.status.success(), "{ended:?}");
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert_eq!(lines.iter().filter(|line| line.starts_with("cut ")).count(), 20, "{ended:?}");
    let [.., sent, received] = lines[..] else { panic!("{ended:?}") };
    assert_eq!(sent.trim_start_matches("sent").trim(), received.trim_start_matches("received").trim());
}

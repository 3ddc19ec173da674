//! The gateway's status page in a real browser, with gateway and sandboxes as processes of their own.
//!
//! `tests/browser/run` installs what it wants and runs it. The browser's side is in `status.mjs`, which looks at the page
//! and says on its output what is to happen next to whom; it is done here, and answered by a line on its input.

#[path = "../support/chaos.rs"]
#[expect(dead_code, reason = "the kill tests use the rest")]
mod chaos;
mod crowd;
mod hostile;
mod hung;
#[path = "../support/plan.rs"]
#[expect(dead_code, reason = "the kill tests use the rest")]
mod plan;
#[path = "../support/process.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod process;

use std::{net::SocketAddr, process::Stdio, time::Duration};

use chaos::Chaos;
use hung::Hung;
use plan::How;
use process::Program;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
    time::timeout,
};

/// What agents show, and callers where they have to show something.
const TOKEN: &str = "agents-secret";
const CALLER_TOKEN: &str = "callers-secret";

/// The whole of it takes less, on any machine; each step in the browser has a deadline of its own.
const DEADLINE: Duration = Duration::from_secs(180);

struct Fleet {
    addr: SocketAddr,
    /// What lies between the gateway and `desktop-ada`.
    between: Chaos,
    gateway: Program,
    sandboxes: Vec<(String, Program)>,
    guarded: Option<(Program, SocketAddr)>,
    hung: Hung,
}

impl Fleet {
    async fn new() -> Self {
        let (gateway, addr) = gateway("127.0.0.1:0", "--domain localhost").await;
        let between = Chaos::start(addr, None).await;
        let mut fleet = Self { addr, between, gateway, sandboxes: Vec::new(), guarded: None, hung: Hung::default() };
        for name in ["desktop-ada", "desktop-bob"] {
            fleet.start(name).await;
        }
        fleet
    }

    async fn start(&mut self, key: &str) {
        let server = if key == "desktop-ada" { self.between.addr } else { self.addr };
        self.start_at(server, key).await;
    }

    async fn start_at(&mut self, server: SocketAddr, key: &str) {
        let sandbox = Program::start(&format!("sandbox --server http://{server} --key {key} --token {TOKEN}"));
        sandbox.logs("connected").await;
        self.sandboxes.push((key.to_owned(), sandbox));
    }

    /// Does what the browser's side asks for; the answer.
    async fn act(&mut self, order: &[&str]) -> String {
        match order {
            ["kill", key] => {
                let place = self.sandboxes.iter().position(|(name, _)| name == key).expect("a sandbox that runs");
                self.sandboxes.swap_remove(place).1.kill().await;
            }
            ["cut"] => {
                self.between.down(true);
                self.between.cut_now(How::Reset);
            }
            ["mend"] => self.between.down(false),
            ["start", key] => self.start(key).await,
            ["crowd"] => crowd::start(self.addr).await,
            ["hostile"] => hostile::start(self.addr).await,
            ["restart"] => {
                self.gateway.kill().await;
                self.gateway = gateway(&self.addr.to_string(), "--domain localhost").await.0;
            }
            ["guarded"] => {
                let flags = format!("--domain localhost --caller-token {CALLER_TOKEN}");
                let (program, addr) = gateway("127.0.0.1:0", &flags).await;
                self.guarded = Some((program, addr));
                return addr.port().to_string();
            }
            ["hang"] => self.hung.start(self.guarded()).await,
            ["late"] => {
                self.hung.asked().await;
                self.start_at(self.guarded(), "desktop-eve").await;
            }
            _ => panic!("the browser's side asks for {order:?}"),
        }
        "done".to_owned()
    }

    fn guarded(&self) -> SocketAddr {
        self.guarded.as_ref().expect("it was asked for").1
    }
}

async fn gateway(listen: &str, flags: &str) -> (Program, SocketAddr) {
    let mut program = Program::start(&format!("gateway --listen {listen} --token {TOKEN} {flags}"));
    let line = program.line().await;
    let addr = line.strip_prefix("listening on http://").expect("where it listens").parse().expect("an address");
    (program, addr)
}

#[tokio::test]
#[ignore = "wants chromium and node: tests/browser/run has them"]
async fn the_status_page_is_live_and_shows_what_becomes_of_sandboxes() {
    let folder = tempfile::tempdir().unwrap();
    let picture =
        std::env::var("STATUS_PICTURE").unwrap_or_else(|_| folder.path().join("status.png").display().to_string());
    let mut fleet = Fleet::new().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/status.mjs");
    let mut browser = Command::new("node");
    browser.args([script, &fleet.addr.port().to_string(), CALLER_TOKEN, &picture]);
    browser.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut browser = browser.spawn().expect("node runs");
    let (mut answers, orders) = (browser.stdin.take().unwrap(), browser.stdout.take().unwrap());
    let all = async {
        let mut orders = BufReader::new(orders).lines();
        while let Some(line) = orders.next_line().await.expect("text") {
            println!("{line}");
            if let Some(order) = line.strip_prefix("do ") {
                let answer = fleet.act(&order.split(' ').collect::<Vec<_>>()).await;
                answers.write_all(format!("{answer}\n").as_bytes()).await.expect("it listens");
            }
        }
        browser.wait().await.expect("a child of this process")
    };
    let status = timeout(DEADLINE, all).await.expect("in time");
    assert!(status.success(), "the browser's side says what is wrong: {status}");
}

//! A server that has no file descriptors left: this test's program, started again with few of them.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use hyper::{client, server::conn::http1};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use revdial::{connman::ConnectionManager, frame::Frame};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{ChildStdout, Command},
    time::timeout,
};

use crate::{
    URI, full, granted, layer,
    raw::{Arrived, RawAgent, hello},
};

const NAME: &str = "descriptors::b87_without_descriptors_open_tunnels_go_on_and_others_are_opened_afterwards";

/// Set where the program is to be the server.
const SERVER: &str = "REVDIAL_TEST_SERVER";

const DEADLINE: Duration = Duration::from_secs(20);

/// Serves until it is killed.
async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("\naddress {}", listener.local_addr().unwrap());
    let service = layer(&ConnectionManager::new()).into_service();
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let service = TowerToHyperService::new(service.clone());
                let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                tokio::spawn(connection.with_upgrades());
            }
            Err(error) => {
                println!("exhausted {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// What follows this word in a line of the server's.
async fn told(lines: &mut Lines<BufReader<ChildStdout>>, word: &str) -> String {
    let told = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the server lives");
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    };
    timeout(DEADLINE, told).await.unwrap()
}

async fn open(addr: SocketAddr, instance: u8) -> RawAgent {
    let socket = TcpStream::connect(addr).await.unwrap();
    let (mut send, connection) = client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let response = send.send_request(full(granted(URI))).await.unwrap();
    let mut agent = RawAgent::over(hyper::upgrade::on(response).await.unwrap()).await;
    agent.greet(hello(instance)).await;
    agent
}

async fn answers(agent: &mut RawAgent) {
    agent.send(Frame::Ping([7; 8])).await;
    assert!(matches!(timeout(DEADLINE, agent.recv()).await.unwrap(), Arrived::Frames(..)));
}

#[tokio::test]
async fn b87_without_descriptors_open_tunnels_go_on_and_others_are_opened_afterwards() {
    if std::env::var_os(SERVER).is_some() {
        serve().await;
    }
    let mut server = Command::new("sh")
        .args(["-c", "ulimit -n 40; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(SERVER, "1")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let addr = told(&mut lines, "address").await.parse().unwrap();
    let mut agent = open(addr, 1).await;
    let mut others = Vec::new();
    for _ in 0..60 {
        others.push(TcpStream::connect(addr).await.unwrap());
    }
    told(&mut lines, "exhausted").await;
    answers(&mut agent).await;
    drop(others);
    let mut next = timeout(DEADLINE, open(addr, 2)).await.unwrap();
    answers(&mut next).await;
    server.kill().await.unwrap();
}

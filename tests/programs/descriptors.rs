//! A gateway that has no file descriptor left, and an agent that tells what it counts.

use axum::body::Body;
use http::Request;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{Gateway, process::DEADLINE, service::Service, text};

#[tokio::test]
async fn b87_a_gateway_without_a_descriptor_says_so_serves_whom_it_has_and_accepts_again_with_one() {
    let (gateway, service) = (Gateway::new().await, Service::new().await);
    let _agent = gateway.connected("a", &format!("--forward {}", service.addr)).await;
    let gateway_process = Pid::from_raw(i32::try_from(gateway.program.id()).unwrap());
    // It has inherited this.
    let before = getrlimit(Resource::Nofile);
    prlimit(gateway_process, Resource::Nofile, Rlimit { current: Some(0), ..before }).unwrap();

    let mut newcomer = TcpStream::connect(gateway.addr).await.unwrap();
    newcomer.write_all(b"GET /healthz HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n").await.unwrap();
    gateway.program.logs("accept error").await;
    assert_eq!(gateway.text("/proxy/a/").await.0, 200, "by connections that it has");

    prlimit(gateway_process, Resource::Nofile, before).unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, newcomer.read_to_string(&mut answer)).await.expect("it is accepted").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn an_agent_tells_what_it_counts_where_it_is_told_to() {
    let (gateway, service) = (Gateway::new().await, Service::new().await);
    let agent = gateway.agent("a", &format!("--forward {} --metrics-listen 127.0.0.1:0", service.addr));
    let line = agent.logs("metrics are at ").await;
    let (_, url) = line.split_once("metrics are at ").unwrap();
    agent.logs("connected").await;
    let (status, told) = text(gateway.request(Request::get(url).body(Body::empty()).unwrap()).await).await;
    assert_eq!(status, 200);
    for name in
        ["revdial_fd_exhausted_total 0\n", "revdial_path_rejected_total 0\n", "process_open_fds ", "process_max_fds "]
    {
        assert!(told.contains(&format!("\n{name}")), "no {name:?} in:\n{told}");
    }
    assert!(!told.contains("revdial_active_connections "), "that is a gateway's:\n{told}");
}

//! The programs in the dial-back protocol, as with agents that are not replaced yet.

use std::net::TcpListener;

use futures_util::{SinkExt, StreamExt, future::join_all};
use http::{Method, StatusCode};
use tokio::time::timeout;
use tokio_tungstenite::{accept_async, connect_async, tungstenite::Message};

use crate::{
    Gateway,
    load::{check, load},
    process::DEADLINE,
    service::{LOAD, Service},
    state, text,
};

const DIALBACK: &str = "--protocol dialback";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_arrive_byte_for_byte_down_and_up_and_websockets_pass() {
    let (gateway, service) = (Gateway::new().await, Service::new().await);
    let _agent = gateway.connected("a", &format!("{DIALBACK} --forward {}", service.addr)).await;
    assert_eq!(gateway.stats().await["agents"][0]["protocol"], "dial-back");
    let down = gateway.get(&format!("/proxy/a/down/{LOAD}")).await;
    assert_eq!(timeout(DEADLINE, check(down.into_body())).await, Ok(Ok(LOAD)));
    let up = gateway.build(Method::POST, "/proxy/a/up").body(load(LOAD)).unwrap();
    assert_eq!(text(gateway.request(up).await).await, (StatusCode::OK, LOAD.to_string()));

    let echo = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _agent = gateway.connected("w", &format!("{DIALBACK} --forward {}", echo.local_addr().unwrap())).await;
    tokio::spawn(async move {
        let mut socket = accept_async(echo.accept().await.unwrap().0).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            socket.send(message).await.unwrap();
        }
    });
    let (mut socket, _) = connect_async(format!("ws://{}/proxy/w/", gateway.addr)).await.unwrap();
    socket.send(Message::text("there")).await.unwrap();
    assert_eq!(timeout(DEADLINE, socket.next()).await.unwrap().unwrap().unwrap(), Message::text("there"));
}

#[tokio::test]
async fn requests_wait_for_an_agent_that_was_killed_and_what_cannot_be_reached_is_answered_by_why() {
    let (gateway, service) = (Gateway::new().await, Service::new().await);
    let mut agent = gateway.connected("a", &format!("{DIALBACK} --forward {}", service.addr)).await;
    assert_eq!(gateway.text("/proxy/a/").await.0, 200);
    agent.kill().await;
    gateway.until(|stats| state(stats, "a") == Some("grace")).await;
    let requests = join_all((0..5).map(|_| gateway.text("/proxy/a/")));
    let returned = async {
        gateway.until(|stats| stats["pending_dials_total"] == 5).await;
        gateway.agent("a", &format!("{DIALBACK} --forward {}", service.addr))
    };
    let (answers, _agent) = tokio::join!(requests, returned);
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");

    let nobody_listens = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _refusing = gateway.connected("b", &format!("{DIALBACK} --forward {nobody_listens}")).await;
    for (path, kind) in [("/proxy/b/", "target_refused"), ("/proxy/vnc~a/", "target_unknown")] {
        let (status, said) = gateway.text(path).await;
        assert_eq!((status.as_u16(), said.as_str()), (502, kind), "{path}");
    }
}

#[tokio::test]
async fn an_agent_moves_over_to_the_native_protocol_under_its_key() {
    let (gateway, service) = (Gateway::new().await, Service::new().await);
    let mut earlier = gateway.connected("a", &format!("{DIALBACK} --forward {}", service.addr)).await;
    let _later = gateway.agent("a", &format!("--forward {}", service.addr));
    gateway.until(|stats| stats["agents"][0]["protocol"] == "revdial.v1").await;
    assert!(!earlier.ended().await.success());
    earlier.logs("another agent has taken the key").await;
    assert_eq!(gateway.text("/proxy/a/").await.0, 200);
}

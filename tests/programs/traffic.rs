//! What goes through gateway and agent: bytes, names, paths, and the answers when there is no way.

use std::net::TcpListener;

use axum::body::Body;
use http::{Method, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    Gateway,
    load::{check, load},
    process::DEADLINE,
    service::{LOAD, Service, serve_unix},
    text,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_arrive_byte_for_byte_down_and_up() {
    let (gateway, service) = (Gateway::new().await, Service::new().await);
    let _agent = gateway.connected("a", &format!("--forward {}", service.addr)).await;
    let down = gateway.get(&format!("/proxy/a/down/{LOAD}")).await;
    assert_eq!(timeout(DEADLINE, check(down.into_body())).await, Ok(Ok(LOAD)));
    // Chunked, and with its length said before.
    for length in [None, Some(LOAD)] {
        let mut up = gateway.build(Method::POST, "/proxy/a/up");
        if let Some(length) = length {
            up = up.header(header::CONTENT_LENGTH, length);
        }
        let answer = text(gateway.request(up.body(load(LOAD)).unwrap()).await).await;
        assert_eq!(answer, (StatusCode::OK, LOAD.to_string()));
    }
}

#[tokio::test]
async fn targets_are_tcp_or_unix_and_have_names() {
    let (gateway, one, two) = (Gateway::new().await, Service::new().await, Service::new().await);
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("service.sock");
    serve_unix(&socket);
    let forwards =
        format!("--forward {} --forward two={} --forward un-1=unix://{}", one.addr, two.addr, socket.display());
    let _agent = gateway.connected("a", &forwards).await;
    for name in ["a", "two~a", "un-1~a", "A"] {
        let (status, _) = gateway.text(&format!("/proxy/{name}/")).await;
        assert_eq!(status, 200, "{name}");
    }
    let down = gateway.get("/proxy/un-1~a/down/1000000").await;
    assert_eq!(check(down.into_body()).await, Ok(1_000_000));
}

#[tokio::test]
async fn what_cannot_be_reached_is_answered_by_why() {
    let gateway = Gateway::new().await;
    let nobody_listens = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _agent = gateway.connected("a", &format!("--forward refused={nobody_listens}")).await;
    for (name, status, kind, retry) in [
        ("a", 502, "target_unknown", false),
        ("nope~a", 502, "target_unknown", false),
        ("refused~a", 502, "target_refused", false),
        ("nobody", 503, "no_connection", true),
        ("_a", 400, "", false),
        ("~a~", 400, "", false),
    ] {
        let answer = gateway.get(&format!("/proxy/{name}/")).await;
        assert_eq!(answer.headers().contains_key(header::RETRY_AFTER), retry, "{name}");
        let (got, said) = text(answer).await;
        assert_eq!((got.as_u16(), said.as_str()), (status, kind), "{name}");
    }
}

#[tokio::test]
async fn paths_and_queries_pass_as_they_came() {
    let (gateway, service) = (Gateway::new().await, Service::new().await);
    let _agent = gateway.connected("a", &format!("--forward {}", service.addr)).await;
    for (sent, seen) in [
        ("/a%20b?x=%2f", "/a%20b?x=%2f"),
        ("//x", "//x"),
        ("", "/"),
        ("/", "/"),
        ("?q=1", "/?q=1"),
        ("/?", "/?"),
        ("/proxy/a/b", "/proxy/a/b"),
        ("/a/../b/./c", "/a/../b/./c"),
        ("/%2e%2e/~x;y=1,2", "/%2e%2e/~x;y=1,2"),
    ] {
        let (status, text) = gateway.text(&format!("/proxy/a{sent}")).await;
        assert_eq!(status, 200, "{sent}");
        let mirror: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(mirror["target"], seen, "{sent}");
        assert_eq!(mirror["headers"]["host"], gateway.addr.to_string());
        assert_eq!(mirror["headers"]["x-forwarded-for"], "127.0.0.1");
    }
}

#[tokio::test]
async fn a_request_that_names_another_host_than_its_header_goes_nowhere() {
    let (gateway, service) = (Gateway::new().await, Service::new().await);
    let _agent = gateway.connected("a", &format!("--forward {}", service.addr)).await;
    for (host, status) in [("here", 200), ("elsewhere", 400)] {
        let answer = gateway.raw(&format!("GET http://{host}/proxy/a/ HTTP/1.1\r\nhost: here\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{host}: {answer}");
    }
}

#[tokio::test]
async fn a_caller_that_leaves_is_noticed_by_the_service() {
    let (gateway, mut service) = (Gateway::new().await, Service::new().await);
    let _agent = gateway.connected("a", &format!("--forward {}", service.addr)).await;
    let mut body = gateway.get("/proxy/a/hold").await.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "begun");
    assert_eq!(service.held.recv().await, Some("begun"));
    drop(body);
    assert_eq!(timeout(DEADLINE, service.held.recv()).await, Ok(Some("given up")));
    gateway.until(|stats| stats["streams"] == 0).await;
}

#[tokio::test]
async fn many_at_once_all_get_their_own() {
    let (gateway, service) = (Gateway::new().await, Service::new().await);
    let _agent = gateway.connected("a", &format!("--forward {}", service.addr)).await;
    let requests = (0..50).map(async |n| {
        let length = 100_000 + n;
        let body = gateway.get(&format!("/proxy/a/down/{length}")).await.into_body();
        assert_eq!(check(body).await, Ok(length));
    });
    timeout(DEADLINE, futures_util::future::join_all(requests)).await.expect("all of them");
}

#[tokio::test]
async fn heads_have_no_bodies_and_uploads_without_any_pass() {
    let (gateway, service) = (Gateway::new().await, Service::new().await);
    let _agent = gateway.connected("a", &format!("--forward {}", service.addr)).await;
    let head = gateway.build(Method::HEAD, "/proxy/a/").body(Body::empty()).unwrap();
    let (status, body) = text(gateway.request(head).await).await;
    assert_eq!((status.as_u16(), body.as_str()), (200, ""));
    for method in [Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
        let request = gateway.build(method.clone(), "/proxy/a/").body(Body::empty()).unwrap();
        let (_, seen) = text(gateway.request(request).await).await;
        assert_eq!(serde_json::from_str::<Value>(&seen).unwrap()["method"], method.as_str());
    }
}

//! What a sandbox may say of cookies: those of its own host, and nothing of the gateway's or of other sandboxes.

use std::{convert::Infallible, net::SocketAddr};

use axum::{Router, extract::Request, http::header, response::Response};
use tokio::net::TcpListener;

use crate::{Gateway, domain::exchange};

/// A service that says all that it should not, and in a header what cookies it was shown.
async fn ill_meaning() -> SocketAddr {
    let answer = |request: Request| async move {
        let mut answer = Response::builder();
        for cookie in [
            "own=1; Path=/; HttpOnly",
            "wide=1; Domain=tunnels.example; Path=/",
            "wider=1;DOMAIN = .tunnels.example;domain=example;Secure",
            "revdial_gateway=taken; Path=/",
            " revdial_gateway =taken",
            "=revdial_gateway=taken",
            "__Host-revdial_gateway=taken; Secure; Path=/",
        ] {
            answer = answer.header(header::SET_COOKIE, cookie);
        }
        for (name, value) in [
            ("clear-site-data", "\"*\""),
            ("strict-transport-security", "max-age=9"),
            ("alt-svc", "h2=\":1\""),
            ("nel", "{}"),
            ("report-to", "{}"),
        ] {
            answer = answer.header(name, value);
        }
        for cookies in request.headers().get_all(header::COOKIE) {
            answer = answer.header("x-shown", cookies);
        }
        Ok::<_, Infallible>(answer.body(axum::body::Body::from("said")).unwrap())
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
    addr
}

/// The values of a header of an answer.
fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    head.lines().filter_map(|line| line.split_once(": ")).filter(|line| line.0 == name).map(|line| line.1).collect()
}

#[tokio::test]
async fn a_sandbox_sets_cookies_of_its_own_host_and_none_of_the_gateways() {
    let gateway = Gateway::with("--domain tunnels.example").await;
    let _agent = gateway.connected("a", &format!("--forward {}", ill_meaning().await)).await;
    for (host, path, is_shared) in [("a.tunnels.example", "/", false), ("gateway", "/proxy/a/", true)] {
        let (head, body) = exchange(gateway.addr, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n")).await;
        assert_eq!(body, "said", "{head}");
        let set = ["own=1; path=/; httponly", "wide=1; path=/", "wider=1;secure"];
        assert_eq!(values(&head, "set-cookie"), set, "{host}");
        assert!(!head.contains("clear-site-data"), "{head}");
        for name in ["strict-transport-security", "alt-svc", "nel", "report-to"] {
            assert_eq!(values(&head, name).is_empty(), is_shared, "{host}: {name}");
        }
    }
}

#[tokio::test]
async fn no_sandbox_is_shown_the_gateways_cookie_and_each_is_shown_its_own() {
    let gateway = Gateway::with("--domain tunnels.example").await;
    let _agent = gateway.connected("a", &format!("--forward {}", ill_meaning().await)).await;
    let cookies = "cookie: mine=1; revdial_gateway=x; b=revdial_gateway=y\r\ncookie: __Host-revdial_gateway=z; c\r\n";
    for (host, path) in [("a.tunnels.example", "/"), ("gateway", "/proxy/a/")] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{cookies}");
        let (head, _) = exchange(gateway.addr, &request).await;
        assert_eq!(values(&head, "x-shown"), ["mine=1; b=revdial_gateway=y; c"], "{head}");
    }
}

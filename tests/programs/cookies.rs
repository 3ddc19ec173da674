//! What a sandbox may say of cookies: those of its own host, and nothing of the gateway's or of other sandboxes. And what
//! the gateway's is good for.

use std::{convert::Infallible, net::SocketAddr};

use axum::{Router, extract::Request, http::header, response::Response};
use tokio::net::TcpListener;

use crate::{
    Gateway,
    domain::{exchange, get, login},
};

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

/// What the form's answer sets, as a browser shows it; `from` is where the form's page is.
async fn cookie(gateway: &Gateway, from: &str) -> String {
    let answer = login(gateway, "gateway", "callers-secret", &format!("origin: {from}\r\n")).await;
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    cookie.split_once(';').expect("attributes").0.to_owned()
}

#[tokio::test]
async fn by_https_no_cookie_counts_that_another_host_could_have_set() {
    let gateway = Gateway::with("--caller-token callers-secret").await;
    let (safe, plain) = (cookie(&gateway, "https://gateway").await, cookie(&gateway, "http://gateway").await);
    let (safe_wrong, plain_wrong) = ("__Host-revdial_gateway=x", "revdial_gateway=x");
    for (cookies, more, status) in [
        (plain.clone(), "", 200),
        (plain.clone(), "x-forwarded-proto: http\r\n", 200),
        (plain.clone(), "x-forwarded-proto: https\r\n", 401),
        (plain.clone(), "origin: https://gateway\r\n", 401),
        (format!("{safe_wrong}; {plain}"), "", 401),
        (safe.clone(), "", 200),
        (format!("{plain_wrong}; {safe}"), "", 200),
        (format!("{safe}; {plain_wrong}"), "x-forwarded-proto: https\r\n", 200),
    ] {
        let shown = format!("cookie: {cookies}\r\n{more}");
        assert_eq!(get(&gateway, "gateway", "/stats", &shown).await.0, status, "{shown}");
    }
}

#[tokio::test]
async fn the_form_gives_a_cookie_by_the_scheme_that_its_browser_uses() {
    let gateway = Gateway::with("--caller-token callers-secret").await;
    for (more, is_secure) in [
        ("x-forwarded-proto: https\r\n", true),
        ("origin: https://gateway\r\n", true),
        ("origin: http://gateway\r\nx-forwarded-proto: https\r\n", false),
        ("", false),
    ] {
        let answer = login(&gateway, "gateway", "callers-secret", more).await;
        assert_eq!(answer.contains("set-cookie: __Host-revdial_gateway="), is_secure, "{more}: {answer}");
    }
}

#[tokio::test]
async fn a_cookie_is_good_for_the_gateway_that_gave_it_and_an_old_one_is_forgotten() {
    let (one, other) =
        (Gateway::with("--caller-token callers-secret").await, Gateway::with("--caller-token callers-secret").await);
    let cookie = cookie(&one, "http://gateway").await;
    let ask = async |gateway: &Gateway, shown: &str| {
        exchange(gateway.addr, &format!("GET /stats HTTP/1.1\r\nhost: gateway\r\n{shown}")).await.0
    };
    let shown = format!("cookie: {cookie}\r\n");
    assert!(ask(&one, &shown).await.starts_with("http/1.1 200 "));
    let plain = "revdial_gateway=; path=/; httponly; samesite=strict; max-age=0";
    let safe = "__host-revdial_gateway=; path=/; httponly; samesite=strict; secure; max-age=0";
    for (shown, forgotten) in [
        (shown, &[plain][..]),
        ("cookie: __Host-revdial_gateway=x\r\n".to_owned(), &[safe][..]),
        ("cookie: revdial_gateway=x; __Host-revdial_gateway=x\r\n".to_owned(), &[safe, plain][..]),
    ] {
        let head = ask(&other, &shown).await;
        assert!(head.starts_with("http/1.1 401 "), "{head}");
        assert_eq!(values(&head, "set-cookie"), forgotten);
    }
    // Who shows none has none to forget, nor has one whose cookie is of a page's making.
    for shown in ["", "origin: http://elsewhere.example\r\ncookie: revdial_gateway=x\r\n"] {
        assert!(values(&ask(&other, shown).await, "set-cookie").is_empty(), "{shown}");
    }
}

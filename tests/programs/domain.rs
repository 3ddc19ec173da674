//! Sandboxes at host names of their own, and who gets to them from a browser.

use std::net::SocketAddr;

use axum::body::Body;
use futures_util::{SinkExt, StreamExt};
use http::{Method, header};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::{
    Gateway, TOKEN,
    process::{DEADLINE, Program},
    service::Service,
    text,
};

/// A request as it is written, and the whole answer.
pub(crate) async fn exchange(addr: SocketAddr, head: &str) -> (String, String) {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, socket.read_to_string(&mut answer)).await.expect("in time").expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_ascii_lowercase(), body.to_owned())
}

/// The whole answer to the form with this token, with more headers.
pub(crate) async fn login(gateway: &Gateway, host: &str, token: &str, more: &str) -> String {
    let form = format!("token={token}");
    let head = format!(
        "POST /.gateway/login HTTP/1.1\r\nhost: {host}\r\n{more}content-type: application/x-www-form-urlencoded\r\n\
         content-length: {}\r\n",
        form.len()
    );
    let mut socket = TcpStream::connect(gateway.addr).await.unwrap();
    socket.write_all(format!("{head}connection: close\r\n\r\n{form}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, socket.read_to_string(&mut answer)).await.expect("in time").expect("text");
    answer
}

/// The status of a GET of a path at a host name, with more headers, and the body.
pub(crate) async fn get(gateway: &Gateway, host: &str, path: &str, more: &str) -> (u16, String) {
    let (head, body) = exchange(gateway.addr, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{more}")).await;
    (head[9..12].parse().expect("a status"), body)
}

#[tokio::test]
async fn a_host_name_below_the_domain_is_a_sandbox_whatever_the_path() {
    let (gateway, service) = (Gateway::with("--domain Tunnels.example").await, Service::new().await);
    let forward = format!("--forward {0} --forward web-1={0}", service.addr);
    let mut agents = Vec::new();
    for key in ["a", "a.b", "ses_x", "a__b", "b"] {
        agents.push(gateway.connected(key, &forward).await);
    }
    for host in [
        "a.tunnels.example",
        "A.Tunnels.EXAMPLE:8080",
        "a.tunnels.example.",
        "a.b.tunnels.example",
        "ses_x.tunnels.example",
        "web-1__a.tunnels.example",
        "web-1__ses_x.tunnels.example",
        "__a.tunnels.example",
        "__a__b.tunnels.example",
        "web-1__a__b.tunnels.example",
    ] {
        for path in ["/", "/stats", "/proxy/b/x%2Fy?q=1", "/api/v1/revdial?runnerid=a", "/healthz"] {
            let (status, body) = get(&gateway, host, path, "").await;
            assert_eq!(status, 200, "{host}{path}: {body}");
            let start = body.find('{').expect("what the service saw");
            let seen: Value = serde_json::from_str(&body[start..=body.rfind('}').unwrap()]).expect("JSON");
            assert!(seen.to_string().contains(&host.to_owned()), "the sandbox sees its own name: {seen}");
            assert!(seen.to_string().contains(path), "{seen}");
        }
    }
    // A target that there is not, and one that is none.
    assert_eq!(get(&gateway, "vnc__a.tunnels.example", "/", "").await.0, 502);
    for host in ["under_score__a.tunnels.example", "-.tunnels.example", ".tunnels.example", "web-1__.tunnels.example"] {
        assert_eq!(get(&gateway, host, "/", "").await.0, 400, "{host}");
    }
    assert_eq!(get(&gateway, "nobody.tunnels.example", "/", "").await.0, 503);
}

#[tokio::test]
async fn other_host_names_are_the_gateways_as_before() {
    let gateway = Gateway::with("--domain tunnels.example").await;
    for host in ["tunnels.example", "tunnels.example:80", "127.0.0.1", "gateway", "a.localhost", "[::1]:80"] {
        let (status, body) = get(&gateway, host, "/stats", "").await;
        assert!(status == 200 && body.contains("active_connections"), "{host}: {status}");
    }
    let without = Gateway::new().await;
    assert_eq!(get(&without, "a.localhost", "/healthz", "").await.0, 200, "no domain, no such names");
}

#[tokio::test]
async fn a_websocket_goes_through_a_host_name() {
    let gateway = Gateway::with("--domain tunnels.example").await;
    let sandbox = Program::start(&format!("sandbox --server http://{} --key desktop-7 --token {TOKEN}", gateway.addr));
    sandbox.logs("connected").await;
    let socket = TcpStream::connect(gateway.addr).await.unwrap();
    let upgrade = client_async("ws://desktop-7.tunnels.example/ws/stream", socket);
    let (mut viewer, _) = timeout(DEADLINE, upgrade).await.expect("in time").expect("an upgrade");
    viewer.send(Message::text("hello")).await.unwrap();
    let echo = async { while viewer.next().await.expect("more").expect("a message") != Message::text("hello") {} };
    timeout(DEADLINE, echo).await.expect("what was said comes back");
}

#[tokio::test]
async fn callers_show_the_token_at_every_host_name_and_the_cookie_stays_here() {
    let flags = "--domain tunnels.example --caller-token callers-secret";
    let (gateway, service) = (Gateway::with(flags).await, Service::new().await);
    let agent = gateway.agent("a", &format!("--forward {}", service.addr));
    agent.logs("connected").await;
    for (host, path) in [("a.tunnels.example", "/"), ("gateway", "/"), ("gateway", "/proxy/a/"), ("gateway", "/events")]
    {
        assert_eq!(get(&gateway, host, path, "").await.0, 401, "{host}{path}");
        // A person is asked for it, with a page that loads nothing of the sandbox's.
        let (head, body) =
            exchange(gateway.addr, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: text/html,*/*;q=0.8\r\n"))
                .await;
        assert!(head.starts_with("http/1.1 401 ") && head.contains("default-src 'none'"), "{head}");
        assert!(body.contains("action=\"/.gateway/login\""), "{body}");

        let login = async |token: &str, more: &str| login(&gateway, host, token, more).await;
        assert!(login("wrong", "").await.starts_with("HTTP/1.1 401 "));
        assert!(login("", "").await.starts_with("HTTP/1.1 401 "));
        assert!(login("callers-secret", "origin: https://elsewhere.example\r\n").await.starts_with("HTTP/1.1 403 "));
        let answer = login("callers-secret", &format!("origin: https://{host}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 303 ") && answer.contains("location: /\r\n"), "{answer}");
        let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
        let (pair, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Strict; Secure");
        assert!(pair.starts_with("__Host-revdial_gateway=") && !cookie.contains("callers-secret"), "{cookie}");
        let answer = login("callers-secret", "").await;
        assert!(answer.contains("set-cookie: revdial_gateway="), "{answer}");
        assert!(!answer.contains("Secure"), "no https, as far as one can tell");

        let shown = format!("cookie: mine=1; {pair}; yours=2\r\n");
        let (status, body) = match path {
            "/events" => continue, // it does not end
            _ => get(&gateway, host, path, &shown).await,
        };
        assert_eq!(status, 200, "{host}{path}");
        if body.contains("mine=1") {
            assert!(body.contains("yours=2") && !body.contains("revdial_gateway"), "{body}");
        }
        assert_eq!(get(&gateway, host, path, &shown.replace('=', "=0")).await.0, 401);
        // A page of another origin has the cookie along with what it asks for, and nothing of it.
        for (origin, status) in [
            (format!("http://{host}"), 200),
            ("http://b.tunnels.example".into(), 403),
            ("null".into(), 403),
            (format!("http://{host}:81"), 403),
        ] {
            let more = format!("{shown}origin: {origin}\r\n");
            assert_eq!(get(&gateway, host, path, &more).await.0, status, "{host}{path} from {origin}");
        }
        let renamed = format!("{shown}origin: https://front.example\r\nsec-fetch-site: same-origin\r\n");
        assert_eq!(get(&gateway, host, path, &renamed).await.0, 200, "the browser says that it is one origin");
        // Pictures and scripts are asked for without an origin.
        for (told, status) in [
            ("cross-site\r\nsec-fetch-mode: no-cors".to_owned(), 403),
            ("same-site\r\nsec-fetch-mode: no-cors\r\nreferer: http://b.tunnels.example/".to_owned(), 403),
            (format!("cross-site\r\nsec-fetch-mode: no-cors\r\nreferer: http://{host}/"), 200),
            ("cross-site\r\nsec-fetch-mode: navigate".to_owned(), 200),
            ("none\r\nsec-fetch-mode: navigate".to_owned(), 200),
        ] {
            let more = format!("{shown}sec-fetch-site: {told}\r\n");
            assert_eq!(get(&gateway, host, path, &more).await.0, status, "{host}{path}: {told}");
        }
    }
}

#[tokio::test]
async fn pages_of_others_get_nothing_from_a_gateway_that_trusts_its_machine() {
    let gateway = Gateway::with("--domain tunnels.example").await;
    let sandbox = Program::start(&format!("sandbox --server http://{} --key desktop-7 --token {TOKEN}", gateway.addr));
    sandbox.logs("connected").await;
    for origin in ["https://elsewhere.example", "null", "http://desktop-7.tunnels.example"] {
        let request = gateway.build(Method::POST, "/proxy/desktop-7/exec").header(header::ORIGIN, origin);
        assert_eq!(gateway.request(request.body(Body::from("echo ran")).unwrap()).await.status(), 403, "{origin}");
        let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let answer = gateway
            .raw(&format!(
                "GET /proxy/desktop-7/ws/stream HTTP/1.1\r\nhost: gateway\r\norigin: {origin}\r\n{upgrade}\r\n"
            ))
            .await;
        assert!(answer.starts_with("http/1.1 403 "), "{answer}");
    }
    let own = gateway.build(Method::POST, "/proxy/desktop-7/exec");
    let own = own.header(header::ORIGIN, format!("http://{}", gateway.addr));
    assert_eq!(text(gateway.request(own.body(Body::from("echo ran")).unwrap()).await).await.1, "ran\n");
    // Behind a proxy on this machine everybody comes from it.
    for proxied in ["x-forwarded-for: 192.0.2.1", "x-real-ip: 192.0.2.1", "forwarded: for=192.0.2.1", "via: 1.1 edge"] {
        assert_eq!(get(&gateway, "localhost", "/stats", &format!("{proxied}\r\n")).await.0, 403, "{proxied}");
    }
    // A name that somebody else has made lead here.
    for (host, status) in [("elsewhere.example", 403), ("elsewhere.example:80", 403), ("localhost.", 200)] {
        assert_eq!(get(&gateway, host, "/stats", "").await.0, status, "{host}");
    }
}

#[tokio::test]
async fn a_page_below_a_path_has_no_origin_and_one_at_a_host_name_has_its_own() {
    let (gateway, service) = (Gateway::with("--domain tunnels.example").await, Service::new().await);
    let _agent = gateway.connected("a", &format!("--forward {}", service.addr)).await;
    let ask = async |host: &str, path: &str| {
        exchange(gateway.addr, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n")).await.0
    };
    assert!(ask("gateway", "/proxy/a/").await.contains("\r\ncontent-security-policy: sandbox allow-scripts"));
    assert!(!ask("a.tunnels.example", "/").await.contains("content-security-policy"));
}

//! Through proxies: by CONNECT and by SOCKS5, with plain servers and with those behind TLS; and what proxies refuse.

use std::time::Duration;

use revdial::{
    ErrorKind,
    agent::{AgentBuilder, ProxyChoice, TlsOptions},
};

use crate::{
    Gateway, NAME, Running, builder,
    certificates::Authority,
    net::TOKEN,
    proxy::{Proxy, Socks},
};

const OPEN: Socks = Socks { auth: None, reply: 0 };

/// A gateway without TLS and one with it, and what makes an agent for either.
async fn gateways() -> [(Gateway, AgentBuilder); 2] {
    let authority = Authority::new();
    let (plain, tls) = (Gateway::plain().await, Gateway::tls(authority.issue(NAME).server()).await);
    let to_plain = builder(&plain.named("ws"));
    let to_tls = builder(&tls.named("wss")).tls(TlsOptions::new().roots_pem(authority.pem));
    [(plain, to_plain), (tls, to_tls)]
}

async fn works_through(gateway: &Gateway, builder: AgentBuilder, proxy: String) {
    let mut agent = Running::of(builder.proxy(ProxyChoice::Url(proxy)).build().unwrap());
    agent.connected().await;
    gateway.works().await;
}

#[tokio::test]
async fn a_proxy_by_connect_leads_to_ws_and_wss() {
    for (gateway, builder) in gateways().await {
        let proxy = Proxy::connect(gateway.addr, "200 Fine").await;
        works_through(&gateway, builder, format!("http://Aladdin:open%20sesame@{}", proxy.addr)).await;
        let heads = proxy.asked();
        let [head] = &heads[..] else { panic!("{heads:?}") };
        let to = format!("{NAME}:{}", gateway.addr.port());
        assert!(head.starts_with(&format!("CONNECT {to} HTTP/1.1\r\n")), "{head}");
        let head = head.to_lowercase();
        assert!(head.contains(&format!("\r\nhost: {to}\r\n")), "{head}");
        assert!(head.contains("\r\nproxy-authorization: basic qwxhzgrpbjpvcgvuihnlc2ftzq==\r\n"), "{head}");
        assert!(!head.contains(TOKEN) && !head.contains("\r\nauthorization"), "the token is the server's: {head}");
        assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
    }
}

#[tokio::test]
async fn a_proxy_behind_tls_leads_to_wss() {
    let authority = Authority::new();
    let gateway = Gateway::tls(authority.issue(NAME).server()).await;
    let proxy = Proxy::connect_by_tls(gateway.addr, authority.issue("127.0.0.1").server()).await;
    let builder = builder(&gateway.named("wss")).tls(TlsOptions::new().roots_pem(authority.pem));
    works_through(&gateway, builder, format!("https://{}", proxy.addr)).await;
    assert_eq!(proxy.asked().len(), 1);
}

#[tokio::test]
async fn a_proxy_behind_tls_that_is_not_valid_is_not_asked() {
    let gateway = Gateway::plain().await;
    let proxy = Proxy::connect_by_tls(gateway.addr, Authority::new().issue("127.0.0.1").server()).await;
    let url = format!("https://{}", proxy.addr);
    let mut agent = Running::of(builder(&gateway.named("ws")).proxy(ProxyChoice::Url(url.clone())).build().unwrap());
    let (cause, wait, refused, text) = agent.setback().await;
    assert_eq!((cause, refused), (ErrorKind::Tls, true), "{text}");
    assert!(text.contains(&url) && text.contains("certificate"), "{text}");
    assert!(wait > Duration::from_secs(28), "{wait:?}");
    assert!(proxy.asked().is_empty());
}

#[tokio::test]
async fn a_proxy_by_socks5_leads_to_ws_and_wss_and_looks_the_name_up() {
    for (gateway, builder) in gateways().await {
        let proxy = Proxy::socks(gateway.addr, OPEN).await;
        works_through(&gateway, builder, format!("socks5h://{}", proxy.addr)).await;
        assert_eq!(proxy.asked(), [format!("{NAME}:{}", gateway.addr.port())]);
    }
}

#[tokio::test]
async fn a_proxy_by_socks5_gets_user_and_password_and_with_socks5_an_address() {
    let gateway = Gateway::plain().await;
    let proxy = Proxy::socks(gateway.addr, Socks { auth: Some("user:p@ss"), reply: 0 }).await;
    let url = format!("ws://localhost:{}", gateway.addr.port());
    works_through(&gateway, builder(&url), format!("socks5://user:p%40ss@{}", proxy.addr)).await;
    assert_eq!(proxy.asked(), ["user:p@ss".to_owned(), gateway.addr.to_string()]);
}

#[tokio::test]
async fn connections_that_a_dial_back_server_asks_for_go_through_the_proxy_too() {
    let gateway = Gateway::plain().await;
    let proxy = Proxy::connect(gateway.addr, "200 Fine").await;
    let builder = builder(&gateway.named("ws")).protocol(revdial::agent::ProtocolChoice::Dialback);
    works_through(&gateway, builder, format!("http://{}", proxy.addr)).await;
    assert_eq!(proxy.asked().len(), 2, "the control link's, and the stream's");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_with_its_answer_and_without_its_password() {
    let gateway = Gateway::plain().await;
    let table = [
        ("407 Proxy Authentication Required", ErrorKind::Auth, true),
        ("403 Forbidden", ErrorKind::Handshake, true),
        ("405 Method Not Allowed", ErrorKind::Handshake, true),
        ("501 Not Implemented", ErrorKind::Handshake, true),
        ("502 Bad Gateway", ErrorKind::Handshake, false),
        ("503 Service Unavailable", ErrorKind::Handshake, false),
        ("504 Gateway Timeout", ErrorKind::Handshake, false),
        ("429 Too Many Requests", ErrorKind::Handshake, false),
        ("301 Moved Permanently", ErrorKind::Handshake, false),
    ];
    for (status, kind, slow) in table {
        let proxy = Proxy::connect(gateway.addr, status).await;
        refused(&gateway, ("http", "user:hunter2@"), &proxy, (kind, slow, status)).await;
    }
    assert!(gateway.connman.list().is_empty(), "nobody goes around a proxy that refuses");
}

#[tokio::test]
async fn a_proxy_by_socks5_that_refuses_is_told_from_one_that_cannot() {
    let gateway = Gateway::plain().await;
    let table = [
        (1, false, "a general failure"),
        (2, true, "its rules do not allow this"),
        (3, false, "the network is unreachable"),
        (4, false, "the host is unreachable"),
        (5, false, "the connection was refused"),
        (6, false, "the time to live is over"),
        (7, true, "it does not do this command"),
        (8, true, "it does not take this kind of address"),
        (9, false, "it answered 9"),
    ];
    for (reply, slow, told) in table {
        let proxy = Proxy::socks(gateway.addr, Socks { auth: None, reply }).await;
        refused(&gateway, ("socks5h", ""), &proxy, (ErrorKind::Handshake, slow, told)).await;
    }
    for (user, told) in [("user:hunter2@", "takes another user and password"), ("", "asks for a user and password")] {
        let proxy = Proxy::socks(gateway.addr, Socks { auth: Some("user:other"), reply: 0 }).await;
        refused(&gateway, ("socks5h", user), &proxy, (ErrorKind::Auth, true, told)).await;
    }
    assert!(gateway.connman.list().is_empty(), "nobody goes around a proxy that refuses");
}

/// The agent tells this kind, whether it tries again slowly, and these words.
async fn refused(gateway: &Gateway, (scheme, user): (&str, &str), proxy: &Proxy, to_tell: (ErrorKind, bool, &str)) {
    let (kind, slow, told) = to_tell;
    let url = ProxyChoice::Url(format!("{scheme}://{user}{}", proxy.addr));
    let mut agent = Running::of(builder(&gateway.named("ws")).proxy(url).build().unwrap());
    let (cause, wait, is_refused, text) = agent.setback().await;
    assert_eq!((cause, is_refused), (kind, slow), "{text}");
    assert_eq!(wait > Duration::from_secs(28), slow, "{text}: {wait:?}");
    let named = format!("the proxy {scheme}://{}", proxy.addr);
    assert!(text.contains(&named) && text.contains(told) && text.contains(NAME), "{text}");
    assert!(!text.contains("hunter2") && !text.contains("html"), "{text}");
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let gateway = Gateway::plain().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = ProxyChoice::Url(format!("http://u:hunter2@{nobody}"));
    let agent = builder(&gateway.named("ws")).proxy(url).build().unwrap();
    assert!(!format!("{agent:?}").contains("hunter2"));
    let (cause, _, refused, text) = Running::of(agent).setback().await;
    assert_eq!((cause, refused), (ErrorKind::Handshake, false), "{text}");
    assert!(text.contains(&format!("the proxy http://{nobody} cannot be reached")), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

//! What services and the gateway itself believe of who asks, where a proxy stands in front, and where none does.

use serde_json::Value;
use tokio::time::timeout;

use crate::{Gateway, TOKEN, domain::get, process::DEADLINE, service::Service};

/// What a proxy that ends TLS says, and what its caller said before it.
const SAID: &str = "x-forwarded-for: 192.0.2.66\r\nx-forwarded-for: 192.0.2.67, 198.51.100.1\r\n\
                    x-forwarded-proto: https\r\nx-forwarded-host: tunnels.example\r\n";

/// What the service sees of these.
const FORWARDED: [&str; 3] = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];

const CALLER: &str = "authorization: Bearer callers-secret\r\n";

async fn seen(gateway: &Gateway, said: &str) -> [String; 3] {
    let (status, mirror) = get(gateway, "gateway", "/proxy/a/", &format!("{said}{CALLER}")).await;
    assert_eq!(status, 200, "{mirror}");
    let mirror: Value = serde_json::from_str(&mirror).expect("JSON");
    FORWARDED.map(|name| mirror["headers"][name].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn services_see_who_asks_and_how_as_the_trusted_proxy_says_it() {
    let service = Service::new().await;
    let gateway = Gateway::with("--caller-token callers-secret --trusted-proxy 127.0.0.1").await;
    let agent = gateway.agent("a", &format!("--forward {}", service.addr));
    agent.logs("connected").await;
    let chain = "192.0.2.66, 192.0.2.67, 198.51.100.1, 127.0.0.1";
    assert_eq!(seen(&gateway, SAID).await, [chain, "tunnels.example", "https"]);
    assert_eq!(seen(&gateway, "").await, ["127.0.0.1", "gateway", "http"], "what it does not say is said by us");
}

#[tokio::test]
async fn services_see_nothing_of_what_a_stranger_says_of_who_asks() {
    let service = Service::new().await;
    for flags in ["", "--trusted-proxy 192.0.2.1"] {
        let gateway = Gateway::with(&format!("--caller-token callers-secret {flags}")).await;
        let agent = gateway.agent("a", &format!("--forward {}", service.addr));
        agent.logs("connected").await;
        assert_eq!(seen(&gateway, SAID).await, ["127.0.0.1", "gateway", "http"], "{flags}");
    }
}

/// The status that an agent gets who shows this token, and comes with these headers.
async fn registers(gateway: &Gateway, said: &str, token: &str) -> String {
    let request = format!(
        "GET /api/v1/revdial?runnerid=a HTTP/1.1\r\nhost: gateway\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
         sec-websocket-protocol: revdial.v1\r\nauthorization: Bearer {token}\r\n{said}\r\n"
    );
    gateway.raw(&request).await["http/1.1 ".len()..][..3].to_owned()
}

/// What good agents get that come with these headers, once too many bad ones did.
async fn after_bad_ones(gateway: &Gateway, bad: &str, good: &str) -> String {
    let bad_ones = async { while registers(gateway, bad, "old").await != "429" {} };
    timeout(DEADLINE, bad_ones).await.expect("it is too often at last");
    registers(gateway, good, TOKEN).await
}

#[tokio::test]
async fn bad_agents_shut_out_nobody_who_comes_through_the_same_proxy() {
    let [one, other] = ["x-forwarded-for: 192.0.2.1\r\n", "x-forwarded-for: 192.0.2.2\r\n"];
    for (flags, bad, good, status) in [
        ("--trusted-proxy 127.0.0.1", one, one, "429"),
        ("--trusted-proxy 127.0.0.1", one, other, "101"),
        ("--trusted-proxy 127.0.0.1", "", "", "101"), // it does not say who asks
        ("", one, other, "101"),
        ("", one, one, "101"),
        ("", "", "", "429"),                              // no proxy: all of them are one address
        ("--trusted-proxy 192.0.2.9", one, other, "429"), // neither, whatever a stranger writes
    ] {
        let gateway = Gateway::with(flags).await;
        assert_eq!(after_bad_ones(&gateway, bad, good).await, status, "{flags} {bad} {good}");
    }
}

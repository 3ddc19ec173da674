//! How often callers may guess the token.

#[path = "../../examples/gateway/app/guesses.rs"]
mod table;

use std::{
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use table::Guesses;

use crate::{Gateway, domain::exchange};

/// The flags of a gateway with a token, behind a proxy on this machine.
const BEHIND: &str = "--caller-token callers-secret --trusted-proxy 127.0.0.1";

/// The head of the answer to `/stats` with these headers.
async fn stats(gateway: &Gateway, shown: &str) -> String {
    exchange(gateway.addr, &format!("GET /stats HTTP/1.1\r\nhost: gateway\r\n{shown}")).await.0
}

/// Guesses until that is one too many; how often it was not.
async fn guess(gateway: &Gateway, shown: &str) -> usize {
    for nth in 0..200 {
        let head = stats(gateway, shown).await;
        if head.starts_with("http/1.1 429 ") {
            assert!(head.contains("\r\nretry-after: 1\r\n"), "{head}");
            return nth;
        }
        assert!(head.starts_with("http/1.1 401 "), "{head}");
    }
    panic!("nobody minds {shown}");
}

#[tokio::test]
async fn wrong_tokens_are_limited_by_the_address_that_shows_them_and_right_ones_are_not_told_there() {
    for wrong in ["authorization: Bearer wrong\r\n", "cookie: revdial_gateway=wrong\r\n"] {
        let gateway = Gateway::with(BEHIND).await;
        let from = |member: &str| format!("x-forwarded-for: 192.0.2.66\r\nx-forwarded-for: 192.0.2.67, {member}\r\n");
        // Whoever shows nothing guesses nothing.
        for _ in 0..60 {
            assert!(stats(&gateway, &from("198.51.100.1")).await.starts_with("http/1.1 401 "));
        }
        let guesses = guess(&gateway, &format!("{}{wrong}", from("198.51.100.1"))).await;
        assert!((50..100).contains(&guesses), "{guesses}");
        let right = "authorization: Bearer callers-secret\r\n";
        assert!(stats(&gateway, &format!("{}{right}", from("198.51.100.1"))).await.starts_with("http/1.1 429 "));
        // Others may, as may the proxy's own machine.
        for other in [from("198.51.100.2"), from("2001:db8::1"), String::new()] {
            assert!(stats(&gateway, &format!("{other}{right}")).await.starts_with("http/1.1 200 "), "{other}");
        }
        let later = async {
            while !stats(&gateway, &format!("{}{right}", from("198.51.100.1"))).await.starts_with("http/1.1 200 ") {}
        };
        tokio::time::timeout(crate::process::DEADLINE, later).await.expect("it passes");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_trusted_says_nothing_of_addresses() {
    let gateway = Gateway::with("--caller-token callers-secret --trusted-proxy 192.0.2.1").await;
    for nth in 0..200 {
        let head = stats(&gateway, &format!("x-forwarded-for: 10.0.0.{nth}\r\nauthorization: Bearer wrong\r\n")).await;
        if head.starts_with("http/1.1 429 ") {
            return;
        }
    }
    panic!("whoever gives itself another address each time may guess");
}

#[tokio::test]
async fn the_form_counts_wrong_tokens_too() {
    let gateway = Gateway::with("--caller-token callers-secret").await;
    let form = "POST /.gateway/login HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                content-length: 7\r\nconnection: close\r\n\r\ntoken=x";
    for _ in 0..200 {
        let head = gateway.raw(form).await;
        if head.starts_with("http/1.1 429 ") {
            return;
        }
        assert!(head.starts_with("http/1.1 401 "), "{head}");
    }
    panic!("the form takes any number of guesses");
}

#[test]
fn whoever_guesses_most_is_remembered_however_many_others_come() {
    let (guesses, now) = (Guesses::default(), Instant::now());
    let nth = |n: u128| IpAddr::from(Ipv6Addr::from_bits(n << 64 | n));
    for _ in 0..100 {
        guesses.wrong(nth(0), now);
    }
    for n in 1..10_000 {
        guesses.wrong(nth(n), now);
    }
    assert!(guesses.wait(nth(0), now).is_some_and(|wait| wait > Duration::from_secs(10)));
    let neighbour = IpAddr::from(Ipv6Addr::from_bits(7));
    assert!(guesses.wait(neighbour, now).is_some(), "64 bits are one subscriber's");
    assert_eq!(guesses.wait(nth(9_999), now), None);
    assert_eq!(guesses.wait(nth(0), now + Duration::from_secs(60)), None, "nothing lasts for ever");
}

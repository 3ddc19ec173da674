//! How often callers may guess the token.

#[path = "../../examples/gateway/app/guesses.rs"]
mod table;

use std::{
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use table::Guesses;
use tokio::time::timeout;

use crate::{
    Gateway,
    domain::{exchange, get, login},
    process::DEADLINE,
};

/// The flags of a gateway with a token, behind a proxy on this machine.
const BEHIND: &str = "--caller-token callers-secret --trusted-proxy 127.0.0.1";

const RIGHT: &str = "authorization: Bearer callers-secret\r\n";
const WRONG: &str = "authorization: Bearer wrong\r\n";

/// The head of the answer to `/stats` with these headers.
async fn stats(gateway: &Gateway, shown: &str) -> String {
    exchange(gateway.addr, &format!("GET /stats HTTP/1.1\r\nhost: gateway\r\n{shown}")).await.0
}

/// Guesses until that is one too many; how often it was not.
async fn guess(gateway: &Gateway, shown: &str) -> usize {
    let guesses = async {
        for nth in 0.. {
            let head = stats(gateway, shown).await;
            if head.starts_with("http/1.1 429 ") {
                assert!(head.contains("\r\nretry-after: 1\r\n"), "{head}");
                return nth;
            }
            assert!(head.starts_with("http/1.1 401 "), "{head}");
        }
        unreachable!("that is for ever")
    };
    timeout(DEADLINE, guesses).await.unwrap_or_else(|_| panic!("nobody minds {shown}"))
}

/// Guesses from there until what is `shown` is refused with the wrong ones. It has to come before one more may be wrong.
async fn shut_out(gateway: &Gateway, from: &str, shown: &str) {
    let refused = async {
        loop {
            guess(gateway, &format!("{from}{WRONG}")).await;
            if stats(gateway, &format!("{from}{shown}")).await.starts_with("http/1.1 429 ") {
                return;
            }
        }
    };
    timeout(DEADLINE, refused).await.unwrap_or_else(|_| panic!("{shown} is told from a wrong one"));
}

#[tokio::test]
async fn wrong_tokens_are_limited_by_the_address_that_shows_them_and_right_ones_are_not_told_there() {
    let gateway = Gateway::with(BEHIND).await;
    let from = |member: &str| format!("x-forwarded-for: 192.0.2.66\r\nx-forwarded-for: 192.0.2.67, {member}\r\n");
    let here = from("198.51.100.1");
    // Whoever shows nothing guesses nothing, nor does a name with a password, which is for the sandbox.
    for shown in ["", "authorization: Basic YTpi\r\n"] {
        for _ in 0..60 {
            assert!(stats(&gateway, &format!("{here}{shown}")).await.starts_with("http/1.1 401 "));
        }
    }
    let guesses = guess(&gateway, &format!("{here}{WRONG}")).await;
    assert!(guesses >= 50, "{guesses}");
    shut_out(&gateway, &here, RIGHT).await;
    // Others may, as may the proxy's own machine.
    for other in [from("198.51.100.2"), from("2001:db8::1"), String::new()] {
        assert!(stats(&gateway, &format!("{other}{RIGHT}")).await.starts_with("http/1.1 200 "), "{other}");
    }
    let later = async { while !stats(&gateway, &format!("{here}{RIGHT}")).await.starts_with("http/1.1 200 ") {} };
    timeout(DEADLINE, later).await.expect("it passes");
}

#[tokio::test]
async fn a_wrong_cookie_is_no_guess_whosever_page_it_comes_from() {
    let gateway = Gateway::with("--caller-token callers-secret --domain tunnels.example").await;
    for (host, told, status) in [
        ("tunnels.example", "", 401),
        ("tunnels.example", "origin: http://a.tunnels.example\r\nsec-fetch-site: same-site\r\n", 403),
        ("b.tunnels.example", "", 401),
        ("b.tunnels.example", "sec-fetch-site: same-site\r\nsec-fetch-mode: no-cors\r\n", 403),
    ] {
        for _ in 0..100 {
            let shown = format!("{told}cookie: revdial_gateway=x\r\n");
            assert_eq!(get(&gateway, host, "/stats", &shown).await.0, status, "{host} {told}");
        }
        assert_ne!(get(&gateway, host, "/stats", RIGHT).await.0, 429, "{host} {told}");
        let answer = login(&gateway, host, "callers-secret", "").await;
        assert!(answer.starts_with("HTTP/1.1 303 "), "{host} {told}: {answer}");
    }
}

#[tokio::test]
async fn who_has_the_cookie_is_not_shut_out_with_those_who_guess_at_the_same_address() {
    let gateway = Gateway::with(BEHIND).await;
    let answer = login(&gateway, "gateway", "callers-secret", "").await;
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    let shown = format!("cookie: {}\r\n", cookie.split_once(';').expect("attributes").0);
    shut_out(&gateway, "", RIGHT).await;
    for more in ["", WRONG] {
        assert!(stats(&gateway, &format!("{shown}{more}")).await.starts_with("http/1.1 200 "), "{more}");
    }
}

#[tokio::test]
async fn what_is_guessed_at_a_sandboxs_host_name_shuts_nobody_out_of_the_gateways() {
    let gateway = Gateway::with("--caller-token callers-secret --domain tunnels.example").await;
    let guesses = async { while get(&gateway, "a.tunnels.example", "/", WRONG).await.0 != 429 {} };
    timeout(DEADLINE, guesses).await.expect("it is too often at last");
    assert_eq!(get(&gateway, "tunnels.example", "/stats", RIGHT).await.0, 200);
    let answer = login(&gateway, "tunnels.example", "callers-secret", "").await;
    assert!(answer.starts_with("HTTP/1.1 303 "), "{answer}");
}

#[tokio::test]
async fn an_address_counts_however_a_proxy_writes_it_and_one_that_is_none_is_in_the_log() {
    let gateway = Gateway::with(BEHIND).await;
    let forwarded = |address: &str| format!("x-forwarded-for: {address}\r\n");
    for (ways, other) in [
        (&["192.0.2.1", "192.0.2.1:5678", "192.0.2.1:9", "[::ffff:192.0.2.1]:7"][..], "192.0.2.2:5678"),
        (&["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:5678", "\"[2001:db8::1]:5678\""][..], "[2001:db8:0:1::1]:7"),
    ] {
        for way in ways {
            shut_out(&gateway, &forwarded(way), RIGHT).await;
            let from_there = async |way: &str| stats(&gateway, &format!("{}{WRONG}", forwarded(way))).await;
            assert!(from_there(other).await.starts_with("http/1.1 401 "), "{other} is not {way}");
        }
    }
    assert!(stats(&gateway, RIGHT).await.starts_with("http/1.1 200 "), "none of it was the proxy's own doing");
    for _ in 0..2 {
        stats(&gateway, &forwarded("unknown")).await;
    }
    gateway.program.logs("X-Forwarded-For ends in no address").await;
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

/// An address of IPv6 of the nth subscriber.
fn nth(n: u128) -> IpAddr {
    Ipv6Addr::from_bits(n << 64 | n).into()
}

#[test]
fn an_address_is_wrong_so_often_at_once_and_then_at_the_rate() {
    const EVERY: Duration = Duration::from_millis(200);
    let (guesses, now) = (Guesses::default(), Instant::now());
    for times in 0..50 {
        assert_eq!(guesses.wait(nth(1), now), None, "after {times}");
        guesses.wrong(nth(1), now);
    }
    assert_eq!(guesses.wait(nth(1), now), Some(EVERY));
    assert_eq!(guesses.wait(nth(2), now), None, "another's");
    assert_eq!(guesses.wait(nth(1), now + EVERY / 4), Some(EVERY * 3 / 4));
    assert_eq!(guesses.wait(nth(1), now + EVERY), None);
    guesses.wrong(nth(1), now + EVERY);
    assert_eq!(guesses.wait(nth(1), now + EVERY), Some(EVERY));
}

#[test]
fn whoever_guesses_most_is_remembered_however_many_others_come() {
    let (guesses, now) = (Guesses::default(), Instant::now());
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

#[test]
fn there_is_room_again_once_a_second() {
    let (guesses, now) = (Guesses::default(), Instant::now());
    for n in 0..5_000 {
        guesses.wrong(nth(n), now);
    }
    let is_shut_out = |newcomer: u128, at: Instant| {
        (0..60).for_each(|_| guesses.wrong(nth(newcomer), at));
        guesses.wait(nth(newcomer), at).is_some()
    };
    assert!(!is_shut_out(9_000, now + Duration::from_millis(999)), "all of them are looked through once a second only");
    assert!(is_shut_out(9_000, now + Duration::from_secs(1)));
}

//! What requests get that open no tunnel, in which order.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Version, header, request::Parts};
use http_body_util::{BodyExt, Full};
use revdial::{
    ErrorKind,
    connman::ConnectionManager,
    proto::SessionConfig,
    server::{Authorize, Grant, KeyedBearer, Rejection, RevDialLayer, requested_key},
};
use tokio::time::Instant;

use crate::{
    BEARER, Counted, URI, ask, block_on, full, granted, key, layer,
    raw::{PATH, upgrade},
    status,
};

/// What is wrong with a request, in the order in which it is told.
const FAULTS: [(&str, u16); 10] = [
    ("head", 431),
    ("method", 405),
    ("upgrade", 426),
    ("origin", 403),
    ("credentials", 401),
    ("key", 400),
    ("version", 426),
    ("websocket key", 400),
    ("body", 400),
    ("subprotocol", 426),
];

fn faulty(faults: &[&str]) -> Request<Full<Bytes>> {
    let has = |fault| faults.contains(&fault);
    let (mut parts, body) = full(upgrade(if has("key") { PATH } else { URI })).into_parts();
    let headers = &mut parts.headers;
    let credentials = if has("credentials") { "Bearer wrong" } else { BEARER };
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static(credentials));
    if has("head") {
        headers.insert(header::COOKIE, HeaderValue::from_bytes(&[b'c'; 16 * 1024]).unwrap());
    }
    if has("method") {
        parts.method = Method::POST;
    }
    if has("upgrade") {
        headers.remove(header::UPGRADE);
    }
    if has("origin") {
        headers.insert(header::ORIGIN, HeaderValue::from_static("https://elsewhere.example"));
    }
    if has("version") {
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("12"));
    }
    if has("websocket key") {
        headers.remove(header::SEC_WEBSOCKET_KEY);
    }
    if has("body") {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("1"));
    }
    if has("subprotocol") {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat"));
    }
    Request::from_parts(parts, body)
}

#[tokio::test(start_paused = true)]
async fn o1_whatever_else_is_wrong_the_first_fault_decides() {
    let layer = layer(&ConnectionManager::new());
    for subset in 0..1u32 << FAULTS.len() {
        let faults = FAULTS.iter().enumerate().filter(|(bit, _)| subset >> bit & 1 == 1).map(|(_, fault)| fault);
        let names: Vec<_> = faults.clone().map(|(name, _)| *name).collect();
        let expected = faults.clone().map(|(_, status)| *status).next().unwrap_or(101);
        assert_eq!(ask(&layer, faulty(&names)).await.status().as_u16(), expected, "{names:?}");
    }
}

#[test]
fn b1_to_b7_and_b11_refusals_say_what_would_do_and_are_counted() {
    for (fault, headers, counter) in [
        ("method", &[("allow", "GET")][..], "revdial_handshake_rejected_total{method}"),
        (
            "upgrade",
            &[("upgrade", "websocket"), ("connection", "upgrade")],
            "revdial_handshake_rejected_total{no_upgrade}",
        ),
        ("origin", &[], "revdial_auth_failures_total{origin}"),
        ("credentials", &[("www-authenticate", "Bearer")], "revdial_auth_failures_total{credentials}"),
        ("key", &[], "revdial_handshake_rejected_total{key}"),
        ("version", &[("sec-websocket-version", "13")], "revdial_handshake_rejected_total{version}"),
        ("websocket key", &[], "revdial_handshake_rejected_total{key}"),
        ("body", &[], "revdial_handshake_rejected_total{body}"),
        (
            "subprotocol",
            &[("sec-websocket-protocol", "revdial.v1"), ("upgrade", "websocket")],
            "revdial_handshake_rejected_total{subprotocol}",
        ),
    ] {
        Counted::within(|counted| {
            block_on(async {
                let response = ask(&layer(&ConnectionManager::new()), faulty(&[fault])).await;
                for (name, value) in headers {
                    assert_eq!(response.headers().get(*name).unwrap(), value, "{fault}");
                }
                assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty(), "{fault}");
            });
            assert_eq!(counted.take(), [counter], "{fault}");
        });
    }
}

#[test]
fn b12_a_head_over_16_kib_or_100_headers_is_too_large() {
    // What a granted request has, besides the header that pads it.
    let (parts, _) = full(granted(URI)).into_parts();
    let size: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let pad = 16 * 1024 - URI.len() - size - "x-pad".len();
    let count = 100 - parts.headers.len();
    Counted::within(|counted| {
        block_on(async {
            let layer = layer(&ConnectionManager::new());
            for (pad, expected) in [(pad, 101), (pad + 1, 431)] {
                assert_eq!(status(&layer, granted(URI).header("x-pad", "p".repeat(pad))).await, expected, "{pad}");
                let uri = format!("{URI}&{}", "p".repeat(pad + "x-pad".len() - 1));
                assert_eq!(status(&layer, granted(&uri)).await, expected, "in the query");
            }
            for (count, expected) in [(count, 101), (count + 1, 431)] {
                let many = (0..count).fold(granted(URI), |request, _| request.header("x", "y"));
                assert_eq!(status(&layer, many).await, expected, "{count}");
            }
            // Of others' requests nothing is asked.
            let elsewhere = granted("/elsewhere").header("x-pad", "p".repeat(pad * 2));
            assert_eq!(status(&layer, elsewhere).await, 200);
        });
        let heads = counted.take().into_iter().filter(|name| name == "revdial_handshake_rejected_total{head}").count();
        assert_eq!(heads, 3);
    });
}

#[tokio::test]
async fn b6_an_allowed_origin_may() {
    let layer = layer(&ConnectionManager::new()).allow_origin("https://a.example").allow_origin("https://b.example");
    for (origin, expected) in
        [("https://b.example", 101), ("https://c.example", 403), ("null", 403), ("https://b.example.evil", 403)]
    {
        assert_eq!(status(&layer, granted(URI).header(header::ORIGIN, origin)).await, expected, "{origin}");
    }
}

#[tokio::test]
async fn b7_a_keyed_token_is_asked_for_judged_against_the_key_and_opens_no_other() {
    let bearer = KeyedBearer::new("secret").unwrap();
    let token = format!("Bearer {}", bearer.token_for(&key("a")));
    let layer = RevDialLayer::new(ConnectionManager::new(), bearer);
    let with = |uri: &str, token: &str| upgrade(uri).header(header::AUTHORIZATION, token);
    assert_eq!(status(&layer, with(URI, &token)).await, 101);
    assert_eq!(status(&layer, with("/api/v1/revdial?runnerid=A", &token)).await, 101);
    assert_eq!(status(&layer, with("/api/v1/revdial?runnerid=b", &token)).await, 401);
    assert_eq!(status(&layer, with(PATH, &token)).await, 400);
    assert_eq!(status(&layer, upgrade(URI)).await, 401);
    assert_eq!(status(&layer, upgrade(PATH)).await, 401);
}

#[tokio::test]
async fn n2_b11_a_key_that_cannot_be_is_400() {
    let layer = layer(&ConnectionManager::new());
    for query in
        ["", "runnerid", "runnerid=", "runnerid=a&runnerid=a", "runnerid=a%2", "runnerid=a:b", "runnerid=1.2.3.4"]
    {
        assert_eq!(status(&layer, granted(&format!("{PATH}?{query}"))).await, 400, "{query}");
    }
}

#[test]
fn b8_b15_what_authorize_says_is_what_the_request_gets() {
    let verdict = |parts: &Parts| match requested_key(parts)?.as_str() {
        "denied" => Err(Rejection::forbidden()),
        "rate" => Err(Rejection::too_many_attempts(Duration::from_millis(1500))),
        "busy" => Err(Rejection::unavailable(Duration::ZERO)),
        "expired" => Ok(Grant::new("a".parse()?, "p").expires_in(Duration::ZERO)),
        _ => Err(Rejection::unauthorized()),
    };
    for (name, expected, retry_after, counter) in [
        ("denied", 403, None, "revdial_key_conflicts_total{denied}"),
        ("rate", 429, Some("2"), "revdial_auth_failures_total{rate}"),
        ("busy", 503, Some("1"), "revdial_overload_total{authorize}"),
        ("expired", 401, None, "revdial_auth_failures_total{credentials}"),
        ("other", 401, None, "revdial_auth_failures_total{credentials}"),
    ] {
        Counted::within(|counted| {
            block_on(async {
                let layer = RevDialLayer::new(ConnectionManager::new(), verdict);
                let response = ask(&layer, full(upgrade(&format!("{PATH}?runnerid={name}")))).await;
                assert_eq!(response.status().as_u16(), expected, "{name}");
                let after = response.headers().get(header::RETRY_AFTER).map(|after| after.to_str().unwrap());
                assert_eq!(after, retry_after, "{name}");
            });
            assert_eq!(counted.take(), [counter], "{name}");
        });
    }
}

/// Takes as long as the query says, or panics.
#[derive(Clone, Copy)]
struct Moody;

impl Authorize for Moody {
    async fn authorize(&self, parts: &Parts) -> Result<Grant, Rejection> {
        let key = requested_key(parts)?;
        tokio::time::sleep(Duration::from_secs(if key.as_str() == "slow" { 3600 } else { 1 })).await;
        assert_ne!(key.as_str(), "panics");
        Ok(Grant::new(key, "p"))
    }
}

#[test]
fn b86_an_authorize_that_panics_or_hangs_fails_its_request_and_no_other() {
    Counted::within(|counted| {
        block_on(async {
            let layer = RevDialLayer::new(ConnectionManager::new(), Moody);
            let timed = async |name: &str| {
                let start = Instant::now();
                (status(&layer, upgrade(&format!("{PATH}?runnerid={name}"))).await, start.elapsed().as_secs())
            };
            let (slow, panics, good) = tokio::join!(timed("slow"), timed("panics"), timed("good"));
            assert_eq!((slow, panics, good), ((503, 10), (500, 1), (101, 1)));
        });
        let failures = counted.take().into_iter().filter(|name| name.starts_with("revdial_callback_failures")).count();
        assert_eq!(failures, 2);
    });
}

#[test]
fn b14_beyond_the_limit_of_handshakes_a_request_is_refused_before_anybody_is_asked() {
    Counted::within(|counted| {
        block_on(async {
            let layer = RevDialLayer::new(ConnectionManager::new(), Moody).max_handshakes(1);
            let other = layer.clone();
            let (first, second) = tokio::join!(status(&layer, upgrade(URI)), async {
                let start = Instant::now();
                let response = ask(&other, full(upgrade(URI))).await;
                assert_eq!(start.elapsed(), Duration::ZERO);
                assert_eq!(response.headers()[header::RETRY_AFTER], "1");
                response.status().as_u16()
            });
            assert_eq!((first, second), (101, 503));
            tokio::task::yield_now().await; // the first one's upgrade fails, there being no connection
            assert_eq!(status(&layer, upgrade(URI)).await, 101, "the place was given back");
        });
        assert!(counted.take().contains(&"revdial_overload_total{handshakes}".to_owned()));
    });
}

#[tokio::test]
async fn b91_pick_ups_that_nobody_asked_for_need_no_key_and_are_404_with_or_without_an_offer() {
    let layer = layer(&ConnectionManager::new());
    let uri = format!("{PATH}?revdial.dialer=00&revdial.req=11");
    let classic = |request: http::request::Builder| {
        let (mut parts, body) = full(request).into_parts();
        parts.headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
        Request::from_parts(parts, body)
    };
    assert_eq!(ask(&layer, classic(granted(&uri))).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(ask(&layer, classic(upgrade(&uri))).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(status(&layer, granted(&uri)).await, 404);
    assert_eq!(status(&layer, granted(&format!("{uri}&runnerid=a"))).await, 404);
}

#[tokio::test]
async fn m7_b17_no_websocket_extension_is_negotiated() {
    let request = granted(URI).header(header::SEC_WEBSOCKET_EXTENSIONS, "permessage-deflate");
    let response = ask(&layer(&ConnectionManager::new()), full(request)).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert!(!response.headers().contains_key(header::SEC_WEBSOCKET_EXTENSIONS));
    assert_eq!(response.headers()[header::SEC_WEBSOCKET_PROTOCOL], "revdial.v1");
    assert_eq!(response.headers()[header::SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[tokio::test]
async fn only_a_websocket_over_http_1_1_or_2_is_an_upgrade() {
    let layer = layer(&ConnectionManager::new());
    let (mut parts, body) = full(granted(URI)).into_parts();
    parts.version = Version::HTTP_10;
    assert_eq!(ask(&layer, Request::from_parts(parts, body)).await.status(), StatusCode::UPGRADE_REQUIRED);
    assert_eq!(status(&layer, granted(URI).method("CONNECT")).await, 405);
}

#[test]
fn settings_that_cannot_be_fail_at_once_and_are_named() {
    let layer = layer(&ConnectionManager::new());
    let config = SessionConfig { max_streams: 0, ..SessionConfig::default() };
    let error = layer.clone().session(config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("max_streams"));
    for path in ["", "tunnel", "/a?b", "/a#b", "/a b", "http://host/a"] {
        assert_eq!(layer.clone().at(path).unwrap_err().kind(), ErrorKind::InvalidInput, "{path}");
    }
}

//! What requests get that open no tunnel, in which order.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header, request::Parts};
use http_body_util::{BodyExt, Full};
use revdial::{
    ErrorKind,
    connman::ConnectionManager,
    proto::SessionConfig,
    server::{Grant, KeyedBearer, Rejection, RevDialLayer, requested_key},
};

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

pub(crate) fn faulty(faults: &[&str]) -> Request<Full<Bytes>> {
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

/// A request with this fault is refused so, without a body, with these headers, and is counted so, once.
fn refused(fault: &str, status: u16, headers: &[(&str, &str)], counter: &str) {
    let counted = Counted::by(async {
        let response = ask(&layer(&ConnectionManager::new()), faulty(&[fault])).await;
        assert_eq!(response.status().as_u16(), status, "{fault}");
        let told: Vec<_> =
            response.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(told, headers, "{fault}");
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty(), "{fault}");
    });
    assert_eq!(counted, [counter], "{fault}");
}

#[test]
fn b1_a_request_without_upgrade_is_426_and_told_to_which() {
    let headers = [("upgrade", "websocket"), ("connection", "upgrade")];
    refused("upgrade", 426, &headers, "revdial_handshake_rejected_total{no_upgrade}");
}

#[test]
fn b2_another_method_or_a_body_is_refused_and_the_connection_closes() {
    let headers = [("allow", "GET"), ("connection", "close")];
    refused("method", 405, &headers, "revdial_handshake_rejected_total{method}");
    refused("body", 400, &[("connection", "close")], "revdial_handshake_rejected_total{body}");
}

#[test]
fn b3_another_version_of_websocket_is_426_and_told_which() {
    let headers = [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-version", "13")];
    refused("version", 426, &headers, "revdial_handshake_rejected_total{version}");
}

#[test]
fn b4_a_missing_websocket_key_is_400() {
    refused("websocket key", 400, &[], "revdial_handshake_rejected_total{websocket_key}");
}

#[test]
fn b5_no_common_subprotocol_is_426_and_told_which_there_is() {
    let headers = [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-protocol", "revdial.v1")];
    refused("subprotocol", 426, &headers, "revdial_handshake_rejected_total{subprotocol}");
}

#[test]
fn b6_an_origin_that_is_not_allowed_is_403() {
    refused("origin", 403, &[], "revdial_auth_failures_total{origin}");
}

#[test]
fn b7_wrong_and_missing_credentials_are_401_and_told_apart_in_the_metrics_only() {
    let headers = [("www-authenticate", "Bearer")];
    refused("credentials", 401, &headers, "revdial_auth_failures_total{credentials}");
    let counted = Counted::by(async {
        let response = ask(&layer(&ConnectionManager::new()), full(upgrade(URI))).await;
        assert_eq!((response.status(), response.headers().len()), (StatusCode::UNAUTHORIZED, 1));
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
    });
    assert_eq!(counted, ["revdial_auth_failures_total{missing}"]);
}

#[test]
fn b11_a_missing_key_is_400() {
    refused("key", 400, &[], "revdial_handshake_rejected_total{key}");
}

/// A text that nobody else would say.
const MARK: &str = "m4rk";

#[tokio::test(start_paused = true)]
async fn no_answer_repeats_what_the_request_said() {
    let layer = layer(&ConnectionManager::new());
    let said =
        |name: &'static str, value: String| move |headers: &mut HeaderMap| headers.insert(name, value.parse().unwrap());
    for (name, value) in [
        ("x-any", MARK.to_owned()),
        ("origin", format!("https://{MARK}.example")),
        ("authorization", format!("Bearer {MARK}")),
        ("sec-websocket-version", MARK.to_owned()),
        ("sec-websocket-key", MARK.to_owned()),
        ("sec-websocket-protocol", format!("{MARK}, revdial.v1")),
        ("sec-websocket-protocol", MARK.to_owned()),
        ("sec-websocket-extensions", MARK.to_owned()),
        ("upgrade", MARK.to_owned()),
    ] {
        for query in ["runnerid=a", "runnerid=m4rk&a=m4rk", "runnerid=%m4rk", "revdial.dialer=m4rk&revdial.req=m4rk"] {
            let mut request = full(granted(&format!("{PATH}?{query}")));
            said(name, value.clone())(request.headers_mut());
            let response = ask(&layer, request).await;
            assert!(!format!("{:?}", response.headers()).contains(MARK), "{name}, {query}: {response:?}");
            assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty(), "{name}, {query}");
        }
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
        let counted = Counted::by(async {
            let layer = RevDialLayer::new(ConnectionManager::new(), verdict);
            let response = ask(&layer, full(upgrade(&format!("{PATH}?runnerid={name}")))).await;
            assert_eq!(response.status().as_u16(), expected, "{name}");
            let after = response.headers().get(header::RETRY_AFTER).map(|after| after.to_str().unwrap());
            assert_eq!(after, retry_after, "{name}");
        });
        assert_eq!(counted, [counter], "{name}");
    }
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
async fn b17_m7_no_websocket_extension_is_negotiated() {
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
fn a14_settings_that_cannot_be_fail_at_once_and_are_named() {
    let layer = layer(&ConnectionManager::new());
    let config = SessionConfig { max_streams: 0, ..SessionConfig::default() };
    let error = layer.clone().session(config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("max_streams"));
    for path in ["", "tunnel", "/a?b", "/a#b", "/a b", "http://host/a"] {
        assert_eq!(layer.clone().at(path).unwrap_err().kind(), ErrorKind::InvalidInput, "{path}");
    }
}

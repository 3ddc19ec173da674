//! What becomes of the heads of requests and responses.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Version};
use http_body_util::{Empty, Full};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use revdial::{
    TargetName,
    proxy::{HostPolicy, Proxy, ProxyBuilder},
};
use tokio::io::AsyncReadExt;

use super::support::{EMPTY, agent, exchange, host, host_of, key, manager, serve_raw, to, verdict};

/// What the service sees of a raw request.
async fn seen(settings: impl FnOnce(ProxyBuilder) -> ProxyBuilder, request: &str) -> Vec<String> {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    let mut heads = serve_raw(listener, EMPTY);
    let mut io = host(&settings(builder).build());
    assert!(exchange(&mut io, request).await.contains(" 200 OK\r\n"));
    let head = heads.recv().await.unwrap();
    head.trim_end().split("\r\n").map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn b80_the_first_line_goes_out_byte_for_byte() {
    for path in [
        "/",
        "/a//b/../c/./d;e",
        "/%2F%2f%00?x=%zz&&=y?#",
        "/?",
        "/?a=b c".replace(' ', "+").as_str(),
        "/~!$&'()*+,;=:@[]|^",
    ] {
        let path = path.trim_end_matches('#'); // a fragment is none of a request's
        let lines = seen(|proxy| proxy, &format!("PROPFIND {path} HTTP/1.1\r\nhost: gateway\r\n\r\n")).await;
        assert_eq!(lines[0], format!("PROPFIND {path} HTTP/1.1"));
    }
    let lines = seen(|proxy| proxy, "OPTIONS * HTTP/1.1\r\nhost: gateway\r\n\r\n").await;
    assert_eq!(lines[0], "OPTIONS * HTTP/1.1");
}

#[tokio::test(start_paused = true)]
async fn p3_end_to_end_headers_stay_and_those_of_the_hop_do_not() {
    let lines = seen(
        |proxy| proxy,
        "GET /x HTTP/1.1\r\nHost: Gateway:8080\r\nConnection: keep-alive, X-Hop, host\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
         Proxy-Authorization: Basic x\r\nProxy-Whatever: 1\r\nTE: gzip, trailers\r\nUpgrade: websocket\r\n\
         Accept: a\r\nAccept: b\r\nX-Empty:\r\nAuthorization: Bearer c\r\n\r\n",
    )
    .await;
    for line in ["host: Gateway:8080", "te: trailers", "connection: te", "accept: a", "accept: b", "x-empty: "] {
        assert!(lines.iter().any(|seen| seen == line || seen == line.trim_end()), "{line} in {lines:?}");
    }
    assert!(lines.contains(&"authorization: Bearer c".to_owned()));
    for name in ["x-hop", "keep-alive", "proxy-", "upgrade"] {
        assert!(!lines.iter().any(|line| line.starts_with(name)), "{name} in {lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn end_to_end_headers_of_a_response_stay_and_those_of_the_hop_do_not() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    serve_raw(
        listener,
        "HTTP/1.1 299 My Reason\r\nconnection: x-hop\r\nx-hop: 1\r\nproxy-authenticate: Basic\r\nkeep-alive: 5\r\n\
         set-cookie: a\r\nset-cookie: b\r\nupgrade: h2c\r\ncontent-length: 0\r\n\r\n",
    );
    let head = exchange(&mut host(&builder.build()), "GET / HTTP/1.1\r\nhost: gateway\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 299 My Reason\r\n"), "{head}");
    assert!(head.contains("set-cookie: a\r\nset-cookie: b\r\n"), "{head}");
    for name in ["x-hop", "proxy-authenticate", "keep-alive", "upgrade"] {
        assert!(!head.contains(name), "{head}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_header_that_is_no_text_still_names_headers() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    let mut heads = serve_raw(listener, EMPTY);
    let proxy: Proxy<Empty<Bytes>> = builder.build();
    let connection = HeaderValue::from_bytes(b"x-secret, \xff").unwrap();
    let request = Request::get("/").header("connection", connection).header("x-secret", "1").body(Empty::new());
    proxy.try_forward(&key(), &TargetName::default(), request.unwrap()).await.unwrap();
    let head = heads.recv().await.unwrap();
    assert!(!head.contains("x-secret"), "{head}");
}

#[tokio::test(start_paused = true)]
async fn p5_the_host_is_kept_or_the_targets_or_fixed() {
    let request = "GET / HTTP/1.1\r\nhost: gateway\r\n\r\n";
    for (policy, expected) in [
        (HostPolicy::Preserve, "host: gateway"),
        (HostPolicy::Target, "host: a"),
        (HostPolicy::Fixed(HeaderValue::from_static("localhost:80")), "host: localhost:80"),
    ] {
        let lines = seen(|proxy| proxy.host(policy), request).await;
        assert!(lines.contains(&expected.to_owned()), "{lines:?}");
    }
    // Nothing to keep; what the pool is keyed by is nobody's business.
    let lines = seen(|proxy| proxy, "GET / HTTP/1.0\r\n\r\n").await;
    assert!(lines.contains(&"host: a".to_owned()), "{lines:?}");

    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    let vnc: TargetName = "vnc".parse().unwrap();
    let mut heads = serve_raw(listener.targets([vnc.clone()]), EMPTY);
    let proxy = builder.host(HostPolicy::Target).build();
    exchange(&mut host_of(&proxy, vnc), request).await;
    assert!(heads.recv().await.unwrap().contains("host: vnc~a\r\n"));
}

#[tokio::test(start_paused = true)]
async fn p6_forwarded_headers_are_the_proxys_own_unless_the_caller_is_trusted() {
    let request = "GET / HTTP/1.1\r\nhost: gateway\r\nx-forwarded-for: 6.6.6.6\r\nx-forwarded-host: evil\r\n\
                   x-forwarded-proto: gopher\r\nx-forwarded-prefix: /evil\r\nforwarded: for=6.6.6.6\r\n\
                   x-real-ip: 6.6.6.6\r\nconnection: x-forwarded-for\r\n\r\n";
    let ip: IpAddr = [10, 0, 0, 1].into();
    let of = |lines: Vec<String>| -> Vec<String> {
        let mut lines: Vec<_> =
            lines.into_iter().filter(|line| line.contains("forwarded") || line.contains("real")).collect();
        lines.sort();
        lines
    };
    let lines = of(seen(|proxy| proxy.peer(move |_| Some(ip)).https(true), request).await);
    assert_eq!(lines, ["x-forwarded-for: 10.0.0.1", "x-forwarded-host: gateway", "x-forwarded-proto: https"]);

    let lines = of(seen(|proxy| proxy, request).await);
    assert_eq!(lines, ["x-forwarded-host: gateway", "x-forwarded-proto: http"]);

    let request = request.replace("connection: x-forwarded-for\r\n", "");
    let lines = of(seen(|proxy| proxy.peer(move |_| Some(ip)).trusted(|_| true), &request).await);
    assert_eq!(
        lines,
        [
            "forwarded: for=6.6.6.6",
            "x-forwarded-for: 10.0.0.1",
            "x-forwarded-for: 6.6.6.6",
            "x-forwarded-host: evil",
            "x-forwarded-prefix: /evil",
            "x-forwarded-proto: gopher",
            "x-real-ip: 6.6.6.6",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_peer_is_found_in_the_extensions() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    let mut heads = serve_raw(listener, EMPTY);
    let proxy: Proxy<Empty<Bytes>> = builder.build();
    let peer: SocketAddr = "[2001:db8::1]:1".parse().unwrap();
    let request = Request::get("/").extension(peer).body(Empty::new()).unwrap();
    proxy.try_forward(&key(), &TargetName::default(), request).await.unwrap();
    assert!(heads.recv().await.unwrap().contains("x-forwarded-for: 2001:db8::1\r\n"));
}

#[tokio::test(start_paused = true)]
async fn b81_connect_foreign_absolute_form_and_h2c_are_not_forwarded() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    let mut heads = serve_raw(listener, EMPTY);
    let proxy = builder.build();
    for (request, status) in [
        ("CONNECT gateway:443 HTTP/1.1\r\nhost: gateway:443\r\n\r\n", "405"),
        ("GET http://elsewhere/ HTTP/1.1\r\nhost: gateway\r\n\r\n", "400"),
        ("GET http://user@gateway/ HTTP/1.1\r\nhost: gateway\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: gateway\r\nhost: other\r\n\r\n", "400"),
        (
            "GET / HTTP/1.1\r\nhost: gateway\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n\
             http2-settings: x\r\n\r\n",
            "400",
        ),
    ] {
        let mut io = host(&proxy);
        let head = exchange(&mut io, request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request} {head}");
        assert_eq!(head.contains("allow: "), status == "405", "{head}");
        let mut kind = [0; "invalid_input".len()];
        io.read_exact(&mut kind).await.unwrap();
        assert_eq!(&kind, b"invalid_input", "{request}");
        assert!(heads.try_recv().is_err(), "{request} was forwarded");
    }
    // The host's own name is no other.
    exchange(&mut host(&proxy), "GET http://gateway/x HTTP/1.1\r\nhost: Gateway\r\n\r\n").await;
    assert!(heads.recv().await.unwrap().starts_with("GET /x HTTP/1.1\r\n"));
}

#[tokio::test(start_paused = true)]
async fn b81_a_websocket_over_http2_that_the_host_cannot_hand_over_is_not_implemented() {
    let (_connman, builder) = manager();
    let proxy: Proxy<Empty<Bytes>> = builder.build();
    let request = Request::builder()
        .method(Method::CONNECT)
        .version(Version::HTTP_2)
        .uri("http://gateway/ws")
        .extension(hyper::ext::Protocol::from_static("websocket"))
        .body(Empty::new())
        .unwrap();
    let response = proxy.forward(&key(), &TargetName::default(), request).await;
    assert_eq!(verdict(response).await, (501, false, "invalid_input".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn http2_requests_go_out_as_http1() {
    let (connman, builder) = manager();
    let (listener, _agent) = agent(&connman).await;
    let mut heads = serve_raw(listener, EMPTY);
    let (near, far) = tokio::io::duplex(64 * 1024);
    let service = to(builder.build(), TargetName::default());
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    tokio::spawn(server.serve_connection(TokioIo::new(far), TowerToHyperService::new(service)));
    let client = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near));
    let (mut sender, connection) = client.await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://gateway:1/p?q").header("cookie", "a=1").header("cookie", "b=2");
    let response = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let head = heads.recv().await.unwrap();
    assert!(head.starts_with("GET /p?q HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("host: gateway:1\r\n") && head.contains("cookie: a=1; b=2\r\n"), "{head}");
}

#[tokio::test(start_paused = true)]
async fn b80_head_and_bodiless_answers_are_as_direct() {
    for (method, answer, length) in [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n", Some("content-length: 7\r\n")),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", None),
        ("GET", "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n", None),
    ] {
        let (connman, builder) = manager();
        let (listener, _agent) = agent(&connman).await;
        serve_raw(listener, answer);
        let mut io = host(&builder.build());
        let request = format!("{method} / HTTP/1.1\r\nhost: gateway\r\n\r\n");
        let status = answer.lines().next().unwrap();
        // Twice, so that both connections are seen to be in step after it.
        for _ in 0..2 {
            let head = exchange(&mut io, &request).await;
            assert!(head.starts_with(status), "{head}");
            assert_eq!(head.contains("content-length"), length.is_some(), "{head}");
            assert!(head.contains(length.unwrap_or("")), "{head}");
            assert!(!head.contains("transfer-encoding"), "{head}");
        }
    }
}

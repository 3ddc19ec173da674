use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{upgrade::host, *};

async fn connect_over(io: DuplexStream) -> Result<Handshake, BoxError> {
    let uri = Uri::from_static("https://user@host.example:8443/tunnel?runnerid=a%20b");
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("Bearer t"));
    connect(TokioIo::new(io), Opening::Upgrade, &uri, headers, true).await
}

async fn request_head(raw: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(raw.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// The answer to the key in a request.
fn accept_of(head: &str) -> String {
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    derive_accept_key(key.as_bytes())
}

/// What comes of this answer; `{accept}` in it is filled in. The server's end stays open.
async fn answered(answer: &str) -> (Result<Handshake, BoxError>, DuplexStream) {
    let (io, mut raw) = duplex(4096);
    let server = async {
        let accept = accept_of(&request_head(&mut raw).await);
        raw.write_all(answer.replace("{accept}", &accept).as_bytes()).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(connect_over(io), server);
    (outcome, raw)
}

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n\
    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n";

#[tokio::test]
async fn the_request_asks_for_the_native_protocol_in_origin_form() {
    let (io, mut raw) = duplex(4096);
    let (outcome, head) = tokio::join!(connect_over(io), async {
        let head = request_head(&mut raw).await;
        drop(raw);
        head
    });
    assert!(outcome.is_err(), "the server hung up");
    assert!(head.starts_with("GET /tunnel?runnerid=a%20b HTTP/1.1\r\n"), "{head}");
    for line in [
        "host: host.example:8443",
        "authorization: Bearer t",
        "upgrade: websocket",
        "connection: Upgrade",
        "sec-websocket-version: 13",
        "sec-websocket-protocol: revdial.v1",
    ] {
        assert_eq!(head.lines().filter(|got| *got == line).count(), 1, "{line} in {head}");
    }
}

#[test]
fn the_host_leaves_out_a_port_that_the_scheme_implies() {
    let hosts = [
        ("http://a:80/", "a"),
        ("https://a:443/", "a"),
        ("wss://a:80/", "a:80"),
        ("http://[::1]:8080/", "[::1]:8080"),
        ("http://a/", "a"),
    ];
    for (uri, expected) in hosts {
        assert_eq!(host(&Uri::from_static(uri)).unwrap(), expected);
    }
    assert!(host(&Uri::from_static("/path")).is_err());
}

#[tokio::test]
async fn the_chosen_subprotocol_makes_a_native_link_and_early_bytes_are_kept() {
    let (outcome, mut raw) =
        answered(&format!("{SWITCHING}Sec-WebSocket-Protocol: revdial.v1\r\n\r\n\u{2}\u{5}early")).await;
    // U+0002 in place of 0x82, which a string cannot have: a first fragment. The last one follows.
    raw.write_all(b"\x80\x05 late").await.unwrap();
    let Ok(Handshake::Switched { mut link, protocol: Protocol::Native, stripped: false }) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(link.recv().await.unwrap(), "early late");
    link.send(Bytes::from_static(b"x")).await.unwrap();
    let mut frame = [0; 7];
    raw.read_exact(&mut frame).await.unwrap();
    assert_eq!((frame[0], frame[1], frame[6] ^ frame[2]), (0x82, 0x81, b'x'), "masked");
}

#[tokio::test]
async fn the_marker_tells_a_choice_that_was_stripped_from_an_offer_that_was() {
    let table = [
        ("revdial-protocol: revdial.v1\r\n", Protocol::Native, true),
        ("revdial-protocol: dial-back\r\n", Protocol::Dialback, true),
        ("", Protocol::Dialback, false),
    ];
    for (header, expected, was_stripped) in table {
        let (outcome, _raw) = answered(&format!("{SWITCHING}{header}\r\n")).await;
        let Ok(Handshake::Switched { protocol, stripped, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!((protocol, stripped), (expected, was_stripped), "{header}");
    }
}

#[tokio::test]
async fn what_was_not_offered_is_not_asked_for_and_cannot_be_chosen() {
    for (header, works) in
        [("", true), ("revdial-protocol: dial-back\r\n", true), ("Sec-WebSocket-Protocol: revdial.v1\r\n", false)]
    {
        let (io, mut raw) = duplex(4096);
        let server = async {
            let head = request_head(&mut raw).await;
            assert!(!head.contains("sec-websocket-protocol"), "{head}");
            let answer = format!("{SWITCHING}{header}\r\n").replace("{accept}", &accept_of(&head));
            raw.write_all(answer.as_bytes()).await.unwrap();
        };
        let uri = Uri::from_static("http://host/tunnel");
        let (outcome, ()) =
            tokio::join!(connect(TokioIo::new(io), Opening::Upgrade, &uri, HeaderMap::new(), false), server);
        match outcome {
            Ok(Handshake::Switched { protocol: Protocol::Dialback, stripped: false, .. }) => assert!(works),
            outcome => assert!(!works && outcome.is_err(), "{outcome:?}"),
        }
    }
}

#[tokio::test]
async fn a_connection_that_was_picked_up_bears_bytes_and_those_behind_the_101_are_kept() {
    let (io, mut raw) = duplex(4096);
    let server = async {
        let head = request_head(&mut raw).await;
        let order: Vec<&str> =
            head.lines().skip(1).filter_map(|line| line.split(':').next()).filter(|name| !name.is_empty()).collect();
        let expected = ["host", "user-agent", "connection", "sec-websocket-key", "sec-websocket-version", "upgrade"];
        assert_eq!(order, expected);
        let mut answer = format!("{SWITCHING}\r\n").replace("{accept}", &accept_of(&head)).into_bytes();
        answer.extend([0x82, 1, b'x']);
        raw.write_all(&answer).await.unwrap();
    };
    let uri = Uri::from_static("http://host/tunnel?revdial.dialer=0&revdial.req=1");
    let (outcome, ()) = tokio::join!(pick_up(TokioIo::new(io), Opening::Upgrade, &uri, HeaderMap::new()), server);
    let mut link = outcome.unwrap().unwrap();
    let read = poll_fn(|cx| link.poll_read(cx, 9)).await.unwrap();
    assert_eq!(read.unwrap(), "x");
}

#[tokio::test]
async fn a_101_that_no_websocket_server_gives_is_an_error_that_names_the_header() {
    let answers = [
        ("sec-websocket-accept", SWITCHING.replace("{accept}", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")),
        ("upgrade", SWITCHING.replace("WebSocket\r", "h2c\r")),
        ("connection", SWITCHING.replace("keep-alive, Upgrade", "keep-alive")),
        ("sec-websocket-extensions", format!("{SWITCHING}Sec-WebSocket-Extensions: permessage-deflate\r\n")),
        ("sec-websocket-protocol", format!("{SWITCHING}Sec-WebSocket-Protocol: chat\r\n")),
    ];
    for (header, answer) in answers {
        let (outcome, _raw) = answered(&format!("{answer}\r\n")).await;
        let text = outcome.unwrap_err().to_string();
        assert!(text.ends_with(header), "{text}");
    }
}

#[tokio::test]
async fn a_refusal_tells_status_headers_and_body() {
    let (outcome, _raw) = answered("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 9\r\n\r\ncome back").await;
    let Ok(Handshake::Refused(Refused { status, headers, body })) = outcome else { panic!("{outcome:?}") };
    assert_eq!((status.as_u16(), headers["retry-after"].to_str().unwrap(), &*body), (503, "7", "come back"));
}

#[tokio::test]
async fn a_redirect_and_a_page_are_refusals() {
    for (answer, expected) in [
        ("HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n", 302),
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", 200),
    ] {
        let (outcome, _raw) = answered(answer).await;
        assert!(matches!(outcome, Ok(Handshake::Refused(Refused { status, .. })) if status == expected), "{outcome:?}");
    }
}

#[tokio::test]
async fn of_a_long_body_one_kibibyte_is_kept() {
    let answer = format!("HTTP/1.1 401 No\r\nContent-Length: 99999\r\n\r\n{}", "x".repeat(3000));
    let (outcome, _raw) = answered(&answer).await;
    assert!(matches!(outcome, Ok(Handshake::Refused(Refused { ref body, .. })) if body.len() == 1024), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_does_not_hide_the_status() {
    let (outcome, _raw) = answered("HTTP/1.1 401 No\r\nContent-Length: 10\r\n\r\npart").await;
    let Ok(Handshake::Refused(Refused { status, body, .. })) = outcome else { panic!("{outcome:?}") };
    assert_eq!((status.as_u16(), &*body), (401, "part"));
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_an_error() {
    let (outcome, _raw) = answered("SSH-2.0-OpenSSH_9.9\r\n\r\n").await;
    assert!(outcome.is_err());
}

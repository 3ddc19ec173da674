//! Requests whose headers frame a body, or whose WebSocket key is none; and parameters of a later version.

use bytes::{BufMut, BytesMut};
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use revdial::{
    connman::ConnectionManager,
    frame::{FRAME_HEAD, Frame, MESSAGE_HEAD, MessageHead},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    Counted, URI, ask, block_on, granted, key, layer,
    raw::{Arrived, RawAgent, hello, serve},
};

/// A request that is granted but for `change`: its status, whether its connection closes, what is counted.
fn refused(change: impl FnOnce(&mut Request<Full<bytes::Bytes>>)) -> (u16, bool, Vec<String>) {
    Counted::within(|counted| {
        let (status, closes) = block_on(async {
            let mut request = granted(URI).body(Full::default()).unwrap();
            change(&mut request);
            let response = ask(&layer(&ConnectionManager::new()), request).await;
            let closes = response.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
            let status = response.status().as_u16();
            assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
            (status, closes)
        });
        (status, closes, counted.take())
    })
}

#[test]
fn b2_another_method_is_405_and_a_body_of_any_framing_400_and_both_close_the_connection() {
    for method in ["POST", "PUT", "HEAD", "DELETE"] {
        let counted = vec!["revdial_handshake_rejected_total{method}".to_owned()];
        let answer = refused(|request| *request.method_mut() = method.parse().unwrap());
        assert_eq!(answer, (405, true, counted), "{method}");
    }
    for (name, value) in [("transfer-encoding", "chunked"), ("transfer-encoding", "gzip"), ("content-length", "5")] {
        let counted = vec!["revdial_handshake_rejected_total{body}".to_owned()];
        let answer = refused(|request| drop(request.headers_mut().insert(name, value.parse().unwrap())));
        assert_eq!(answer, (400, true, counted), "{name}: {value}");
    }
    let empty = refused(|request| drop(request.headers_mut().insert("content-length", "0".parse().unwrap())));
    assert_eq!(empty.0, 101, "none is none");
}

#[test]
fn b4_a_websocket_key_that_is_missing_given_twice_or_not_of_16_bytes_is_400() {
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    let table: [(&str, &[&str]); 7] = [
        ("missing", &[]),
        ("twice", &[KEY, KEY]),
        ("15 bytes", &["dGhlIHNhbXBsZSBub25j"]),
        ("17 bytes", &["dGhlIHNhbXBsZSBub25jZXM="]),
        ("no base64", &["dGhlIHNhbXBsZSBub2*jZQ=="]),
        ("without its padding", &["dGhlIHNhbXBsZSBub25jZQ"]),
        ("empty", &[""]),
    ];
    for (name, keys) in table {
        let (status, _, counted) = refused(|request| {
            let headers = request.headers_mut();
            headers.remove(header::SEC_WEBSOCKET_KEY);
            for key in keys {
                headers.append(header::SEC_WEBSOCKET_KEY, key.parse().unwrap());
            }
        });
        assert_eq!(
            (status, counted),
            (400, vec!["revdial_handshake_rejected_total{websocket_key}".to_owned()]),
            "{name}"
        );
    }
}

#[test]
fn b90_parameters_of_hello_that_a_later_version_may_have_are_skipped() {
    block_on(async {
        let connman = ConnectionManager::new();
        let mut agent = RawAgent::open(serve(layer(&connman).into_service()), granted(URI)).await;
        let mut message = BytesMut::new();
        MessageHead { number: 0, received: 0 }.encode(&mut message);
        Frame::Hello(hello(1)).encode(&mut message);
        let (unknown, length) = (b"something new", message.len());
        message.put_u16(0x7777);
        message.put_u16(unknown.len() as u16);
        message.put_slice(unknown);
        // The length of the frame's payload: three bytes behind its type.
        let payload = (message.len() - MESSAGE_HEAD - FRAME_HEAD) as u32;
        assert!(message.len() > length);
        message[MESSAGE_HEAD + 1..MESSAGE_HEAD + 4].copy_from_slice(&payload.to_be_bytes()[1..]);
        agent.send_raw(Message::Binary(message.freeze())).await;
        let welcome = agent.recv().await;
        assert!(
            matches!(&welcome, Arrived::Frames(_, frames) if matches!(frames[..], [Frame::Welcome(_)])),
            "{welcome:?}"
        );
        assert!(connman.epoch(&key("a")).is_some());
    });
}

//! WebSocket frames that cannot be, byte by byte, to a live server and to a live agent.

use bytes::BytesMut;
use http_body_util::Full;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use revdial::{
    ErrorKind, TargetName,
    frame::{CloseCode, Frame, MessageHead},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::{
    agent::Servers,
    net::TOKEN,
    raw::{PATH, hello, send, upgrade},
    support::{Running, World, key, until},
    wire,
};

const MASK: Option<[u8; 4]> = Some([1, 2, 3, 4]);

/// A frame of a message that is whole.
fn frame(opcode: u8, mask: Option<[u8; 4]>) -> wire::Frame {
    wire::Frame { mask, ..wire::Frame::new(opcode, *b"0123456789abcdef") }
}

/// What no frame may be, with this mask where the sender has to have one.
fn impossible(mask: Option<[u8; 4]>) -> Vec<(&'static str, wire::Frame)> {
    vec![
        ("a reserved opcode", frame(3, mask)),
        ("reserved bits", wire::Frame { reserved: 4, ..frame(wire::BINARY, mask) }),
        ("a ping in pieces", wire::Frame { is_last: false, ..frame(wire::PING, mask) }),
        ("a piece of nothing", frame(wire::CONTINUATION, mask)),
        ("a long ping", wire::Frame { payload: vec![7; 126], ..frame(wire::PING, mask) }),
    ]
}

/// The code of the close frame that comes.
async fn closed(io: &mut (impl AsyncRead + Unpin)) -> u16 {
    let mut bytes = BytesMut::new();
    loop {
        while let Some((frame, length)) = wire::Frame::decode(&bytes) {
            let _ = bytes.split_to(length);
            if frame.opcode == wire::CLOSE {
                return u16::from_be_bytes(*frame.payload.first_chunk().expect("a code"));
            }
        }
        assert_ne!(io.read_buf(&mut bytes).await.unwrap(), 0, "an end without a close frame");
    }
}

/// An agent's end of a link that had its WELCOME, as bytes.
async fn link(world: &World) -> TokioIo<Upgraded> {
    let request = upgrade(&format!("{PATH}?runnerid=a")).header("authorization", format!("Bearer {TOKEN}"));
    let response = send(world.net.open(), request.body(Full::default()).unwrap()).await;
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut message = BytesMut::new();
    MessageHead { number: 0, received: 0 }.encode(&mut message);
    Frame::Hello(hello(1)).encode(&mut message);
    let hello = wire::Frame { mask: MASK, ..wire::Frame::new(wire::BINARY, message.to_vec()) };
    io.write_all(&hello.encode()).await.unwrap();
    until("connected", || world.connman.epoch(&key()).is_some()).await;
    io
}

#[tokio::test(start_paused = true)]
async fn b28_frames_that_no_agent_may_send_end_the_session_with_1002() {
    let mut cases = impossible(MASK);
    cases.push(("no mask", frame(wire::BINARY, None)));
    for (what, frame) in cases {
        let world = World::new();
        let mut io = link(&world).await;
        let dialled = tokio::spawn(world.connman.dial(&key(), &TargetName::default()).early_data(true));
        let mut stream = dialled.await.unwrap().unwrap();
        io.write_all(&frame.encode()).await.unwrap();
        assert_eq!(closed(&mut io).await, CloseCode::MALFORMED.number(), "{what}");
        assert_eq!(crate::support::end(&mut stream).await, Some(ErrorKind::Protocol), "{what}");
        assert_eq!(world.counted.sum("revdial_protocol_errors_total{1002}"), 1, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn b28_frames_that_no_server_may_send_end_the_session_with_1002() {
    let mut cases = impossible(None);
    cases.push(("a mask", frame(wire::BINARY, MASK)));
    for (what, frame) in cases {
        let mut servers = Servers::new();
        let mut agent = Running::new(servers.net.agent());
        let mut io = servers.link().await.into_io();
        agent.connected().await;
        io.write_all(&frame.encode()).await.unwrap();
        assert_eq!(closed(&mut io).await, CloseCode::MALFORMED.number(), "{what}");
        assert_eq!(servers.counted.sum("revdial_protocol_errors_total{1002}"), 1, "{what}");
    }
}

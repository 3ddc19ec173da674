//! A dial-back peer as the deployed ones are, on a raw byte stream: an agent, which asks and masks its frames, or a
//! server, which grants and does not. Whatever does not come in time, or is not as it should be, panics.

#[path = "wire.rs"]
pub(crate) mod wire;

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use wire::{BINARY, CLOSE, CONTINUATION, Frame, Head, PING, PONG, TEXT, accept};

/// What nothing takes that is not stuck: longer than a peer may be silent.
const LONG: Duration = Duration::from_secs(120);

pub(crate) const KEEP_ALIVE: &str = "{\"command\":\"keep-alive\"}\n";

/// Any key will do: it is the server's to answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// In front of the ids of a pick-up, in their order.
const IDS: [&str; 2] = ["revdial.dialer=", "revdial.req="];

/// Which of the two peers this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Agent,
    Server,
}

/// What came behind control frames that concern nobody.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    Binary(Vec<u8>),
    Text(Vec<u8>),
    /// A close frame with this code, or without one.
    Closed(Option<u16>),
    /// The end of the bytes below, without a close frame.
    End,
}

/// One connection of the scripted peer.
#[derive(Debug)]
pub(crate) struct Peer<S> {
    io: S,
    side: Side,
    unread: BytesMut,
    /// Of a fragmented message that is not whole.
    pieces: Option<(u8, Vec<u8>)>,
    /// Of the byte stream that messages carry.
    stream: BytesMut,
    masks: u32,
}

/// Waits for what has to come in time.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(LONG, what).await.expect("it did not come in time")
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) fn new(io: S, side: Side) -> Self {
        Self { io, side, unread: BytesMut::new(), pieces: None, stream: BytesMut::new(), masks: 0 }
    }

    /// Writes whatever it is. That the other side is gone is for the next read to tell.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = soon(self.io.write_all(bytes)).await;
    }

    /// Ends this direction of the bytes below, without a close frame.
    pub(crate) async fn finish(&mut self) {
        let _ = soon(self.io.shutdown()).await;
    }

    /// Sends one frame, masked if this side masks.
    pub(crate) async fn send_frame(&mut self, mut frame: Frame) {
        if self.side == Side::Agent {
            self.masks = self.masks.wrapping_mul(0x915f_77f5).wrapping_add(0x9e37_79b9);
            frame.mask = Some(self.masks.to_be_bytes());
        }
        self.write(&frame.encode()).await;
    }

    /// Sends a message of one frame.
    pub(crate) async fn send(&mut self, opcode: u8, payload: impl Into<Vec<u8>>) {
        self.send_frame(Frame::new(opcode, payload)).await;
    }

    /// Sends a control line, or what is none.
    pub(crate) async fn say(&mut self, line: impl Into<Vec<u8>>) {
        self.send(BINARY, line).await;
    }

    /// Sends one message in so many frames, with a ping in front of each but the first.
    pub(crate) async fn say_in_pieces(&mut self, pieces: &[&[u8]]) {
        for (nth, piece) in pieces.iter().enumerate() {
            if nth > 0 {
                self.send(PING, format!("ping {nth}")).await;
            }
            let opcode = if nth == 0 { BINARY } else { CONTINUATION };
            let is_last = nth + 1 == pieces.len();
            self.send_frame(Frame { is_last, ..Frame::new(opcode, *piece) }).await;
        }
    }

    pub(crate) async fn head(&mut self) -> Head {
        loop {
            if let Some((head, length)) = Head::decode(&self.unread) {
                self.unread.advance(length);
                return head;
            }
            assert!(self.fill().await, "the end, in the place of a head");
        }
    }

    /// The next frame of any kind; `None` is the end of the bytes below, which is between two frames.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, length)) = Frame::decode(&self.unread) {
                self.unread.advance(length);
                assert_eq!(frame.mask.is_some(), self.side == Side::Server, "agents mask, servers do not: {frame:?}");
                assert_eq!(frame.reserved, 0, "no extension was agreed on: {frame:?}");
                return Some(frame);
            }
            if !self.fill().await {
                assert!(self.unread.is_empty(), "the end within a frame");
                return None;
            }
        }
    }

    /// The next message or end. Pings are answered, pongs left out.
    pub(crate) async fn next(&mut self) -> Arrived {
        soon(self.message()).await
    }

    async fn message(&mut self) -> Arrived {
        loop {
            let Some(Frame { is_last, opcode, payload, .. }) = self.frame().await else { return Arrived::End };
            match opcode {
                PING => self.send(PONG, payload).await,
                PONG => {}
                CLOSE => return Arrived::Closed(payload.first_chunk().map(|code| u16::from_be_bytes(*code))),
                BINARY | TEXT => {
                    assert_eq!(self.pieces, None, "a message within another");
                    self.pieces = Some((opcode, payload));
                }
                CONTINUATION => self.pieces.as_mut().expect("something to continue").1.extend(payload),
                _ => panic!("no such opcode: {opcode}"),
            }
            match self.pieces.take_if(|_| is_last && opcode < CLOSE) {
                Some((BINARY, message)) => return Arrived::Binary(message),
                Some((_, message)) => return Arrived::Text(message),
                None => {}
            }
        }
    }

    /// The next control line, which is a message of one frame for itself.
    pub(crate) async fn line(&mut self) -> String {
        soon(self.any_line()).await
    }

    async fn any_line(&mut self) -> String {
        loop {
            let frame = self.frame().await.expect("a line, and not the end");
            match frame.opcode {
                PING => self.send(PONG, frame.payload).await,
                PONG => {}
                _ => {
                    assert_eq!((frame.opcode, frame.is_last), (BINARY, true), "{frame:?}");
                    let line = String::from_utf8(frame.payload).expect("a line in UTF-8");
                    assert_eq!(line.find('\n'), Some(line.len() - 1), "one line: {line:?}");
                    return line;
                }
            }
        }
    }

    /// So many bytes of the stream that messages carry, whatever their borders.
    pub(crate) async fn bytes(&mut self, length: usize) -> Vec<u8> {
        while self.stream.len() < length {
            match self.next().await {
                Arrived::Binary(message) => self.stream.extend_from_slice(&message),
                other => panic!("{other:?} after {} bytes of {length}", self.stream.len()),
            }
        }
        self.stream.split_to(length).to_vec()
    }

    /// Answers pings until this code closes the connection.
    pub(crate) async fn closed_with(&mut self, code: u16) {
        assert_eq!(self.ends().await, Arrived::Closed(Some(code)));
    }

    /// How the connection ends, behind whatever else comes.
    pub(crate) async fn ends(&mut self) -> Arrived {
        soon(async {
            loop {
                let arrived = self.message().await;
                if matches!(arrived, Arrived::Closed(_) | Arrived::End) {
                    return arrived;
                }
            }
        })
        .await
    }

    /// How many pings come before the end, of which none is answered.
    pub(crate) async fn pings(&mut self) -> usize {
        let mut pings = 0;
        while let Some(frame) = self.frame().await {
            pings += usize::from(frame.opcode == PING);
        }
        pings
    }

    /// False at the end of the bytes below.
    async fn fill(&mut self) -> bool {
        soon(self.io.read_buf(&mut self.unread)).await.expect("no reset") > 0
    }
}

/// As an agent.
impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// Asks on a fresh connection, and hears the answer.
    pub(crate) async fn ask(io: S, request: &Head) -> (Self, Head) {
        let mut peer = Self::new(io, Side::Agent);
        peer.write(&request.encode()).await;
        let answer = peer.head().await;
        (peer, answer)
    }

    /// Opens a control connection, which has to be granted.
    pub(crate) async fn control(io: S, key: &str, token: &str) -> Self {
        let (mut peer, answer) = Self::ask(io, &request(&format!("/api/v1/revdial?runnerid={key}"), token)).await;
        is_granted(&answer, KEY);
        assert_eq!(peer.line().await, KEEP_ALIVE);
        peer
    }

    /// The path of the next connection that the server asks for.
    pub(crate) async fn conn_ready(&mut self) -> String {
        let line = soon(async {
            loop {
                let line = self.any_line().await;
                if line != KEEP_ALIVE {
                    return line;
                }
            }
        });
        let line = line.await;
        let path = line.strip_prefix("{\"command\":\"conn-ready\",\"connPath\":\"");
        let path = path.and_then(|rest| rest.strip_suffix("\"}\n")).unwrap_or_else(|| panic!("{line:?}"));
        path.replace("\\u0026", "&")
    }

    /// Brings a connection that was asked for, or gives the status by which that is refused.
    pub(crate) async fn pick_up(io: S, path: &str, token: &str) -> Result<Self, u16> {
        let (peer, answer) = Self::ask(io, &request(&path.replacen("/revdial", "/api/v1/revdial", 1), token)).await;
        if answer.status() != 101 {
            return Err(answer.status());
        }
        is_granted(&answer, KEY);
        Ok(peer)
    }

    /// Says that a connection cannot be brought.
    pub(crate) async fn pickup_failed(&mut self, path: &str, err: &str) {
        self.say(pickup_failed(path, err)).await;
    }
}

/// As a server.
impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// Hears what is asked on a fresh connection.
    pub(crate) async fn asked(io: S) -> (Self, Head) {
        let mut peer = Self::new(io, Side::Server);
        let request = peer.head().await;
        (peer, request)
    }

    /// Grants what was asked, with the headers of the deployed server and no other.
    pub(crate) async fn grant(&mut self, request: &Head) {
        self.write(&grant(request).encode()).await;
    }

    /// Asks for a connection.
    pub(crate) async fn say_ready(&mut self, path: &str) {
        self.say(conn_ready(path)).await;
        self.say(KEEP_ALIVE).await;
    }
}

/// What the deployed agent asks, its headers in their order.
pub(crate) fn request(target: &str, token: &str) -> Head {
    let headers = [
        ("Host", "gateway"),
        ("User-Agent", "Go-http-client/1.1"),
        ("Authorization", &format!("Bearer {token}")),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
        ("Upgrade", "websocket"),
    ];
    Head::new(&format!("GET {target} HTTP/1.1"), &headers)
}

/// What the deployed server grants.
pub(crate) fn grant(request: &Head) -> Head {
    let accept = accept(request.get("Sec-WebSocket-Key").expect("a key"));
    let headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", &accept)];
    Head::new("HTTP/1.1 101 Switching Protocols", &headers)
}

/// An answer that the deployed agent takes for a grant: what it must have, and nothing beside it that says more than
/// who answered and when.
pub(crate) fn is_granted(answer: &Head, key: &str) {
    assert_eq!(answer.start_line, "HTTP/1.1 101 Switching Protocols");
    for (name, value) in [("Upgrade", "websocket"), ("Connection", "upgrade")] {
        assert!(answer.get(name).is_some_and(|told| told.eq_ignore_ascii_case(value)), "{name}: {answer:?}");
    }
    assert_eq!(answer.get("Sec-WebSocket-Accept"), Some(accept(key).as_str()));
    let known = ["upgrade", "connection", "sec-websocket-accept", "date", "revdial-protocol"];
    let is_known = |name: &String| known.contains(&name.to_ascii_lowercase().as_str());
    assert!(answer.headers.iter().all(|(name, _)| is_known(name)), "{answer:?}");
}

/// The line by which a server asks for a connection.
pub(crate) fn conn_ready(path: &str) -> String {
    format!("{{\"command\":\"conn-ready\",\"connPath\":{}}}\n", escaped(path))
}

/// The line by which an agent says that it brings none.
pub(crate) fn pickup_failed(path: &str, err: &str) -> String {
    format!("{{\"command\":\"pickup-failed\",\"connPath\":{},\"err\":{}}}\n", escaped(path), escaped(err))
}

/// A JSON string as Go's encoder writes it.
fn escaped(text: &str) -> String {
    let text = serde_json::to_string(text).expect("a text");
    text.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
}

/// The ids in a path or in a line: 32 lower-case hex digits each.
pub(crate) fn ids(text: &str) -> Option<[&str; 2]> {
    let [dialer, request] = IDS.map(|name| {
        let id = text.split_once(name)?.1.get(..32)?;
        id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')).then_some(id)
    });
    Some([dialer?, request?])
}

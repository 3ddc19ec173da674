//! An origin that follows a script, and tells what it was sent.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::timeout,
};

use super::{
    generated::{Answer, Body, Closes, Exchange, Expectation, Fields, Raw, Talk},
    wire::{Content, Head, Wire},
};

/// The field by which a request says which of a talk's exchanges it belongs to.
pub(crate) const NUMBER: &str = "x-exchange";

/// What is sent with a switch to raw bytes, and what is said after the other side has ended.
pub(crate) const PROTOCOL: &str = "raw/1";
pub(crate) const LAST_WORD: &[u8] = b"that is all";

/// A request as an origin sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) number: usize,
    pub(crate) head: Head,
    pub(crate) content: Content,
    /// After a 101.
    pub(crate) raw: BytesMut,
}

/// An origin. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    talk: Arc<Talk>,
    seen: Arc<watch::Sender<Vec<Seen>>>,
}

impl Origin {
    pub(crate) fn new(talk: &Talk) -> Self {
        Self { talk: Arc::new(talk.clone()), seen: Arc::default() }
    }

    /// All that it was sent, in the order of the talk. What is early answered may come after its answer.
    pub(crate) async fn seen(&self) -> Vec<Seen> {
        let mut all = self.seen.subscribe();
        let complete = all.wait_for(|seen| seen.len() == self.talk.exchanges.len());
        let _ = timeout(Duration::from_secs(20), complete).await;
        let mut seen = self.seen.borrow().clone();
        seen.sort_by_key(|seen| seen.number);
        seen
    }

    /// Serves one connection; gives all bytes that came over it.
    pub(crate) async fn serve(self, io: impl AsyncRead + AsyncWrite + Unpin) -> BytesMut {
        let mut wire = Wire::new(io);
        while let Some(head) = wire.head().await {
            let number: usize = head.field(NUMBER).and_then(|number| number.parse().ok()).expect("a number");
            let exchange = &self.talk.exchanges[number];
            let closes = closes(exchange) || head.lists("connection", "close");
            let (content, raw) = answer(&mut wire, exchange, &head, closes).await;
            self.seen.send_modify(|all| all.push(Seen { number, head, content, raw }));
            if closes || exchange.answer.raw.is_some() {
                wire.end().await;
                break;
            }
        }
        wire.received()
    }
}

fn closes(exchange: &Exchange) -> bool {
    exchange.closes == Closes::Origin || exchange.expects == Some(Expectation::Refused)
}

/// Reads the rest of a request and answers it.
async fn answer<T>(wire: &mut Wire<T>, exchange: &Exchange, head: &Head, closes: bool) -> (Content, BytesMut)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    for status in &exchange.answer.informational {
        let _ = wire.write(format!("HTTP/1.1 {status} Wait\r\nlink: <{status}>\r\n\r\n").as_bytes()).await;
    }
    let response = response(exchange.method, &exchange.answer, closes);
    if exchange.expects == Some(Expectation::Refused) {
        let _ = wire.write(&response).await;
        return Default::default();
    }
    if exchange.expects == Some(Expectation::Continued) {
        let _ = wire.write(b"HTTP/1.1 100 Continue\r\n\r\n").await;
    }
    if exchange.answer.is_early {
        let _ = wire.write(&response).await;
        return (wire.content(head.framing()).await, BytesMut::new());
    }
    let content = wire.content(head.framing()).await;
    let _ = wire.write(&response).await;
    let raw = match &exchange.answer.raw {
        Some(raw) => turns(wire, raw, false).await,
        None => BytesMut::new(),
    };
    (content, raw)
}

/// A response, as bytes.
fn response(method: &str, answer: &Answer, closes: bool) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {}\r\n", answer.status).into_bytes();
    put(&mut bytes, &answer.fields);
    if closes {
        bytes.extend(b"Connection: close\r\n");
    }
    if answer.raw.is_some() {
        bytes.extend(format!("Connection: upgrade\r\nUpgrade: {PROTOCOL}\r\n\r\n").as_bytes());
        return bytes;
    }
    put_body(&mut bytes, &answer.body, method == "HEAD");
    bytes
}

/// Adds the fields of a head.
pub(crate) fn put(bytes: &mut Vec<u8>, fields: &Fields) {
    for (name, value) in fields {
        bytes.extend(name.as_bytes());
        bytes.extend(b":");
        bytes.extend(value);
        bytes.extend(b"\r\n");
    }
}

/// Adds the fields that frame a body, the end of the head, and the body unless only its head is meant.
pub(crate) fn put_body(bytes: &mut Vec<u8>, body: &Body, is_head_only: bool) {
    let (framing, data) = match body {
        Body::None => (String::new(), Bytes::new()),
        Body::Close(data) => (String::new(), data.clone()),
        Body::Length(data) => (format!("Content-Length: {}\r\n", data.len()), data.clone()),
        Body::Chunked(chunks, trailers) => {
            let mut names = trailers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            if !names.is_empty() {
                names = format!("Trailer: {names}\r\n");
            }
            (format!("{names}Transfer-Encoding: chunked\r\n"), chunked(chunks, trailers).into())
        }
    };
    bytes.extend(framing.as_bytes());
    bytes.extend(b"\r\n");
    if !is_head_only {
        bytes.extend(data);
    }
}

fn chunked(chunks: &[Bytes], trailers: &Fields) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in chunks {
        bytes.extend(format!("{:x};ext=\"1\"\r\n", chunk.len()).as_bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n");
    put(&mut bytes, trailers);
    bytes.extend(b"\r\n");
    bytes
}

/// What is said after a 101, from one side; gives what was heard.
pub(crate) async fn turns<T>(wire: &mut Wire<T>, raw: &Raw, is_caller: bool) -> BytesMut
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut heard = BytesMut::new();
    for (n, turn) in raw.turns.iter().enumerate() {
        if (n % 2 == 0) == is_caller {
            let _ = wire.write(turn).await;
        } else if wire.take(turn.len(), &mut heard).await.is_none() {
            return heard;
        }
    }
    if raw.caller_ends_first == is_caller {
        wire.end().await;
        wire.until_end(&mut heard).await;
    } else {
        wire.until_end(&mut heard).await;
        let _ = wire.write(LAST_WORD).await;
        wire.end().await;
    }
    heard
}

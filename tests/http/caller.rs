//! A caller that follows a script, and tells what it was answered.

use std::future::Future;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    generated::{Body, Closes, Exchange, Expectation, Talk},
    origin::{NUMBER, PROTOCOL, put, put_body, turns},
    wire::{Content, Head, Wire},
};

/// A response as a caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) informational: Vec<Head>,
    /// None: the connection ended before it.
    pub(crate) head: Option<Head>,
    pub(crate) content: Content,
    /// After a 101.
    pub(crate) raw: BytesMut,
}

/// Has a talk over connections that it opens as it needs them. The last one is given back: what is early answered may
/// still be under way.
pub(crate) async fn talk<C, F, T>(talk: &Talk, connect: C) -> (Vec<Answered>, Wire<T>)
where
    C: Fn() -> F,
    F: Future<Output = T>,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut wire = Wire::new(connect().await);
    if talk.is_pipelined {
        let requests = talk.exchanges.iter().enumerate();
        let requests = requests.flat_map(|(n, exchange)| [head(n, exchange), body(exchange)].concat());
        let _ = wire.write(&requests.collect::<Vec<_>>()).await;
    }
    let mut answers = Vec::new();
    for (n, exchange) in talk.exchanges.iter().enumerate() {
        if !talk.is_pipelined {
            let _ = wire.write(&head(n, exchange)).await;
            if exchange.expects.is_none() {
                let _ = wire.write(&body(exchange)).await;
            }
        }
        answers.push(hear(&mut wire, exchange).await);
        if exchange.expects == Some(Expectation::Refused) {
            wire = Wire::new(connect().await);
        }
    }
    (answers, wire)
}

async fn hear<T>(wire: &mut Wire<T>, exchange: &Exchange) -> Answered
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut answered =
        Answered { informational: Vec::new(), head: None, content: Content::default(), raw: BytesMut::new() };
    let head = loop {
        let Some(head) = wire.head().await else { return answered };
        match head.status() {
            100 => {
                let _ = wire.write(&body(exchange)).await;
            }
            101 | 200.. => break head,
            _ => {}
        }
        answered.informational.push(head);
    };
    if head.status() == 101
        && let Some(raw) = &exchange.answer.raw
    {
        answered.raw = turns(wire, raw, true).await;
    } else {
        answered.content = wire.content(head.framing_to(exchange.method)).await;
    }
    answered.head = Some(head);
    answered
}

/// The head of a request, as bytes, to its end.
fn head(number: usize, exchange: &Exchange) -> Vec<u8> {
    let mut bytes = format!("{} {} HTTP/1.1\r\nHost: gateway\r\n", exchange.method, exchange.path).into_bytes();
    bytes.extend(format!("{NUMBER}: {number}\r\n").as_bytes());
    put(&mut bytes, &exchange.fields);
    if exchange.expects.is_some() {
        bytes.extend(b"Expect: 100-continue\r\n");
    }
    if exchange.closes == Closes::Caller {
        bytes.extend(b"Connection: close\r\n");
    }
    if matches!(exchange.answer.body, Body::Chunked(..)) {
        bytes.extend(b"TE: trailers\r\nConnection: TE\r\n");
    }
    if exchange.answer.raw.is_some() {
        bytes.extend(format!("Connection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n").as_bytes());
    }
    put_body(&mut bytes, &exchange.body, true);
    bytes
}

/// The body of a request, as bytes.
fn body(exchange: &Exchange) -> Vec<u8> {
    let (mut head, mut whole) = (Vec::new(), Vec::new());
    put_body(&mut head, &exchange.body, true);
    put_body(&mut whole, &exchange.body, false);
    whole.split_off(head.len())
}

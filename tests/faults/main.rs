//! What a live server and a live agent do with frames that break a rule or flood them: what the peer is told, what the
//! callers see, and what is counted.
#![cfg(all(feature = "proxy", feature = "agent"))]

mod agent;
#[path = "../support/counted.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod counted;
mod ignored;
#[path = "../support/net.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod net;
#[path = "../support/raw.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod raw;
mod server;
#[path = "../survive/support.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod support;
#[path = "../support/wire.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod wire;
mod wires;

use bytes::{Bytes, BytesMut};
use revdial::{
    ErrorKind, TargetName, TunnelStream,
    connman::ConnectionManager,
    frame::{CloseCode, Frame, MessageHead, StreamId},
    proto::SessionConfig,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    raw::{Arrived, RawAgent, hello},
    support::{World, end, key, until},
};

/// A server, an agent under a script, and a stream that both have.
struct Live {
    world: World,
    agent: RawAgent,
    id: StreamId,
    stream: TunnelStream,
}

impl Live {
    async fn new() -> Self {
        Self::of(SessionConfig::default()).await
    }

    async fn of(config: SessionConfig) -> Self {
        let world = World::of(ConnectionManager::builder(), config);
        let mut agent = world.raw().await;
        agent.greet(hello(1)).await;
        let (id, stream) = open(&world, &mut agent).await;
        Self { world, agent, id, stream }
    }

    /// Sends a message of these frames.
    async fn say(&mut self, frames: &[Frame]) {
        self.agent.send_all(frames).await;
    }

    async fn send(&mut self, message: Message) {
        self.agent.send_raw(message).await;
    }

    /// The number that the next message has.
    fn next(&self) -> u64 {
        self.agent.counts().0 + 1
    }

    /// The session has ended by `code`: the agent is told, the stream has failed with `Protocol`, it is counted once.
    async fn ends(mut self, code: CloseCode) {
        assert_eq!(closing(&mut self.agent).await, code);
        assert_eq!(end(&mut self.stream).await, Some(ErrorKind::Protocol));
        drop((self.agent, self.stream));
        let counted = &self.world.counted;
        let errors = format!("revdial_protocol_errors_total{{{}}}", code.number());
        until("counted", || counted.sum(&errors) > 0).await;
        assert_eq!(counted.sum(&errors), 1);
        assert_eq!(counted.sum("revdial_close_total{violation}"), 1);
        assert_eq!(counted.sum("revdial_streams_errors_total{protocol}"), 1);
        assert_eq!(counted.sum("revdial_streams_total{protocol}"), 1);
    }

    /// All is as it was: another stream can be opened.
    async fn lives(&mut self) {
        open(&self.world, &mut self.agent).await;
        assert_eq!(self.world.counted.sum("revdial_close_total{violation}"), 0);
    }
}

/// A stream of the agent's.
async fn open(world: &World, agent: &mut RawAgent) -> (StreamId, TunnelStream) {
    let dialled = tokio::spawn(world.connman.dial(&key(), &TargetName::default()));
    let id = loop {
        match agent.recv().await {
            Arrived::Frames(_, frames) => match frames.first() {
                Some(Frame::Open { stream, .. }) => break *stream,
                _ => continue,
            },
            other => panic!("no OPEN: {other:?}"),
        }
    };
    agent.send(Frame::Accept { stream: id, credit: 64 * 1024 }).await;
    (id, dialled.await.unwrap().unwrap())
}

/// The code of the CLOSE frame that comes, which the WebSocket's own close repeats.
async fn closing(agent: &mut RawAgent) -> CloseCode {
    let mut told = None;
    loop {
        match agent.recv().await {
            Arrived::Frames(_, frames) => {
                let close = frames.iter().find_map(|frame| match frame {
                    Frame::Close { code, .. } => Some(*code),
                    _ => None,
                });
                told = close.or(told);
            }
            Arrived::Closed(code) => {
                assert_eq!(code, told, "the close repeats the frame");
                return code.expect("a code");
            }
        }
    }
}

/// A message made by hand.
fn message(number: u64, received: u64, frames: &[Frame]) -> Message {
    let mut bytes = BytesMut::new();
    MessageHead { number, received }.encode(&mut bytes);
    frames.iter().for_each(|frame| frame.encode(&mut bytes));
    Message::Binary(bytes.freeze())
}

/// The same, with bytes in the place of frames.
fn message_of(number: u64, received: u64, frames: &[u8]) -> Message {
    let mut bytes = BytesMut::new();
    MessageHead { number, received }.encode(&mut bytes);
    bytes.extend_from_slice(frames);
    Message::Binary(bytes.freeze())
}

fn id(number: u32) -> StreamId {
    StreamId::new(number).unwrap()
}

fn data(stream: StreamId, payload: impl Into<Vec<u8>>) -> Frame {
    Frame::Data { stream, payload: Bytes::from(payload.into()) }
}

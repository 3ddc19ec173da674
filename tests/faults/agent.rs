//! A server under a script, and by which of its frames an agent ends the session.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use revdial::{
    ErrorKind,
    agent::AgentStatus,
    frame::{Bounds, CloseCode, Frame, Metadata, ResetCode, SessionId, Welcome, decode},
    proto::SessionConfig,
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use crate::{
    counted::Counted,
    id, message,
    net::Net,
    support::{LONG, Running, builder, until},
};

/// Servers under a script, one for each link of an agent's.
pub(crate) struct Servers {
    pub(crate) net: Net,
    pub(crate) counted: Counted,
    links: mpsc::UnboundedReceiver<Link>,
}

/// A server's end of a link that had its WELCOME.
pub(crate) struct Link {
    socket: WebSocketStream<TokioIo<Upgraded>>,
    sent: u64,
}

impl Servers {
    pub(crate) fn new() -> Self {
        let (tell, links) = mpsc::unbounded_channel();
        let answer = move |mut request: Request<Incoming>| {
            let tell = tell.clone();
            async move {
                let accept = derive_accept_key(request.headers()[header::SEC_WEBSOCKET_KEY].as_bytes());
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let link = Link::welcome(upgrade.await.unwrap()).await;
                    let _ = tell.send(link);
                });
                let response = Response::builder()
                    .status(StatusCode::SWITCHING_PROTOCOLS)
                    .header(header::CONNECTION, "upgrade")
                    .header(header::UPGRADE, "websocket")
                    .header(header::SEC_WEBSOCKET_PROTOCOL, "revdial.v1")
                    .header(header::SEC_WEBSOCKET_ACCEPT, accept);
                Ok::<_, Infallible>(response.body(Full::<Bytes>::default()).unwrap())
            }
        };
        let net = Net::new(move |io| {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(io), service_fn(answer.clone()));
            tokio::spawn(connection.with_upgrades());
        });
        Self { net, counted: Counted::new(), links }
    }

    /// The next link.
    pub(crate) async fn link(&mut self) -> Link {
        timeout(LONG, self.links.recv()).await.expect("a link in time").expect("a net")
    }
}

impl Link {
    /// Takes HELLO and begins a session.
    async fn welcome(upgraded: Upgraded) -> Self {
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        let mut link = Self { socket, sent: 0 };
        let frames = link.heard().await.expect("HELLO");
        let [Frame::Hello(hello)] = &frames[..] else { panic!("no HELLO: {frames:?}") };
        let welcome = Welcome::new(SessionId::new([7; 16]), hello.attempt, Bounds::default(), 30_000);
        link.send(message(0, 0, &[Frame::Welcome(welcome)])).await;
        link
    }

    /// Sends a counted message.
    async fn say(&mut self, frames: &[Frame]) {
        self.sent += 1;
        self.send(message(self.sent, 0, frames)).await;
    }

    async fn send(&mut self, message: Message) {
        self.socket.send(message).await.expect("a link");
    }

    /// The frames of the next message; the code of the close, once there is no more.
    async fn heard(&mut self) -> Result<Vec<Frame>, CloseCode> {
        loop {
            match timeout(LONG, self.socket.next()).await.expect("something in time").expect("a link").expect("a link")
            {
                Message::Binary(bytes) => return Ok(decode(bytes).unwrap().1.map(Result::unwrap).collect()),
                Message::Close(close) => return Err(CloseCode::new(close.expect("a code").code.into())),
                _ => {}
            }
        }
    }

    /// The code of the CLOSE frame that comes, which the WebSocket's own close repeats.
    async fn closed(&mut self) -> CloseCode {
        let mut told = None;
        loop {
            match self.heard().await {
                Ok(frames) => {
                    let close = frames.iter().find_map(|frame| match frame {
                        Frame::Close { code, .. } => Some(*code),
                        _ => None,
                    });
                    told = close.or(told);
                }
                Err(code) => {
                    assert_eq!(Some(code), told, "the close repeats the frame");
                    return code;
                }
            }
        }
    }

    /// The bytes below.
    pub(crate) fn into_io(self) -> TokioIo<Upgraded> {
        self.socket.into_inner()
    }
}

#[tokio::test(start_paused = true)]
async fn b20_whatever_else_answers_in_the_place_of_a_server_is_named_and_not_followed() {
    for status in [200, 301, 302, 404] {
        let counted = Counted::new();
        let net = Net::answering(status, &[("location", "http://elsewhere/")]);
        let mut agent = Running::new(net.agent());
        let told = agent.status.wait_for(|status| matches!(status, AgentStatus::Waiting { .. })).await.unwrap().clone();
        let AgentStatus::Waiting { cause, text, .. } = told else { unreachable!() };
        assert_eq!(cause, ErrorKind::Handshake);
        assert!(text.contains(&status.to_string()) && !text.contains("html"), "{text}");
        assert!(counted.sum("revdial_agent_connect_failures_total{handshake}") > 0);
        sleep(LONG).await;
        assert!(net.uris().iter().all(|uri| uri.host() == Some("gateway")), "{:?}", net.uris());
    }
}

/// An OPEN for a target of its own.
fn open(number: u32) -> Frame {
    let target = format!("t{number}").parse().unwrap();
    Frame::Open { stream: id(number), credit: 1 << 16, target, metadata: Metadata::default() }
}

/// The agent ends its session by `code` for each of these messages, counts that, and comes back.
async fn ends(messages: &[Vec<Frame>], code: CloseCode) {
    let mut servers = Servers::new();
    let mut agent = Running::new(servers.net.agent());
    let mut link = servers.link().await;
    agent.connected().await;
    for frames in messages {
        link.say(frames).await;
    }
    assert_eq!(link.closed().await, code, "{messages:?}");
    assert_eq!(servers.counted.sum(&format!("revdial_protocol_errors_total{{{}}}", code.number())), 1);
    drop(link);
    let told = agent.status.wait_for(|status| matches!(status, AgentStatus::Waiting { .. })).await.unwrap().clone();
    let AgentStatus::Waiting { cause, .. } = told else { unreachable!() };
    assert_eq!(cause, ErrorKind::Protocol);
    servers.link().await;
    agent.connected().await;
}

#[tokio::test(start_paused = true)]
async fn b30_an_open_of_an_id_that_does_not_rise_ends_the_session_with_4420() {
    for second in [5, 4, 1] {
        ends(&[vec![open(5)], vec![open(second)]], CloseCode::FORBIDDEN).await;
    }
}

#[tokio::test(start_paused = true)]
async fn b32_b35_b38_a_server_that_breaks_a_rule_is_left_with_the_code_of_the_rule() {
    let stream = id(9);
    ends(&[vec![Frame::Fin { stream, final_size: 0 }]], CloseCode::FORBIDDEN).await;
    ends(&[vec![Frame::Accept { stream, credit: 1 << 16 }]], CloseCode::FORBIDDEN).await;
    let beyond = vec![crate::data(id(1), vec![7; SessionConfig::default().base_credit as usize + 1])];
    ends(&[vec![open(1)], beyond], CloseCode::CREDIT).await;
}

#[tokio::test(start_paused = true)]
async fn b31_opens_beyond_what_the_agent_takes_are_refused_and_counted() {
    let mut servers = Servers::new();
    let config = SessionConfig { max_streams: 8, ..SessionConfig::default() };
    let mut agent = Running::new(servers.net.build(builder().session(config)));
    let mut link = servers.link().await;
    agent.connected().await;
    link.say(&(1..=20).map(open).collect::<Vec<_>>()).await;
    let mut refused = Vec::new();
    while refused.len() < 12 {
        refused.extend(link.heard().await.unwrap().into_iter().filter_map(|frame| match frame {
            Frame::Reset { stream, code: ResetCode::TOO_MANY_STREAMS, .. } => Some(stream.number()),
            _ => None,
        }));
    }
    assert_eq!(refused, Vec::from_iter(9..=20));
    until("counted", || servers.counted.sum("revdial_streams_refused_total") == 12).await;
    assert_eq!(servers.counted.sum("revdial_close_total{violation}"), 0);
}

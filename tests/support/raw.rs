//! A server over duplex pipes, and an agent that says exactly what a test tells it to.

use std::{convert::Infallible, error::Error as StdError, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Body, Incoming},
    client::conn::http1 as client,
    server::conn::http1 as server,
    upgrade::Upgraded,
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use revdial::frame::{Bounds, CloseCode, Frame, Hello, InstanceId, MessageHead, StreamId, Welcome, decode};
use tokio::{io::DuplexStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use tower::Service;

/// The path that the layer has by default.
pub(crate) const PATH: &str = "/api/v1/revdial";

/// Serves one connection by plain hyper, with upgrades; gives its client's end.
pub(crate) fn serve<S, B>(service: S) -> DuplexStream
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: Body<Data: Send, Error: StdError + Send + Sync> + Send + 'static,
{
    let (ours, theirs) = tokio::io::duplex(256 * 1024);
    let connection = server::Builder::new()
        .serve_connection(TokioIo::new(theirs), TowerToHyperService::new(service))
        .with_upgrades();
    tokio::spawn(connection);
    ours
}

/// A request for a tunnel with nothing wrong but that it has no credentials.
pub(crate) fn upgrade(uri: &str) -> request::Builder {
    Request::get(uri)
        .header(header::HOST, "gateway")
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
        .header(header::SEC_WEBSOCKET_PROTOCOL, "revdial.v1")
}

/// Sends a request over its own connection by hyper's client.
pub(crate) async fn send(io: DuplexStream, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let (mut send, connection) = client::handshake(TokioIo::new(io)).await.expect("a fresh connection");
    tokio::spawn(connection.with_upgrades());
    send.send_request(request).await.expect("an answer")
}

/// The body of a response as text.
pub(crate) async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

/// What a link brought.
#[derive(Debug, PartialEq)]
pub(crate) enum Arrived {
    /// A message's frames.
    Frames(MessageHead, Vec<Frame>),
    /// The close of the WebSocket.
    Closed(Option<CloseCode>),
}

/// An agent's end of a link, past the 101.
#[derive(Debug)]
pub(crate) struct RawAgent {
    socket: WebSocketStream<TokioIo<Upgraded>>,
    sent: u64,
    received: u64,
}

impl RawAgent {
    /// Opens a link with the request, which has to be granted.
    pub(crate) async fn open(io: DuplexStream, request: request::Builder) -> Self {
        let response = send(io, request.body(Full::default()).expect("a request")).await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        Self::over(hyper::upgrade::on(response).await.expect("an upgrade")).await
    }

    /// A link that was upgraded already.
    pub(crate) async fn over(upgraded: Upgraded) -> Self {
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
        Self { socket, sent: 0, received: 0 }
    }

    /// Opens a link and says HELLO of instance `instance`; WELCOME is read.
    pub(crate) async fn connect(io: DuplexStream, request: request::Builder, instance: u8) -> Self {
        let mut agent = Self::open(io, request).await;
        agent.greet(hello(instance)).await;
        agent
    }

    /// Says HELLO and reads WELCOME.
    pub(crate) async fn greet(&mut self, hello: Hello) -> (MessageHead, Welcome) {
        self.send(Frame::Hello(hello)).await;
        match self.recv().await {
            Arrived::Frames(head, frames) => match &frames[..] {
                [Frame::Welcome(welcome)] => (head, welcome.clone()),
                _ => panic!("no WELCOME: {frames:?}"),
            },
            other => panic!("no WELCOME: {other:?}"),
        }
    }

    /// Says HELLO with these counts of the session that it names: what was sent in it, and received.
    pub(crate) async fn attach(&mut self, hello: Hello, sent: u64, received: u64) {
        (self.sent, self.received) = (sent, received);
        self.send(Frame::Hello(hello)).await;
    }

    /// How many counted messages were sent and received in the session.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.sent, self.received)
    }

    /// Sends one frame, in a counted message if it has to be.
    pub(crate) async fn send(&mut self, frame: Frame) {
        self.send_all(&[frame]).await;
    }

    /// Sends frames of one sort, in one message.
    pub(crate) async fn send_all(&mut self, frames: &[Frame]) {
        let counted = frames.iter().any(|frame| frame.is_counted() == Some(true));
        self.sent += u64::from(counted);
        let mut message = BytesMut::new();
        MessageHead { number: if counted { self.sent } else { 0 }, received: self.received }.encode(&mut message);
        frames.iter().for_each(|frame| frame.encode(&mut message));
        self.send_raw(Message::Binary(message.freeze())).await;
    }

    /// Sends whatever it is.
    pub(crate) async fn send_raw(&mut self, message: Message) {
        self.socket.send(message).await.expect("a link");
    }

    /// What comes next; acks alone are left out, and pings are answered.
    pub(crate) async fn recv(&mut self) -> Arrived {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Binary(bytes))) => {
                    let (head, frames) = decode(bytes).expect("a head");
                    self.received = self.received.max(head.number);
                    let mut frames: Vec<_> = frames.map(|frame| frame.expect("a frame")).collect();
                    if let Some(Frame::Ping(bytes)) = frames.pop_if(|frame| matches!(frame, Frame::Ping(_))) {
                        let _ = self.socket.send(Message::Binary(uncounted(&Frame::Pong(bytes)))).await; // it may be late
                    }
                    if !frames.is_empty() {
                        return Arrived::Frames(head, frames);
                    }
                }
                Some(Ok(Message::Close(close))) => {
                    return Arrived::Closed(close.map(|close| CloseCode::new(close.code.into())));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Arrived::Closed(None),
            }
        }
    }

    /// The code of the CLOSE frame that comes next, which the WebSocket's own close repeats.
    pub(crate) async fn closed(&mut self) -> CloseCode {
        let code = match self.recv().await {
            Arrived::Frames(MessageHead { number: 0, .. }, frames) => match frames[..] {
                [Frame::Close { code, .. }] => code,
                _ => panic!("no CLOSE: {frames:?}"),
            },
            other => panic!("no CLOSE: {other:?}"),
        };
        assert_eq!(self.recv().await, Arrived::Closed(Some(code)));
        code
    }

    /// The next OPEN: its stream and its target.
    pub(crate) async fn opened(&mut self) -> (StreamId, String) {
        match timeout(Duration::from_secs(60), self.recv()).await.expect("something within a minute") {
            Arrived::Frames(_, frames) => match frames.first() {
                Some(Frame::Open { stream, target, .. }) => (*stream, target.as_str().to_owned()),
                _ => panic!("no OPEN: {frames:?}"),
            },
            other => panic!("no OPEN: {other:?}"),
        }
    }

    /// Serves every stream as an HTTP server that answers `body` once per request head, until the link ends.
    pub(crate) async fn serve_http(mut self, body: &'static str) {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        while let Arrived::Frames(_, frames) = self.recv().await {
            for frame in frames {
                match frame {
                    Frame::Open { stream, .. } => self.send(Frame::Accept { stream, credit: 256 * 1024 }).await,
                    Frame::Data { stream, payload } if payload.ends_with(b"\r\n\r\n") => {
                        self.send(Frame::Data { stream, payload: Bytes::from(answer.clone()) }).await;
                    }
                    _ => {}
                }
            }
        }
    }
}

/// A message of number 0 with one frame.
fn uncounted(frame: &Frame) -> Bytes {
    let mut message = BytesMut::new();
    MessageHead { number: 0, received: 0 }.encode(&mut message);
    frame.encode(&mut message);
    message.freeze()
}

/// A HELLO for a new session.
pub(crate) fn hello(instance: u8) -> Hello {
    Hello::new(InstanceId::new([instance; 16]), Bounds::default())
}

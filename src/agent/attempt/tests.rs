use std::{
    future::pending,
    mem,
    pin::pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll},
};

use futures_util::FutureExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    super::{backoff::Backoff, connect::BoxFuture, token::Reading},
    HttpVersion::{Http1, Http2},
    *,
};
use crate::{
    dialback::{Id, conn_path},
    frame::InstanceId,
};

/// What the server says to who asks by HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Grant,
    Refusal,
    Nothing,
}

/// The way to a server of which TLS says that it speaks HTTP/2, and that says nothing over it: its settings do not come.
#[derive(Clone)]
struct Way(Arc<Mutex<State>>);

struct State {
    says: Says,
    asked: Vec<HttpVersion>,
}

impl Way {
    fn says(&self, says: Says) {
        self.0.lock().unwrap().says = says;
    }

    /// Over what the server was asked since this was called last.
    fn asked(&self) -> Vec<HttpVersion> {
        mem::take(&mut self.0.lock().unwrap().asked)
    }
}

impl Connect for Way {
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri, version: HttpVersion) -> BoxFuture<'static, Result<Reached, BoxError>> {
        let mut state = self.0.lock().unwrap();
        state.asked.push(version);
        let (near, far) = duplex(4096);
        tokio::spawn(serve(far, if version == Http1 { state.says } else { Says::Nothing }));
        let reached = Reached { io: Box::new(TokioIo::new(near)), http2: Some(version == Http2) };
        Box::pin(async { Ok(reached) })
    }
}

async fn serve(mut io: DuplexStream, says: Says) {
    if says == Says::Nothing {
        return pending().await;
    }
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    let answer = match says {
        Says::Refusal => "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_owned(),
        _ => format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        ),
    };
    io.write_all(answer.as_bytes()).await.unwrap();
    pending().await
}

/// A server that grants what it is asked for by HTTP/1.1, for an agent that is set to HTTP/2; and the way there.
fn server(token: Token) -> (Server, Way) {
    let way = Way(Arc::new(Mutex::new(State { says: Says::Grant, asked: Vec::new() })));
    let session = SessionConfig::default();
    let config = Config {
        uri: Uri::from_static("https://gateway/api/v1/revdial?runnerid=a"),
        key: "a".parse().unwrap(),
        token,
        hello: Hello::new(InstanceId::new([7; 16]), session.bounds()),
        session,
        backoff: Backoff::default(),
        protocol: ProtocolChoice::Dialback,
        http: Http2,
    };
    (Server::new(config, Box::new(way.clone())), way)
}

fn with_token() -> (Server, Way) {
    server(Token::Value("token".to_owned().into()))
}

async fn attach(server: &Server) -> Result<(), Setback> {
    server.attach(&mut Attempts::default(), &server.config.hello, 0).await.map(drop)
}

async fn pick_up(server: &Server) -> Result<(), Setback> {
    server.pick_up(&conn_path(Id::new([1; 16]), Id::new([2; 16]))).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn after_a_fallback_a_refusal_and_a_hang_lead_back_to_http2() {
    for failure in [Says::Refusal, Says::Nothing] {
        let (server, way) = with_token();
        attach(&server).await.unwrap();
        assert_eq!(way.asked(), [Http2, Http1]);
        attach(&server).await.unwrap();
        assert_eq!(way.asked(), [Http1], "once is enough");

        way.says(failure);
        attach(&server).await.unwrap_err();
        assert_eq!(way.asked(), [Http1]);
        attach(&server).await.unwrap_err();
        assert_eq!(way.asked(), [Http2, Http1], "after {failure:?}");
        // Nor is a fallback one by which nothing was granted.
        way.says(Says::Grant);
        attach(&server).await.unwrap();
        assert_eq!(way.asked(), [Http2, Http1], "after {failure:?} to a fallback");
    }
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_a_pick_up_changes_nothing_for_others() {
    let (server, way) = with_token();
    pick_up(&server).await.unwrap();
    assert_eq!(way.asked(), [Http2, Http1]);
    attach(&server).await.unwrap();
    assert_eq!(way.asked(), [Http2, Http1], "it fell back for itself");

    for failure in [Says::Refusal, Says::Nothing] {
        way.says(failure);
        pick_up(&server).await.unwrap_err();
        assert_eq!(way.asked(), [Http1]);
        way.says(Says::Grant);
        attach(&server).await.unwrap();
        assert_eq!(way.asked(), [Http1], "after {failure:?} to a pick-up");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_file_whose_read_hangs_is_named() {
    let (file_is_back, hangs) = mpsc::channel::<()>();
    let reading = Reading::default();
    let read = reading.one(move || Err(hangs.recv().unwrap_err().into()));
    assert!(read.now_or_never().is_none());
    let (server, way) = server(Token::File("/mnt/token".into(), reading));

    let mut attached = pin!(attach(&server));
    assert!(attached.as_mut().now_or_never().is_none());
    // Time does not go on by itself while a thread is at work.
    tokio::time::advance(TOKEN_WITHIN + Duration::from_secs(1)).await;
    let setback = attached.await.unwrap_err();
    assert_eq!((setback.error.kind(), setback.retry), (ErrorKind::Auth, Retry::Backoff));
    let text = setback.text();
    assert!(text.ends_with("the token cannot be had: /mnt/token: could not be read in time"), "{text}");
    assert!(way.asked().is_empty());
    drop(file_is_back);
}

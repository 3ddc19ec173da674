//! The near end: a gateway with its connection manager, and what is done with a pipe through it.

use std::net::SocketAddr;

use axum::{Router, serve::ListenerExt};
use revdial::{
    connman::ConnectionManager,
    server::{RevDialLayer, SharedBearer},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};

use crate::commands::{CHUNK, Command, TOKEN, Turn};

/// A byte pipe to the far side.
pub(crate) trait Pipe: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<P: AsyncRead + AsyncWrite + Send + Sync + Unpin> Pipe for P {}

/// The direction of bulk data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the server to the agent.
    Up,
    /// From the agent to the server: the direction in which WebSockets are masked.
    Down,
}

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    pub(crate) fn command(self) -> Command {
        match self {
            Self::Up => Command::Sink,
            Self::Down => Command::Source,
        }
    }
}

/// An axum app with the layer, on a port of its own.
pub(crate) async fn gateway(connman: ConnectionManager) -> SocketAddr {
    let layer = RevDialLayer::new(connman, SharedBearer::new(TOKEN).expect("a token"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("a bound listener");
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("a TCP socket"));
    let app = Router::new().layer(layer);
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// One byte there and back.
pub(crate) async fn echo(pipe: &mut impl Pipe) {
    pipe.write_u8(Command::Echo.byte()).await.expect("an open pipe");
    assert_eq!(pipe.read_u8().await.expect("an open pipe"), Command::Echo.byte());
}

/// A command, and the number behind it.
pub(crate) async fn ask(pipe: &mut impl Pipe, command: Command, bytes: u64) {
    let mut message = [0; 9];
    message[0] = command.byte();
    message[1..].copy_from_slice(&bytes.to_be_bytes());
    pipe.write_all(&message).await.expect("an open pipe");
}

/// So many bytes over an open pipe, until the reader has them.
pub(crate) async fn transfer(pipe: &mut impl Pipe, way: Way, bytes: u64) {
    let mut buffer = vec![0x5a; CHUNK];
    let mut left = bytes;
    let mut turn = Turn::default();
    ask(pipe, way.command(), bytes).await;
    while left > 0 {
        let most = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        let moved = match way {
            Way::Up => pipe.write(&buffer[..most]).await,
            Way::Down => pipe.read(&mut buffer[..most]).await,
        };
        let moved = moved.ok().filter(|n| *n > 0).expect("an open pipe");
        left -= moved as u64;
        turn.took(moved).await;
    }
    if way == Way::Up {
        pipe.read_u8().await.expect("an open pipe");
    }
}

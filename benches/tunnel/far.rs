//! The far side: what answers behind the tunnel, behind plain TCP and behind a raw WebSocket, on a thread of its own.

use std::{convert::Infallible, net::SocketAddr, sync::mpsc, thread};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use revdial::{TargetName, agent::Agent};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    spawn,
};
use tokio_tungstenite::{client_async, tungstenite::Message};

/// The key of the agent.
pub(crate) const KEY: &str = "far";

/// What the agent shows.
pub(crate) const TOKEN: &str = "token";

/// The target that speaks HTTP; the default one takes [`Command`]s.
pub(crate) const HTTP: &str = "http";

/// What bulk data is written and read in, and the size of WebSocket messages.
pub(crate) const CHUNK: usize = 64 * 1024;

/// The first byte of what the near side asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// This byte, back.
    Echo,
    /// Read as many bytes as the u64 behind says, then one byte back.
    Sink,
    /// Write as many bytes as the u64 behind says.
    Source,
    /// Read nothing more, until the stream is given up.
    Ignore,
}

impl Command {
    pub(crate) fn byte(self) -> u8 {
        self as u8
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Echo, Self::Sink, Self::Source, Self::Ignore].into_iter().find(|command| command.byte() == byte)
    }
}

/// Lets others run after each 256 KiB, which is what a window makes a stream do. Without it a socket that always takes
/// more keeps its thread for many times that, and small requests beside it would measure tokio's budget.
#[derive(Debug, Default)]
pub(crate) struct Turn(usize);

impl Turn {
    pub(crate) async fn took(&mut self, bytes: usize) {
        self.0 += bytes;
        if self.0 >= 256 * 1024 {
            self.0 = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Where plain TCP is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) commands: SocketAddr,
    pub(crate) http: SocketAddr,
}

/// Starts the far side; it ends with the process. The agent and the WebSocket dial the near side at these addresses.
pub(crate) fn start(gateway: SocketAddr, websocket: SocketAddr) -> Addresses {
    let (tell, addresses) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let commands = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let http = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let at = |listener: &TcpListener| listener.local_addr().expect("a bound listener");
            tell.send(Addresses { commands: at(&commands), http: at(&http) }).expect("the near side waits");
            // Tasks, as in a program: the runtime's main future costs a system call more each time that it is woken.
            let tasks = [
                spawn(tcp(commands, false)),
                spawn(tcp(http, true)),
                spawn(agent(gateway)),
                spawn(messages(websocket)),
            ];
            for task in tasks {
                task.await.expect("the far side goes on");
            }
        });
    });
    addresses.recv().expect("the far side starts")
}

async fn agent(gateway: SocketAddr) {
    let agent = Agent::builder(format!("http://{gateway}"), KEY).token(TOKEN).build().expect("settings that can be");
    let (listener, run) = agent.listen();
    let http: TargetName = HTTP.parse().expect("a name");
    let mut listener = listener.targets([TargetName::default(), http.clone()]);
    spawn(async move {
        while let Some(stream) = listener.accept().await {
            let is_http = *stream.target() == http;
            spawn(serve(stream, is_http));
        }
    });
    run.await.expect("nothing stops the agent");
}

async fn tcp(listener: TcpListener, is_http: bool) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("a TCP socket");
        spawn(serve(stream, is_http));
    }
}

async fn serve(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, is_http: bool) {
    // What fails here was given up by the near side, which says so itself where it did not mean to.
    if is_http {
        let answer = service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(&[b'x'; 100]))))
        });
        let _ = http1::Builder::new().serve_connection(TokioIo::new(io), answer).await;
    } else {
        let _ = obey(io).await;
    }
}

async fn obey(mut io: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut buffer = vec![0x5a; CHUNK];
    let mut command = [0];
    let mut turn = Turn::default();
    loop {
        if io.read(&mut command).await? == 0 {
            return Ok(());
        }
        match Command::of(command[0]).expect("a command") {
            Command::Echo => io.write_all(&command).await?,
            Command::Sink => {
                let mut left = io.read_u64().await?;
                while left > 0 {
                    let most = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
                    match io.read(&mut buffer[..most]).await? {
                        0 => return Ok(()),
                        n => {
                            left -= n as u64;
                            turn.took(n).await;
                        }
                    }
                }
                io.write_all(&command).await?;
            }
            Command::Source => {
                let mut left = io.read_u64().await?;
                while left > 0 {
                    let most = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
                    io.write_all(&buffer[..most]).await?;
                    left -= most as u64;
                    turn.took(most).await;
                }
            }
            Command::Ignore => std::future::pending().await,
        }
    }
}

/// The same commands, a message each, on a WebSocket that this side has dialled, as an agent does.
async fn messages(address: SocketAddr) {
    let stream = TcpStream::connect(address).await.expect("the near side listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let (mut socket, _) = client_async(format!("ws://{address}/"), stream).await.expect("a handshake");
    let chunk = Bytes::from(vec![0x5a; CHUNK]);
    while let Some(Ok(Message::Binary(message))) = socket.next().await {
        let command = Command::of(message[0]).expect("a command");
        let mut left = message.get(1..9).map_or(0, |n| u64::from_be_bytes(n.try_into().expect("8 bytes")));
        match command {
            Command::Sink => {
                while left > 0
                    && let Some(Ok(message)) = socket.next().await
                {
                    left = left.saturating_sub(message.len() as u64);
                }
                socket.send(Message::Binary(message)).await.expect("an open socket");
            }
            Command::Source => {
                while left > 0 {
                    let most = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
                    socket.send(Message::Binary(chunk.slice(..most))).await.expect("an open socket");
                    left -= most as u64;
                }
            }
            Command::Echo | Command::Ignore => socket.send(Message::Binary(message)).await.expect("an open socket"),
        }
    }
}

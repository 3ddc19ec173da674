//! What answers behind a pipe: commands for bytes, or HTTP; and an agent that has both as targets.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::LazyLock,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use revdial::{TargetName, agent::Agent};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    spawn,
};

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
    /// Write the [`time`] again and again, each as the first of so many bytes as the u32 behind says, with a pause of
    /// so many milliseconds as the u32 behind that says.
    Clock,
    /// Read nothing more, until the stream is given up.
    Ignore,
}

impl Command {
    pub(crate) fn byte(self) -> u8 {
        self as u8
    }

    pub(crate) fn of(byte: u8) -> Option<Self> {
        [Self::Echo, Self::Sink, Self::Source, Self::Clock, Self::Ignore]
            .into_iter()
            .find(|command| command.byte() == byte)
    }
}

/// Lets others run after each 256 KiB, which is what a whole window makes a stream do. Without it a socket that always takes
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

/// The time as bytes can carry it: nanoseconds of this process.
pub(crate) fn time(at: Instant) -> u64 {
    static BIRTH: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(at.saturating_duration_since(*BIRTH).as_nanos()).unwrap_or(u64::MAX)
}

/// An agent whose default target takes [`Command`]s; it runs as long as it is polled.
pub(crate) async fn agent(gateway: SocketAddr, key: &str) {
    let agent = Agent::builder(format!("http://{gateway}"), key).token(TOKEN).build().expect("settings that can be");
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

/// Serves a pipe, whatever carries it.
pub(crate) async fn serve(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, is_http: bool) {
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
            Command::Clock => tell_time(&mut io).await?,
            Command::Ignore => std::future::pending().await,
        }
    }
}

async fn tell_time(io: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<()> {
    let mut block = vec![0x5a; io.read_u32().await? as usize];
    let pause = Duration::from_millis(io.read_u32().await?.into());
    loop {
        block[..8].copy_from_slice(&time(Instant::now()).to_be_bytes());
        io.write_all(&block).await?;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

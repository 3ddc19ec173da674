//! What the agent does on a stream: commands for bytes, and HTTP once it is asked for.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What our agents show.
pub(crate) const TOKEN: &str = "token";

/// What bulk data is written and read in, and the size of WebSocket messages.
pub(crate) const CHUNK: usize = 64 * 1024;

/// The size of a response's body.
pub(crate) const BODY: usize = 100;

/// The first byte of what the server asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// This byte, back.
    Echo,
    /// Read as many bytes as the u64 behind says, then one byte back.
    Sink,
    /// Write as many bytes as the u64 behind says.
    Source,
    /// Speak HTTP from here on. A command and not a target, as most carriers know none.
    Http,
}

impl Command {
    pub(crate) fn byte(self) -> u8 {
        self as u8
    }

    pub(crate) fn of(byte: u8) -> Option<Self> {
        [Self::Echo, Self::Sink, Self::Source, Self::Http].into_iter().find(|command| command.byte() == byte)
    }
}

/// Lets others run after each 256 KiB, so that a small request beside bulk data measures the carrier, and not how much
/// the runtime lets a task do in one go.
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

/// How much of what is left is moved in one go.
pub(crate) fn piece(left: u64) -> usize {
    usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK))
}

/// Does what it is told on a stream, until the server gives it up.
pub(crate) async fn serve(mut io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
    // What fails was given up by the server, which says so itself where it did not mean to.
    if let Ok(Some(Command::Http)) = obey(&mut io).await {
        let answer = service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(&[b'x'; BODY]))))
        });
        let _ = http1::Builder::new().serve_connection(TokioIo::new(io), answer).await;
    }
}

/// Commands for bytes, up to the end or to the first other one.
async fn obey(io: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<Option<Command>> {
    let mut command = [0];
    loop {
        if io.read(&mut command).await? == 0 {
            return Ok(None);
        }
        match Command::of(command[0]).expect("a command") {
            Command::Echo => {
                io.write_all(&command).await?;
                io.flush().await?;
            }
            Command::Sink => {
                let left = io.read_u64().await?;
                sink(io, left).await?;
                io.write_all(&command).await?;
                io.flush().await?;
            }
            Command::Source => {
                let left = io.read_u64().await?;
                source(io, left).await?;
            }
            Command::Http => return Ok(Some(Command::Http)),
        }
    }
}

async fn sink(io: &mut (impl AsyncRead + Unpin), mut left: u64) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut turn = Turn::default();
    while left > 0 {
        let n = io.read(&mut buffer[..piece(left)]).await?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        left -= n as u64;
        turn.took(n).await;
    }
    Ok(())
}

async fn source(io: &mut (impl AsyncWrite + Unpin), mut left: u64) -> std::io::Result<()> {
    let buffer = vec![0x5a; CHUNK];
    let mut turn = Turn::default();
    while left > 0 {
        let piece = piece(left);
        io.write_all(&buffer[..piece]).await?;
        left -= piece as u64;
        turn.took(piece).await;
    }
    io.flush().await
}

//! One WebSocket and nothing above it: messages of 64 KiB, with tungstenite's defaults and no copy of ours. Turns are as
//! long as with the others.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use crate::{
    commands::{CHUNK, Command, Turn, piece},
    task::Way,
};

pub(crate) type Socket = WebSocketStream<TcpStream>;

/// The agent's side: the commands that there are for streams, a message each.
pub(crate) async fn agent(mut socket: Socket) {
    while let Some(Ok(Message::Binary(message))) = socket.next().await {
        let bytes = message.get(1..9).map_or(0, |n| u64::from_be_bytes(n.try_into().expect("8 bytes")));
        match Command::of(message[0]).expect("a command") {
            Command::Sink => {
                receive(&mut socket, bytes).await;
                say(&mut socket, Command::Sink).await;
            }
            Command::Source => send(&mut socket, bytes).await,
            Command::Echo | Command::Http => say(&mut socket, Command::Echo).await,
        }
    }
}

/// One byte there and back.
pub(crate) async fn echo(socket: &mut Socket) {
    say(socket, Command::Echo).await;
    next(socket).await;
}

/// So many bytes, until the reader has them.
pub(crate) async fn transfer(socket: &mut Socket, way: Way, bytes: u64) {
    let command = match way {
        Way::Up => Command::Sink,
        Way::Down => Command::Source,
    };
    let mut message = vec![command.byte()];
    message.extend(bytes.to_be_bytes());
    socket.send(Message::Binary(message.into())).await.expect("an open socket");
    match way {
        Way::Up => {
            send(socket, bytes).await;
            next(socket).await;
        }
        Way::Down => receive(socket, bytes).await,
    }
}

async fn say(socket: &mut Socket, command: Command) {
    socket.send(Message::Binary(Bytes::copy_from_slice(&[command.byte()]))).await.expect("an open socket");
}

async fn send(socket: &mut Socket, bytes: u64) {
    let chunk = Bytes::from(vec![0x5a; CHUNK]);
    let (mut left, mut turn) = (bytes, Turn::default());
    while left > 0 {
        let piece = piece(left);
        socket.send(Message::Binary(chunk.slice(..piece))).await.expect("an open socket");
        left -= piece as u64;
        turn.took(piece).await;
    }
}

async fn receive(socket: &mut Socket, bytes: u64) {
    let (mut left, mut turn) = (bytes, Turn::default());
    while left > 0 {
        let came = next(socket).await;
        left = left.saturating_sub(came as u64);
        turn.took(came).await;
    }
}

/// The length of the next message.
async fn next(socket: &mut Socket) -> usize {
    socket.next().await.expect("an open socket").expect("an open socket").len()
}

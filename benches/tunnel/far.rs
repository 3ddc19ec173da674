//! The far side: what answers behind the tunnel, behind plain TCP and behind a raw WebSocket, on a thread of its own.

use std::{net::SocketAddr, sync::mpsc, thread};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use revdial::agent::{Agent, ProtocolChoice};
use tokio::{
    net::{TcpListener, TcpStream},
    spawn,
};
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::commands::{CHUNK, Command, TOKEN, agent, serve};

/// The key of the agent.
pub(crate) const KEY: &str = "far";

/// The keys of the agents that speak dial-back, by whether they speak HTTP.
pub(crate) const CLASSIC: [(&str, bool); 2] = [("classic", false), ("classic-http", true)];

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
                spawn(agent(gateway, KEY)),
                spawn(messages(websocket)),
                spawn(classic_agent(gateway, CLASSIC[0])),
                spawn(classic_agent(gateway, CLASSIC[1])),
            ];
            for task in tasks {
                task.await.expect("the far side goes on");
            }
        });
    });
    addresses.recv().expect("the far side starts")
}

/// An agent that speaks dial-back, which knows one target only: [`Command`]s or HTTP.
async fn classic_agent(gateway: SocketAddr, (key, is_http): (&str, bool)) {
    let agent = Agent::builder(format!("http://{gateway}"), key).token(TOKEN).protocol(ProtocolChoice::Dialback);
    let (mut listener, run) = agent.build().expect("settings that can be").listen();
    spawn(async move {
        while let Some(stream) = listener.accept().await {
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
            Command::Echo | Command::Clock | Command::Ignore => {
                socket.send(Message::Binary(message)).await.expect("an open socket")
            }
        }
    }
}

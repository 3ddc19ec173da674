//! A side of a pair, as a process of its own: it does what its standard input says, and ends with it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::future::join_all;
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, Stdin, stdin, stdout};

use crate::{
    Result,
    carrier::Carrier,
    carriers::{
        agent::Agent,
        raw,
        server::{Pipe, Server},
    },
    task::{Ready, Taken, Task},
    work::{Client, Latencies, beside, client, dials, echo, flow, requests, transfer},
};

/// The agent's side.
pub(crate) async fn agent(carrier: Carrier, server: Option<SocketAddr>) -> Result<()> {
    let (mut agent, address) = Agent::start(carrier, server).await;
    let mut line = Line::new(Ready { address }).await?;
    while let Some(task) = line.next::<Task>().await? {
        if let Task::Tunnels { count, .. } = task {
            agent.open(count).await;
        }
        line.say(&Taken::default()).await?;
    }
    Ok(())
}

/// The server's side.
pub(crate) async fn server(carrier: Carrier) -> Result<()> {
    let (server, address) = Server::start(carrier).await;
    let mut line = Line::new(Ready { address }).await?;
    let mut side = ServerSide { server, streams: Vec::new(), held: Vec::new(), clients: Vec::new() };
    while let Some(task) = line.next().await? {
        let taken = side.run(task).await;
        line.say(&taken).await?;
    }
    Ok(())
}

struct ServerSide {
    server: Server,
    /// Open streams for round trips and bulk.
    streams: Vec<Box<dyn Pipe>>,
    /// Open streams for their number's sake.
    held: Vec<Box<dyn Pipe>>,
    clients: Vec<Client>,
}

impl ServerSide {
    async fn run(&mut self, task: Task) -> Taken {
        self.prepare(task).await;
        let start = Instant::now();
        self.work(task).await.taken(start.elapsed())
    }

    /// What is not measured: opens the streams that the task needs, and that are not yet there.
    async fn prepare(&mut self, task: Task) {
        let (streams, clients) = match task {
            _ if self.server.raw.is_some() => (0, 0),
            Task::Trips { .. } | Task::Flow { .. } => (1, 0),
            Task::Bulk { streams, .. } => (streams, 0),
            Task::Requests { connections, .. } => (0, connections),
            Task::Beside { .. } => (1, 1),
            _ => (0, 0),
        };
        while (self.streams.len() as u64) < streams {
            let mut stream = self.server.tunnels[0].dial(true).await;
            echo(&mut stream).await;
            self.streams.push(stream);
        }
        while (self.clients.len() as u64) < clients {
            self.clients.push(client(&self.server.tunnels[0]).await);
        }
    }

    async fn work(&mut self, task: Task) -> Latencies {
        let mut latencies = Latencies::default();
        match task {
            Task::Tunnels { count, agent } => self.server.meet(count, agent).await,
            Task::Trips { n } => {
                for _ in 0..n {
                    let sent = Instant::now();
                    match &mut self.server.raw {
                        Some(socket) => raw::echo(socket).await,
                        None => echo(&mut self.streams[0]).await,
                    }
                    latencies.add(sent);
                }
            }
            Task::Dials { n, at_once, confirmed } => dials(&self.server.tunnels[0], n, at_once, !confirmed).await,
            Task::Requests { n, connections } => return requests(&mut self.clients, connections, n).await,
            Task::Bulk { bytes, streams, way } => match &mut self.server.raw {
                Some(socket) => raw::transfer(socket, way, bytes).await,
                None => {
                    let some = self.streams.iter_mut().take(usize::try_from(streams).expect("so many there are"));
                    join_all(some.map(|stream| transfer(stream, way, bytes / streams))).await;
                }
            },
            Task::Flow { bytes, way } => return flow(&mut self.streams[0], way, bytes).await,
            Task::Beside { way, millis } => {
                let during = Duration::from_millis(millis);
                return beside(&mut self.clients[0], &mut self.streams[0], way, during).await;
            }
            Task::HoldStreams { count } => {
                while self.held.len() < count {
                    self.hold(0).await;
                }
            }
            Task::HoldTunnels { count, of } => {
                while self.held.len() < count {
                    self.hold(self.held.len() * of / count).await;
                }
            }
            Task::Turns { n } => {
                for i in 0..usize::try_from(n).expect("it fits into memory") {
                    let sent = Instant::now();
                    let turn = i % self.held.len();
                    echo(&mut self.held[turn]).await;
                    latencies.add(sent);
                }
            }
            Task::Drop => self.held.clear(),
        }
        latencies
    }

    async fn hold(&mut self, tunnel: usize) {
        let mut stream = self.server.tunnels[tunnel].dial(true).await;
        echo(&mut stream).await;
        self.held.push(stream);
    }
}

/// The line to the conductor.
struct Line(Lines<BufReader<Stdin>>);

impl Line {
    async fn new(ready: Ready) -> Result<Self> {
        let mut line = Self(BufReader::new(stdin()).lines());
        line.say(&ready).await?;
        Ok(line)
    }

    /// `None` once the conductor has gone, or wants this side to.
    async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let line = self.0.next_line().await?;
        Ok(line.map(|line| serde_json::from_str(&line)).transpose()?)
    }

    async fn say(&mut self, what: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        let mut stdout = stdout();
        stdout.write_all(&line).await?;
        Ok(stdout.flush().await?)
    }
}

//! Ports of this machine that lead through tunnels to TCP services beside sandboxes: ssh, PostgreSQL, anything.
//!
//! Whoever reaches such a port reaches the service and shows the gateway nothing: any program on this machine, and the
//! pages in its browsers. So what the service itself asks for has to be enough.

use std::{error::Error, net::SocketAddr, str::FromStr};

use axum::serve::Listener;
use revdial::{
    AgentKey, TargetName,
    connman::{ConnectionManager, Dial},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

/// A port, and where it leads.
#[derive(Debug, Clone)]
pub(crate) struct Forward {
    key: AgentKey,
    target: TargetName,
    port: SocketAddr,
}

/// `KEY/TARGET=ADDRESS:PORT`, or `KEY=ADDRESS:PORT` for the default target.
impl FromStr for Forward {
    type Err = Box<dyn Error + Send + Sync>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (service, port) = text.split_once('=').ok_or("it is KEY/TARGET=ADDRESS:PORT")?;
        let (key, target) = service.split_once('/').unwrap_or((service, ""));
        Ok(Self { key: key.parse()?, target: target.parse()?, port: port.parse()? })
    }
}

impl Forward {
    /// Whether only this machine can reach the port.
    pub(crate) fn is_local(&self) -> bool {
        self.port.ip().is_loopback()
    }

    /// Binds the port, and forwards what comes to it as long as the program runs; says where.
    pub(crate) async fn start(self, connman: ConnectionManager) -> Result<String, String> {
        let listen = async { TcpListener::bind(self.port).await.and_then(|port| Ok((port.local_addr()?, port))) };
        let (addr, port) = listen.await.map_err(|why| format!("--forward {}: {why}", self.port))?;
        let says = format!("{addr} leads to {}", self.name());
        tokio::spawn(self.run(port, connman));
        Ok(says)
    }

    /// As many wait for an agent as the connection manager lets wait, who hung up meanwhile included.
    async fn run(self, mut port: TcpListener, connman: ConnectionManager) {
        loop {
            let (socket, _) = Listener::accept(&mut port).await; // which waits where there are no more open files
            let (name, dial) = (self.name(), connman.dial(&self.key, &self.target));
            tokio::spawn(async move {
                if let Err(error) = pass(socket, dial).await {
                    tracing::warn!(service = name, error, "a forwarded connection failed");
                }
            });
        }
    }

    fn name(&self) -> String {
        let (key, target) = (&self.key, &self.target);
        if target.is_default() { key.to_string() } else { format!("{key}/{target}") }
    }
}

/// A connection to the port. Dropped before it has been told all it is reset, so that what it was told is not taken for all.
struct Caller {
    socket: TcpStream,
    has_all: bool,
}

impl Drop for Caller {
    fn drop(&mut self) {
        if !self.has_all {
            let _ = self.socket.set_zero_linger();
        }
    }
}

/// Copies both ways until both ends have said all.
async fn pass(socket: TcpStream, dial: Dial) -> Result<(), String> {
    let _ = socket.set_nodelay(true);
    let mut caller = Caller { socket, has_all: false };
    let mut stream = dial.await.map_err(|why| why.to_string())?;
    match copy_bidirectional(&mut caller.socket, &mut stream).await {
        Ok(_) => {
            caller.has_all = true;
            Ok(())
        }
        Err(why) => {
            stream.reset();
            Err(why.to_string())
        }
    }
}

//! How incoming streams reach local services: each on its own task, to the address that its target's name allows.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    net::{TcpStream, lookup_host},
    sync::oneshot,
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::debug;

use super::{
    exhausted::is_exhausted,
    relay::{Local, Relay},
    targets::{Address, Targets},
};
use crate::{frame::ResetCode, key::TargetName, mux::MuxTunnel, tunnel::Incoming};

/// How long a local service may take to answer a connect.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How often a unix socket whose backlog is full is tried.
const RETRY_EVERY: Duration = Duration::from_millis(10);

/// Forwards what the server opens in a session to local services, until the session has ended or `stopped` resolves.
/// What still runs is reset then; dropped, likewise.
pub(crate) async fn pump(targets: Arc<Targets>, tunnel: MuxTunnel, mut stopped: oneshot::Receiver<()>) {
    // As many as the session takes streams.
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            incoming = tunnel.incoming() => {
                let Ok(incoming) = incoming else { break };
                tasks.spawn(forward(Incoming::Mux(incoming), Arc::clone(&targets)));
            }
            Some(_) = tasks.join_next() => {}
        }
    }
    tasks.shutdown().await;
}

/// One stream, from its OPEN to its end.
async fn forward(incoming: Incoming, targets: Arc<Targets>) {
    match reach(&incoming.target(), &targets).await {
        Ok(socket) => socket.join(incoming).await,
        Err((code, why)) => incoming.refuse(code, why),
    }
}

/// Connects to the service of a target. What is told of a failure is the refusal's code, and a word where that says too
/// little.
pub(super) async fn reach(target: &TargetName, targets: &Targets) -> Result<Socket, (ResetCode, &'static str)> {
    let Some(address) = targets.get(target) else {
        debug!(%target, "refused a stream: not a target of this agent");
        return Err((ResetCode::TARGET_UNKNOWN, "not a target of this agent"));
    };
    match timeout(CONNECT_WITHIN, Socket::connect(address, targets)).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) if is_exhausted(&error) => Err((ResetCode::TOO_MANY_STREAMS, "no file descriptor left")),
        Ok(Err(error)) => {
            debug!(%target, %address, %error, "refused a stream: the service cannot be reached");
            Err((code(&error), ""))
        }
        Err(_) => {
            debug!(%target, %address, "refused a stream: the service did not answer");
            Err((ResetCode::TARGET_TIMEOUT, ""))
        }
    }
}

/// Accepts and copies.
async fn join(incoming: Incoming, local: impl Local) {
    // Refused here only if the caller gave up while the connect was under way.
    let Ok(tunnel) = incoming.accept() else { return };
    let target = tunnel.target().clone();
    let end = Relay::new(tunnel, local).await;
    debug!(%target, ?end, "a stream ended");
}

/// A connected local socket.
pub(super) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
}

impl Socket {
    /// Takes the stream and copies until both have ended.
    pub(super) async fn join(self, incoming: Incoming) {
        match self {
            Self::Tcp(socket) => join(incoming, socket).await,
            #[cfg(unix)]
            Self::Unix(socket) => join(incoming, socket).await,
        }
    }

    async fn connect(address: &Address, targets: &Targets) -> io::Result<Self> {
        match address {
            Address::Tcp { host, port } => {
                let socket = dial(host, *port, targets).await?;
                socket.set_nodelay(true)?;
                Ok(Self::Tcp(socket))
            }
            #[cfg(unix)]
            Address::Unix(path) => loop {
                match tokio::net::UnixStream::connect(path).await {
                    // Where TCP would wait, a unix socket whose backlog is full has its caller try again.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(RETRY_EVERY).await,
                    socket => return Ok(Self::Unix(socket?)),
                }
            },
            #[cfg(not(unix))]
            Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// Dials the addresses of a host, one after the other, as far as they are allowed. What was judged is what is dialled: the
/// name is not looked up a second time.
async fn dial(host: &str, port: u16, targets: &Targets) -> io::Result<TcpStream> {
    let mut failed = None;
    for address in lookup_host((host, port)).await? {
        if !targets.allows(address) {
            debug!(%address, "refused a stream: the address is not allowed");
            failed.get_or_insert(io::Error::from(io::ErrorKind::PermissionDenied));
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

/// What the caller is told about a connect that failed. In no case did a byte reach the service.
fn code(error: &io::Error) -> ResetCode {
    match error.kind() {
        io::ErrorKind::TimedOut => ResetCode::TARGET_TIMEOUT,
        io::ErrorKind::PermissionDenied => ResetCode::TARGET_DENIED,
        _ => ResetCode::TARGET_REFUSED,
    }
}

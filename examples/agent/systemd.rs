//! What systemd is told, if it asked by `NOTIFY_SOCKET`: that the agent is ready, what it is doing, and that it stops.

use std::{
    env,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use revdial::agent::AgentStatus;
use tokio::sync::watch;

/// Tells of each change until the agent has stopped. It is ready when it was connected for the first time.
pub(crate) async fn tell(mut status: watch::Receiver<AgentStatus>) {
    loop {
        let now = status.borrow_and_update().clone();
        let ready = if now.is_connected() { "READY=1\n" } else { "" };
        notify(&format!("{ready}STATUS={}", words(&now)));
        if now.is_stopped() || status.changed().await.is_err() {
            return;
        }
    }
}

/// Sends this, as of sd_notify(3). Nobody asked, or nobody listens: nothing is lost.
pub(crate) fn notify(text: &str) {
    let Ok(path) = env::var("NOTIFY_SOCKET") else { return };
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    if let (Ok(address), Ok(socket)) = (address, UnixDatagram::unbound()) {
        let _ = socket.send_to_addr(text.as_bytes(), &address);
    }
}

fn words(status: &AgentStatus) -> String {
    match status {
        AgentStatus::Connecting => "connecting".to_owned(),
        AgentStatus::Connected { .. } => "connected".to_owned(),
        AgentStatus::Waiting { text, .. } => format!("waiting to try again: {text}"),
        AgentStatus::Refused { text, .. } => format!("refused, trying again slowly: {text}"),
        AgentStatus::Stopped => "stopped".to_owned(),
        _ => String::new(),
    }
}

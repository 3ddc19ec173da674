//! The listener as `axum::serve` wants it.

use std::{future::pending, io};

use axum::{extract::connect_info::Connected, serve};

use super::listener::{AgentAddr, Listener};
use crate::tunnel::TunnelStream;

/// Endless, as axum's contract has it: when the agent's run has ended it waits for ever. End the server with
/// `with_graceful_shutdown`.
impl serve::Listener for Listener {
    type Io = TunnelStream;
    type Addr = AgentAddr;

    async fn accept(&mut self) -> (TunnelStream, AgentAddr) {
        match Self::accept(self).await {
            Some(stream) => {
                let addr = self.addr_of(&stream);
                (stream, addr)
            }
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<AgentAddr> {
        Ok(self.addr())
    }
}

/// Lets handlers ask for `ConnectInfo<AgentAddr>`: which target the caller asked for.
impl Connected<serve::IncomingStream<'_, Listener>> for AgentAddr {
    fn connect_info(stream: serve::IncomingStream<'_, Listener>) -> Self {
        stream.remote_addr().clone()
    }
}

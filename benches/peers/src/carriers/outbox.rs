//! What is to be written to a socket.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{io::AsyncWrite, net::TcpStream};

use super::inbox::SMALL;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) bytes: Vec<u8>,
    written: usize,
}

impl Outbox {
    /// Writes all of it. What is written from less than a small buffer is not worth keeping one.
    pub(super) fn poll_drain(&mut self, socket: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.bytes.len() {
            self.written += ready!(Pin::new(&mut *socket).poll_write(cx, &self.bytes[self.written..]))?;
        }
        self.written = 0;
        match self.bytes.len() {
            ..SMALL => self.bytes = Vec::new(),
            _ => self.bytes.clear(),
        }
        Poll::Ready(Ok(()))
    }
}

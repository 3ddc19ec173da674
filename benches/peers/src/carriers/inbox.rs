//! What was read from a socket, in buffers as large as what it brings.

use std::{
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, ReadBuf},
    net::TcpStream,
};

/// What a read of a quiet socket asks for, on the stack.
pub(super) const SMALL: usize = 4 * 1024;

/// What a read of a busy one asks for. (Measured: half of it costs a tenth of bulk's throughput.)
const LARGE: usize = 128 * 1024;

#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) unread: BytesMut,
    /// Reads bring as much as they ask for.
    busy: bool,
}

impl Inbox {
    /// Reads once; how much came.
    pub(super) fn poll_fill(&mut self, socket: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let n = if self.busy {
            self.unread.reserve(LARGE);
            ready!(pin!(socket.read_buf(&mut self.unread)).poll(cx))?
        } else {
            let mut scratch = [MaybeUninit::uninit(); SMALL];
            let mut read = ReadBuf::uninit(&mut scratch);
            ready!(Pin::new(socket).poll_read(cx, &mut read))?;
            self.unread.extend_from_slice(read.filled());
            read.filled().len()
        };
        self.busy = n >= SMALL;
        Poll::Ready(Ok(n))
    }

    /// Keeps no buffer for a quiet socket.
    pub(super) fn relax(&mut self) {
        if !self.busy && self.unread.is_empty() {
            self.unread = BytesMut::new();
        }
    }
}

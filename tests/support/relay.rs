//! What lies between an agent and its server: it passes bytes on until a test has it fail in a certain way.

use std::future::pending;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, split},
    sync::watch,
};

/// How a link fails, from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not at all; what was held back goes on its way.
    None,
    /// Both ends see it gone, without a word.
    Cut,
    /// Both WebSockets are closed with this code, as by a proxy in between.
    Close(u16),
    /// Nothing is passed on, either way.
    Silent,
    /// Nothing is passed on to the server.
    SilentUp,
    /// Nothing is passed on to the agent.
    SilentDown,
    /// The agent sees it gone, the server hears nothing of that.
    AgentGone,
    /// The server sees it gone, the agent hears nothing of that.
    ServerGone,
}

/// Where a link is cut by itself, counted behind the head of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Before the next byte after so many.
    Bytes(usize),
    /// Before the next WebSocket frame after so many.
    Frames(usize),
}

/// The limits of one link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// To the server.
    pub(crate) up: Option<Limit>,
    /// To the agent.
    pub(crate) down: Option<Limit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// The limit was reached, or an end is gone.
struct Over;

/// Passes on between the agent's end and the server's until the link is over.
pub(crate) async fn relay(agent: DuplexStream, server: DuplexStream, plan: Plan, faults: watch::Receiver<Fault>) {
    let (mut near_read, mut near_write) = split(agent);
    let (mut far_read, mut far_write) = split(server);
    let mut news = faults.clone();
    let both = async {
        let up = pump(&mut near_read, &mut far_write, Way::Up, plan.up, faults.clone());
        let down = pump(&mut far_read, &mut near_write, Way::Down, plan.down, faults);
        let _ = tokio::try_join!(up, down);
    };
    let ends = |fault: &Fault| matches!(fault, Fault::Cut | Fault::AgentGone | Fault::ServerGone);
    let fault = tokio::select! {
        biased;
        Ok(fault) = news.wait_for(ends) => *fault,
        () = both => Fault::Cut,
    };
    match fault {
        Fault::AgentGone => drop((near_read, near_write)),
        Fault::ServerGone => drop((far_read, far_write)),
        _ => return,
    }
    // The other end stays as it is.
    let _ = news.wait_for(|fault| *fault == Fault::Cut).await;
}

async fn pump<R, W>(
    read: &mut R,
    write: &mut W,
    way: Way,
    limit: Option<Limit>,
    mut faults: watch::Receiver<Fault>,
) -> Result<(), Over>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (mut border, mut buffer) = (Border::default(), vec![0; 16 * 1024]);
    loop {
        let fault = *faults.borrow_and_update();
        let closes = match fault {
            Fault::Close(code) => Some(code),
            _ => None,
        };
        if let Some(code) = closes.filter(|_| border.is_at()) {
            write.write_all(&close(way, code)).await.map_err(|_| Over)?;
            write.shutdown().await.map_err(|_| Over)?;
            // Its answer is heard, and nothing made of it.
            while read.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
            return Ok(());
        }
        let held = fault == Fault::Silent
            || (fault == Fault::SilentUp && way == Way::Up)
            || (fault == Fault::SilentDown && way == Way::Down);
        let n = tokio::select! {
            biased;
            () = changed(&mut faults) => continue,
            n = read.read(&mut buffer), if !held => n.map_err(|_| Over)?,
        };
        if n == 0 {
            return write.shutdown().await.map_err(|_| Over);
        }
        let mut passed = 0;
        while passed < n && !border.is_past(limit) && !(closes.is_some() && border.is_at()) {
            passed += border.step(&buffer[passed..n], limit);
        }
        write.write_all(&buffer[..passed]).await.map_err(|_| Over)?;
        if passed < n && closes.is_none() {
            return Err(Over);
        }
    }
}

async fn changed(faults: &mut watch::Receiver<Fault>) {
    if faults.changed().await.is_err() {
        pending::<()>().await;
    }
}

/// A close frame as the peer of this direction's reader would send it.
fn close(way: Way, code: u16) -> Vec<u8> {
    let head: &[u8] = match way {
        Way::Up => &[0x88, 0x82, 0, 0, 0, 0],
        Way::Down => &[0x88, 0x02],
    };
    [head, &code.to_be_bytes()].concat()
}

/// Where in a direction the bytes are: in the head of HTTP, or in which frame.
#[derive(Debug, Default)]
struct Border {
    /// Of the empty line that ends the head.
    matched: usize,
    header: Vec<u8>,
    left: usize,
    frames: usize,
    bytes: usize,
}

impl Border {
    const EMPTY_LINE: &[u8] = b"\r\n\r\n";

    /// Whether a frame may begin here.
    fn is_at(&self) -> bool {
        self.matched == Self::EMPTY_LINE.len() && self.header.is_empty() && self.left == 0
    }

    fn is_past(&self, limit: Option<Limit>) -> bool {
        match limit {
            Some(Limit::Bytes(most)) => self.matched == Self::EMPTY_LINE.len() && self.bytes >= most,
            Some(Limit::Frames(most)) => self.is_at() && self.frames >= most,
            None => false,
        }
    }

    /// Takes some of these bytes, not beyond a border or the limit; how many.
    fn step(&mut self, bytes: &[u8], limit: Option<Limit>) -> usize {
        if self.matched < Self::EMPTY_LINE.len() {
            let next = Self::EMPTY_LINE[self.matched] == bytes[0];
            self.matched = if next { self.matched + 1 } else { usize::from(bytes[0] == b'\r') };
            return 1;
        }
        let mut taken = 1;
        if self.left > 0 {
            taken = self.left.min(bytes.len());
            if let Some(Limit::Bytes(most)) = limit {
                taken = taken.min(most - self.bytes);
            }
            self.left -= taken;
        } else {
            self.header.push(bytes[0]);
            self.left = self.payload().unwrap_or(0);
            if self.payload().is_some() {
                self.header.clear();
            }
        }
        self.bytes += taken;
        self.frames += usize::from(self.is_at());
        taken
    }

    /// The length behind the header, if that is whole.
    fn payload(&self) -> Option<usize> {
        let second = *self.header.get(1)?;
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let long = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.header.len() < 2 + long + mask {
            return None;
        }
        let length = self.header[2..2 + long].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        Some(if long == 0 { usize::from(second & 0x7f) } else { length })
    }
}

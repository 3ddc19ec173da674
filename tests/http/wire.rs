//! HTTP/1.1 as it stands on the wire, read without help: what a host of ours does to a message must not be undone here.

use std::{fmt, io};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A head: its first line, and its fields in order, names in lower case. Bytes stand as the characters of their number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) line: String,
    pub(crate) fields: Vec<(String, String)>,
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
    /// Until the connection ends.
    Close,
}

/// A body, as far as it came.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) data: BytesMut,
    pub(crate) trailers: Vec<(String, String)>,
    pub(crate) is_cut: bool,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { data, trailers, is_cut } = self;
        let shown = &data[..data.len().min(100)];
        write!(f, "{} bytes {:?}, trailers {trailers:?}, cut: {is_cut}", data.len(), shown.escape_ascii().to_string())
    }
}

/// A connection with what was read too early.
#[derive(Debug)]
pub(crate) struct Wire<T> {
    io: T,
    read: BytesMut,
    /// All that ever came.
    received: BytesMut,
}

impl Head {
    /// The first value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|field| field.0 == name).map(|field| &*field.1)
    }

    /// Whether a field that is a list has this member.
    pub(crate) fn lists(&self, name: &str, member: &str) -> bool {
        let values = self.fields.iter().filter(|field| field.0 == name);
        values.flat_map(|field| field.1.split(',')).any(|token| token.trim().eq_ignore_ascii_case(member))
    }

    pub(crate) fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    /// The length of a request's body.
    pub(crate) fn framing(&self) -> Framing {
        self.framing_or(Framing::Length(0))
    }

    /// The length of the body of a response to this method.
    pub(crate) fn framing_to(&self, method: &str) -> Framing {
        match self.status() {
            100..200 | 204 | 304 => Framing::Length(0),
            _ if method == "HEAD" => Framing::Length(0),
            _ => self.framing_or(Framing::Close),
        }
    }

    fn framing_or(&self, other: Framing) -> Framing {
        match self.field("content-length").map(|length| length.parse().expect("a length")) {
            _ if self.lists("transfer-encoding", "chunked") => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => other,
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire<T> {
    pub(crate) fn new(io: T) -> Self {
        Self { io, read: BytesMut::new(), received: BytesMut::new() }
    }

    /// All that came.
    pub(crate) fn received(self) -> BytesMut {
        self.received
    }

    /// Writes all, unless the other side is gone already.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    /// Ends this side's half.
    pub(crate) async fn end(&mut self) {
        let _ = self.io.shutdown().await;
    }

    /// The next head. None: the connection has ended.
    pub(crate) async fn head(&mut self) -> Option<Head> {
        let line = self.line().await?;
        Some(Head { line, fields: self.fields().await? })
    }

    pub(crate) async fn content(&mut self, framing: Framing) -> Content {
        let mut content = Content::default();
        content.is_cut = match framing {
            Framing::Length(length) => self.take(length, &mut content.data).await.is_none(),
            Framing::Close => self.until_end(&mut content.data).await.is_none(),
            Framing::Chunked => self.chunks(&mut content).await.is_none(),
        };
        content
    }

    async fn chunks(&mut self, content: &mut Content) -> Option<()> {
        loop {
            let line = self.line().await?;
            let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
            if size == 0 {
                content.trailers = self.fields().await?;
                return Some(());
            }
            self.take(size, &mut content.data).await?;
            self.line().await?;
        }
    }

    /// So many bytes; those that came before an end are there as well.
    pub(crate) async fn take(&mut self, n: usize, into: &mut BytesMut) -> Option<()> {
        let mut rest = n;
        while rest > 0 {
            if self.read.is_empty() && !self.more().await.ok()? {
                return None;
            }
            let piece = self.read.split_to(rest.min(self.read.len()));
            rest -= piece.len();
            into.extend(piece);
        }
        Some(())
    }

    /// All bytes to the end, which may be a failure.
    pub(crate) async fn until_end(&mut self, into: &mut BytesMut) -> Option<()> {
        loop {
            into.extend(self.read.split());
            if !self.more().await.ok()? {
                return Some(());
            }
        }
    }

    async fn fields(&mut self) -> Option<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(fields);
            }
            let (name, value) = line.split_once(':')?;
            fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.read.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.read.split_to(at + 2);
                return Some(line[..at].iter().copied().map(char::from).collect());
            }
            if !self.more().await.ok()? {
                return None;
            }
        }
    }

    async fn more(&mut self) -> io::Result<bool> {
        let n = self.io.read_buf(&mut self.read).await?;
        self.received.extend(&self.read[self.read.len() - n..]);
        Ok(n > 0)
    }
}

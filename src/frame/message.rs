//! One message as pieces: what was laid out for it, and large payloads where they already lie.

use bytes::{Bytes, BytesMut};

/// A whole message, for a link: pieces that are to be sent one behind the other. Cheap to clone.
///
/// Equal to another one if the bytes are, however they are cut.
#[derive(Debug, Clone, Default)]
pub struct Message {
    first: Bytes,
    /// None in most messages.
    more: Vec<Bytes>,
}

impl Message {
    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces().map(Bytes::len).fold(0, usize::saturating_add)
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces().all(Bytes::is_empty)
    }

    /// Its bytes, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// The same, each to be kept.
    pub(crate) fn into_pieces(self) -> impl Iterator<Item = Bytes> {
        std::iter::once(self.first).chain(self.more)
    }

    /// Its bytes in a row, copied unless there is one piece only.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        if self.more.is_empty() {
            return self.first;
        }
        let mut bytes = BytesMut::with_capacity(self.len());
        self.pieces().for_each(|piece| bytes.extend_from_slice(piece));
        bytes.freeze()
    }
}

impl From<Bytes> for Message {
    fn from(first: Bytes) -> Self {
        Self { first, more: Vec::new() }
    }
}

impl From<Message> for Bytes {
    fn from(message: Message) -> Self {
        message.into_bytes()
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.pieces().flatten().eq(other.pieces().flatten())
    }
}

impl Eq for Message {}

/// A message that is being laid out.
#[derive(Debug)]
pub(crate) struct Layout {
    pieces: Vec<Bytes>,
    /// How long `pieces` are.
    len: usize,
    /// What is laid out behind them.
    tail: BytesMut,
}

impl Layout {
    /// From this length on a payload is shared with the message instead of copied into it. Below, a copy is cheaper than
    /// a piece of its own.
    pub(crate) const SHARED: usize = 4 * 1024;

    /// With room for so much that is laid out, beside what is shared.
    pub(crate) fn with_capacity(room: usize) -> Self {
        Self { pieces: Vec::new(), len: 0, tail: BytesMut::with_capacity(room) }
    }

    pub(crate) fn len(&self) -> usize {
        self.len.saturating_add(self.tail.len())
    }

    /// Whether a payload of this length is shared, and not copied.
    pub(crate) const fn shares(len: usize) -> bool {
        len >= Self::SHARED
    }

    /// Where the next frame is laid out.
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Puts a payload where it lies behind what was laid out so far.
    pub(crate) fn share(&mut self, payload: Bytes) {
        self.len = self.len().saturating_add(payload.len());
        self.pieces.push(self.tail.split().freeze());
        self.pieces.push(payload);
    }

    pub(crate) fn finish(mut self) -> Message {
        if self.pieces.is_empty() {
            return self.tail.freeze().into();
        }
        if !self.tail.is_empty() {
            self.pieces.push(self.tail.freeze());
        }
        let first = self.pieces.remove(0);
        Message { first, more: self.pieces }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_in_the_order_in_which_they_were_laid_and_are_the_same_in_a_row() {
        let mut layout = Layout::with_capacity(8);
        layout.tail().extend_from_slice(b"head");
        layout.share(Bytes::from_static(b"payload"));
        layout.tail().extend_from_slice(b"next");
        assert_eq!(layout.len(), 15);
        let message = layout.finish();
        assert_eq!(message.len(), 15);
        assert!(message.pieces().eq([&b"head"[..], b"payload", b"next"]));
        assert!(message.clone().into_pieces().eq(message.pieces().cloned()));
        assert_eq!(message, Message::from(Bytes::from_static(b"headpayloadnext")));
        assert_ne!(message, Message::from(Bytes::from_static(b"headpayloadnexT")));
        assert_eq!(Bytes::from(message), "headpayloadnext");
    }

    #[test]
    fn one_that_shares_nothing_is_one_piece_and_is_not_copied() {
        let mut layout = Layout::with_capacity(8);
        layout.tail().extend_from_slice(b"all");
        let message = layout.finish();
        let at = message.pieces().next().unwrap().as_ptr();
        assert_eq!(message.pieces().count(), 1);
        let bytes = message.into_bytes();
        assert_eq!((bytes.as_ptr(), &bytes[..]), (at, &b"all"[..]));
        assert!(Message::default().is_empty() && Layout::with_capacity(0).finish().is_empty());
    }
}

//! Frames on the wire: each is a binary message of a WebSocket, with 8 bytes of ours before its data.

use bytes::{Buf, BytesMut};

use crate::carriers::framing::{BEFORE_DATA, Body, Key, append, begin};

/// The length of a head.
const HEAD: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is a new stream.
    Open,
    /// So many bytes follow.
    Data,
    /// The reader has taken so many bytes.
    Taken,
    /// No more will follow.
    Fin,
}

/// What a frame begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) stream: u32,
    /// Below 16 Mi.
    pub(super) count: u32,
}

/// Appends a frame.
pub(super) fn push(out: &mut Vec<u8>, key: Option<Key>, head: Head, data: &[u8]) {
    out.reserve(BEFORE_DATA + HEAD + data.len());
    begin(out, key, HEAD + data.len());
    let Head { kind, stream, count } = head;
    // The key goes on with the data, as a head is a multiple of its length.
    append(out, key, &(u64::from(stream) << 32 | (kind as u64) << 24 | u64::from(count)).to_be_bytes());
    append(out, key, data);
}

/// Takes the head at the start of these bytes, and gives what follows it; `None`: it is not whole.
pub(super) fn head(bytes: &mut BytesMut) -> Option<(Head, Body)> {
    let (mut body, at) = Body::begin(bytes)?;
    let mut head: [u8; HEAD] = *bytes.get(at..)?.first_chunk()?;
    body.unmask(&mut head);
    bytes.advance(at + HEAD);
    let [a, b, c, d, kind, count @ ..] = head;
    let kind = [Kind::Open, Kind::Data, Kind::Taken, Kind::Fin][usize::from(kind)];
    let count = count.iter().fold(0, |count, byte| count << 8 | u32::from(*byte));
    Some((Head { kind, stream: u32::from_be_bytes([a, b, c, d]), count }, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carriers::framing::KEY;

    #[test]
    fn what_is_pushed_is_found_again() {
        for (key, len) in [0, 117, 118, 100_000].into_iter().flat_map(|n| [(None, n), (Some(KEY), n)]) {
            let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let pushed = Head { kind: Kind::Data, stream: 7 << 24, count: len };
            let mut frame = Vec::new();
            push(&mut frame, key, pushed, &data);
            let before = frame.len() - data.len();
            assert!((0..before).all(|cut| head(&mut BytesMut::from(&frame[..cut])).is_none()), "{len}");
            let mut frame = BytesMut::from(&frame[..]);
            let (found, mut body) = head(&mut frame).expect("a whole head");
            assert_eq!((found, body.left), (pushed, len as usize));
            assert!(body.split(&mut frame) == data, "{len}");
        }
    }
}
